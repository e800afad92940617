"""Everything is documented: commands, settings, error codes, hooks, state, links and snippets."""

import ast
import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

import llmasos
import llmasos_marketplace
import llmasos_server
from llmasos.bundles.actions import LIFECYCLE_EVENTS
from llmasos.errors import LlmasosError
from llmasos.hooks import Hooks
from llmasos.settings import Settings
from llmasos_sdk import App
from llmasos_sdk.hooks import AppHooks
from llmasos_server.cli import registry
from llmasos_server.cli.registry import PLACES
from llmasos_server.cli.shell import app

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
REFERENCE = (ROOT / "platform" / "README.md").read_text(encoding="utf-8")
DOCUMENTS = sorted(
    path
    for path in ROOT.rglob("*.md")
    if not any(part.startswith(".") or part == "node_modules" for part in path.relative_to(ROOT).parts)
)


def table(heading: str) -> dict[str, list[str]]:
    """The rows of the table under a heading of the reference, by their first cell."""
    section = re.split(r"^## ", REFERENCE.split(f"\n## {heading}\n")[1], flags=re.MULTILINE)[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line[:1] == "|"]
    return {row[0].strip("`"): [cell.strip("`") for cell in row[1:]] for row in rows[2:]}


def test_advisories_are_answered_for_the_versions_that_are_pinned() -> None:
    pins = dict(re.findall(r'^    "([\w-]+)==([\w.]+)', (ROOT / "pyproject.toml").read_text(), re.MULTILINE))
    text = (ROOT / "platform" / "ADVISORIES.md").read_text(encoding="utf-8")
    cells = [line.split("|")[1] for line in text.splitlines() if line.startswith("| ") and "package" not in line]
    answered = {name: version for cell in cells for name, version in re.findall(r"([a-z][\w-]+) (\d[\w.]*)", cell)}
    assert len(answered) >= 12
    assert answered == {name: pins[name].split(".post")[0] for name in answered}


def error_classes() -> set[type[LlmasosError]]:
    """Every class of the tree, with all modules of the host, the marketplace and the server imported."""
    for package in (llmasos, llmasos_marketplace, llmasos_server):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    found: set[type[LlmasosError]] = set()
    waiting: list[type[LlmasosError]] = [LlmasosError]
    while waiting:
        found.add(one := waiting.pop())
        waiting += one.__subclasses__()
    return {each for each in found if each.__module__.startswith("llmasos") and not each.__name__.startswith("_")}


def test_every_error_code_is_documented_with_its_status_and_exit_code() -> None:
    # A class made of an HTTP status that the framework raised has a code made of the status.
    named = {each for each in error_classes() if not re.fullmatch(r"Status\d+", each.__name__)}
    told = {code: (int(row[0]), int(row[1])) for code, row in table("Error codes").items()}
    assert told == {each.code: (each.status, each.exit_code) for each in named}


def test_every_error_says_in_its_docstring_what_happened() -> None:
    assert [each for each in error_classes() if not each.__doc__] == []


def test_every_setting_is_documented_with_its_variable_and_default() -> None:
    told = table("Settings")
    assert set(told) == set(Settings.model_fields)
    for name, field in Settings.model_fields.items():
        variable, default = told[name][:2]
        assert variable == f"LLMASOS_{name.upper()}"
        # The page describes an empty default in words.
        if field.default_factory is None and field.default != "":
            assert default == str(list(field.default) if isinstance(field.default, tuple) else field.default)


def test_every_hook_is_documented_with_its_arguments() -> None:
    hooks = {name: value for name, value in vars(Hooks).items() if inspect.isfunction(value)}
    told = {name: re.findall(r"\w+", row[0]) for name, row in table("Hooks").items()}
    assert told == {name: list(inspect.signature(value).parameters)[1:] for name, value in hooks.items()}
    assert [name for name, value in hooks.items() if not value.__doc__] == []


def test_every_moment_of_an_app_is_documented_with_its_function_and_arguments() -> None:
    told = {name: row[0] for name, row in table("Lifecycle events of an app").items()}
    assert set(told) == LIFECYCLE_EVENTS
    for name, row in told.items():
        arguments = list(inspect.signature(getattr(AppHooks, name[1:])).parameters)[2:]
        assert row == f"@app.on_{name[1:]}`, `({', '.join(['ctx', *arguments])})"
        assert hasattr(App, f"on_{name[1:]}")


def test_every_exit_code_of_the_readme_is_in_the_reference() -> None:
    codes = set(re.findall(r"(\d) (?:done|failed|usage|denied|quota|not found)", " ".join(README.split())))
    assert codes == {"0", "1", "2", "3", "4", "5"}
    assert codes | {"130"} == set(table("Exit codes"))


@pytest.mark.parametrize("name", [entry.name for entry in registry.ENTRIES])
def test_every_command_is_told_of_in_the_help_and_has_a_help_of_its_own(name: str) -> None:
    runner = CliRunner()
    assert re.search(rf"^  {name} ", runner.invoke(app, ["--help"]).output, re.MULTILINE)
    helped = runner.invoke(app, [name, "--help"])
    assert helped.exit_code == 0
    assert "--json" in helped.output or "Commands:" in helped.output


def test_the_reference_says_what_every_command_does_if_a_server_is_named() -> None:
    """11-39: by the words that call it."""
    means = {"talks to that server": "server", "is refused": "home", "works on this machine, and says so": "machine"}
    told = table("Commands and a server")
    assert {name.removeprefix("llmasos "): means[row[0].partition(":")[0]] for name, row in told.items()} == PLACES


def test_every_command_that_the_documents_name_exists() -> None:
    named: set[tuple[str, str]] = set()
    for document in DOCUMENTS:
        for block in re.findall(r"(?:^    .*\n)+|`llmasos [^`]+`", document.read_text(encoding="utf-8"), re.MULTILINE):
            found = re.findall(r"(?:^|[`;&$]|uv run) *llmasos ([a-z]+)", block, re.MULTILINE)
            named |= {(document.name, word) for word in found}
    assert len(named) > 20
    assert [each for each in sorted(named) if each[1] not in registry.BY_NAME] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    headings = {
        re.sub(r"[^\w\- ]", "", line.lstrip("# ").lower()).strip().replace(" ", "-")
        for line in text.splitlines()
        if line.startswith("#")
    }
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("#"):
            assert target[1:] in headings, target
        elif "://" not in target:
            assert (document.parent / target.partition("#")[0]).exists(), target


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_python_snippets_parse_and_import_what_exists(document: Path) -> None:
    for snippet in re.findall(r"```python\n(.*?)```", document.read_text(encoding="utf-8"), re.DOTALL):
        for node in ast.walk(ast.parse(snippet)):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    importlib.import_module(alias.name)
            elif isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("llmasos"):
                module = importlib.import_module(node.module)
                assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []
