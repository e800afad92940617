"""The promises of .github/SECURITY.md and the tests that hold them are the same list."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROMISE = re.compile(r"^- \*\*([A-Z]\d+)\*\* ", re.MULTILINE)
NAMED = re.compile(r"SECURITY ((?:[A-Z]\d+(?:, )?)+)")


def named_by_tests() -> dict[str, list[str]]:
    """Every promise that the docstring of a test names, with those tests."""
    found: dict[str, list[str]] = {}
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                for match in NAMED.finditer(ast.get_docstring(node) or ""):
                    for promise in re.findall(r"[A-Z]\d+", match[1]):
                        found.setdefault(promise, []).append(f"{path.name}::{node.name}")
    return found


def test_every_promise_is_held_by_a_test_that_names_it_and_no_test_names_another() -> None:
    promised = PROMISE.findall((ROOT / ".github/SECURITY.md").read_text(encoding="utf-8"))
    assert len(promised) == len(set(promised)) > 20
    assert set(named_by_tests()) == set(promised)
