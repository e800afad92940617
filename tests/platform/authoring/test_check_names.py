"""11-40: `llmasos check` finds what would fail at the first call, and what was never written."""

import hashlib
from pathlib import Path

import pytest

from llmasos.authoring.check import check
from llmasos.authoring.scaffold import new

SOURCE = '''
from __future__ import annotations

import json

from llmasos_sdk import App, Context

app = App()
LIMIT = 3


@app.action
def shorten(ctx: Context, text: str) -> str:
    """Shorten a text."""
    return ctx.model.generate(text[:LIMIT]).text + {expression}
'''


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return new("acme/shortener", tmp_path, kind="wasm", language="python")


def found(project: Path) -> list[tuple[str, str, str]]:
    return [(each.level, each.where, str(each.message)) for each in check(project)]


def test_a_new_project_has_nothing_to_mend(project: Path) -> None:
    assert found(project) == []


@pytest.mark.parametrize("expression", ["josn.dumps(text)", "undefined_helper(text)", "TEXT"])
def test_a_name_that_nothing_defines_is_found(project: Path, expression: str) -> None:
    """11-40: such a typing slip was found by the first user."""
    (project / "app.py").write_text(SOURCE.replace("{expression}", expression))
    name = expression.split("(", maxsplit=1)[0].split(".", maxsplit=1)[0]
    errors = [(where, message) for level, where, message in found(project) if level == "error"]
    assert errors == [("app.py, line 15", f"the name {name!r} is used, and nothing defines it: import or define it")]


@pytest.mark.parametrize("expression", ["json.dumps(text)", "str(LIMIT)", "__name__", "(lambda s: s)(text)"])
def test_defined_names_are_no_finding(project: Path, expression: str) -> None:
    (project / "app.py").write_text(SOURCE.replace("{expression}", expression))
    assert [each for each in found(project) if each[0] == "error"] == []


def test_texts_left_from_the_scaffold_are_found_once_the_app_does_something_else(project: Path) -> None:
    """11-40."""
    (project / "app.py").write_text(SOURCE.replace("{expression}", "text"))
    left = [where for level, where, message in found(project) if "the new project did" in message]
    assert left == ["README.md", "README.zh.md", "llmapp.toml"]
    (project / "README.md").write_text("# Shortener\n\nShortens texts.\n")
    (project / "README.zh.md").write_text("# 缩短\n\n缩短文本。\n")
    manifest = project / "llmapp.toml"
    manifest.write_text(
        manifest.read_text()
        .replace("Greets people in one warm sentence.", "Shortens texts.")
        .replace("Writes the greeting.", "Shortens what you give it.")
    )
    assert not any("the new project did" in message for _, _, message in found(project))


@pytest.mark.parametrize(
    "line", ["import yaml", "from yaml.parts import load", "def late() -> None:\n    import yaml", "import yaml.parts"]
)
def test_an_import_that_nothing_provides_is_found(project: Path, line: str) -> None:
    """11-40: the first run of the app found it."""
    (project / "helpers").mkdir()
    (project / "helpers" / "__init__.py").write_text(f"from . import more\n{line}\n")
    number = 2 + line.count("\n")
    [(level, where, message)] = found(project)
    assert (level, where) == ("error", f"helpers/__init__.py, line {number}")
    assert "module 'yaml'" in message
    assert "`llmasos add PACKAGE`" in message


def test_an_import_that_something_provides_is_not_found(project: Path) -> None:
    (project / "words.py").write_text(
        "import json, xml.dom, words, helpers.more\nfrom . import beside\nfrom llmasos_sdk import App\n"
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import numpy\n"
        "try:\n    import ujson\nexcept ImportError:\n    ujson = None\n"
    )
    (project / "helpers").mkdir()
    (project / "helpers" / "more.py").write_text("from helpers import more\nfrom .more import this\n")
    assert [each for each in found(project) if "module" in each[2]] == []


def test_an_import_of_a_package_is_looked_for_once_the_tests_installed_it(project: Path) -> None:
    (project / "words.py").write_text("import slugify\nimport yaml\n")
    manifest = project / "llmapp.toml"
    manifest.write_text(manifest.read_text().replace("[runtime]", '[runtime]\nrequirements = ["python-slugify"]'))
    (project / "requirements.lock").write_text("lock")
    assert [each for each in found(project) if "module" in each[2]] == []
    installed = project / ".llmasos" / "packages" / hashlib.sha256(b"lock").hexdigest()[:16]
    (installed / "slugify").mkdir(parents=True)
    assert [each[1] for each in found(project) if "module" in each[2]] == ["words.py, line 2"]
