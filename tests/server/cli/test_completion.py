"""11-29: a shell completes commands, apps and actions."""

import shutil
import subprocess
from pathlib import Path

import pytest

from llmasos.bundles.testing import make_bundle, manifest_text
from llmasos_marketplace.catalog.testing import add_bundle, open_catalog
from llmasos_server.cli import completion


@pytest.fixture
def catalog(home: Path, tmp_path: Path) -> None:
    opened = open_catalog(home)
    add_bundle(opened, make_bundle(tmp_path / "made", manifest_text(version="1.0.0")))
    opened.database.close()


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch, catalog: None) -> None:
    """Rows of the database, as if acme/hello and acme/notes were installed."""
    names = {"acme/hello": {"name": {"en": "Hello", "zh": "你好"}}, "acme/notes": {"name": {"en": "Notes"}}}
    rows = [{"app_id": app, "manifest": manifest} for app, manifest in names.items()]
    from llmasos_marketplace.catalog import reader

    monkeypatch.setattr(reader, "installations", lambda _url, _workspace: rows)
    monkeypatch.setattr(
        reader,
        "installed_actions",
        lambda _url, _workspace, app: [{"name": "greet"}, {"name": "part"}] if app == "acme/hello" else None,
    )


@pytest.fixture
def complete(llmasos):
    def bash(line: str, **environment: str) -> list[str]:
        words = line.split(" ")
        variables = {"COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1), "_LLMASOS_COMPLETE": "complete_bash"}
        return llmasos(**variables, **environment).stdout.split()

    return bash


def test_commands_are_completed_without_a_home(complete) -> None:
    assert complete("llmasos inst") == ["install"]
    assert {"run", "rollback"} <= set(complete("llmasos r"))
    assert complete("llmasos quota l") == ["list"]


def test_installed_apps_and_their_actions_are_completed(complete, installed: None) -> None:
    assert complete("llmasos run acme/h") == ["acme/hello"]
    assert complete("llmasos run acme/hello ") == ["greet", "part"]
    assert complete("llmasos run acme/hello gr") == ["greet"]
    assert complete("llmasos run acme/none ") == []
    for command in ("uninstall", "upgrade", "logs", "invocations", "grants show"):
        assert complete(f"llmasos {command} acme/n") == ["acme/notes"]


def test_apps_of_the_catalog_are_completed(complete, catalog: None) -> None:
    assert complete("llmasos install ac") == ["acme/hello"]
    assert complete("llmasos show acme/h") == ["acme/hello"]


def test_zsh_and_fish_show_names_in_the_users_language(llmasos, installed: None) -> None:
    asked = {"_TYPER_COMPLETE_ARGS": "llmasos run acme/h", "LLMASOS_LOCALE": "zh"}
    assert '"acme/hello":"你好"' in llmasos(_LLMASOS_COMPLETE="complete_zsh", **asked).stdout
    fish = {"_TYPER_COMPLETE_FISH_ACTION": "get-args", "_LLMASOS_COMPLETE": "complete_fish"}
    assert llmasos(**fish, **asked).stdout == "acme/hello\t你好\n"


def test_a_home_that_cannot_be_read_completes_nothing_and_says_nothing(llmasos, home: Path) -> None:
    home.mkdir()
    (home / "llmasos.db").write_text("no database")
    done = llmasos(COMP_WORDS="llmasos run a", COMP_CWORD="2", _LLMASOS_COMPLETE="complete_bash")
    assert (done.stdout.strip(), done.stderr) == ("", "")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_each_shell_is_one_that_it_takes(llmasos, tmp_path: Path, shell: str) -> None:
    script = llmasos("completion", shell).stdout
    assert "_LLMASOS_COMPLETE" in script
    if shutil.which(shell):
        (tmp_path / "script").write_text(script)
        done = subprocess.run([shell, "-n", tmp_path / "script"], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")


def test_the_shell_is_the_users_own_or_must_be_named(llmasos) -> None:
    assert llmasos("completion", SHELL="/bin/zsh").stdout == llmasos("completion", "zsh").stdout
    assert "llmasos completion bash, zsh or fish" in llmasos("completion", SHELL="/bin/tcsh").stderr


def test_it_is_installed_in_the_shells_own_settings(llmasos, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    done = llmasos("completion", "fish", "--install")
    assert done.exit_code == 0
    [script] = tmp_path.rglob("llmasos.fish")
    assert str(script) in done.stdout
    assert completion.Shell.FISH in done.stdout
