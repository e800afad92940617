"""What `llmasos check` finds beside faults of form: names that nothing defines, and texts left from the scaffold."""

from __future__ import annotations

import ast
import importlib.resources
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from llmasos.bundles import layout

# The scaffold's one action: while the source has it, its texts are true.
_ACTION: Final = "greet"
# Shorter lines say nothing of what the app does.
_LEAST_CHARACTERS: Final = 12


@dataclass(frozen=True, slots=True)
class UndefinedName:
    """A name that a source uses and nothing defines."""

    name: str
    line: int


def undefined_names(tree: ast.Module, name: str) -> list[UndefinedName] | None:
    """The names that a source uses and nothing defines, by pyflakes; None if it is not installed.

    Args:
        tree: The source, parsed. It is not run.
        name: The file's name.
    """
    try:
        from pyflakes import checker, messages  # type: ignore[import-untyped]  # noqa: PLC0415 - an author's tool
    except ModuleNotFoundError:
        return None
    found: Any = checker.Checker(tree, filename=name).messages
    undefined = (each for each in found if isinstance(each, messages.UndefinedName))
    return [UndefinedName(str(each.message_args[0]), each.lineno) for each in undefined]


def scaffold_texts(root: Path, source: Path) -> Iterator[str]:
    """The files that still have texts of the scaffold, though the source no longer does what they say."""
    if _ACTION in _text(source):
        return
    for name in (layout.README, "README.zh.md", layout.MANIFEST):
        text = _text(root / name)
        if any(line in text for line in _scaffolded(name)):
            yield name


@cache
def _scaffolded(name: str) -> frozenset[str]:
    """What the scaffold writes about the app that it makes."""
    template = (importlib.resources.files("llmasos.authoring") / "templates" / name).read_text(encoding="utf-8")
    if name == layout.MANIFEST:
        lines = [line.partition(" = ")[2] for line in template.splitlines() if line.startswith(("en = ", "reason."))]
    else:
        lines = template.splitlines()[:6]
    return frozenset(line for line in lines if "%%" not in line and len(line) > _LEAST_CHARACTERS)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8") if path.is_file() else ""
    except (OSError, UnicodeDecodeError):
        return ""
