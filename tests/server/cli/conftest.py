"""The command line in this process, on a home of the test's own."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from llmasos_server.cli.shell import app

Command = Callable[..., Result]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home that no command has made yet, of a reader of English."""
    monkeypatch.setenv("LLMASOS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("LLMASOS_LOCALE", "en")
    for name in ("LLMASOS_DATABASE_URL", "LLMASOS_URL", "LLMASOS_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "home"


@pytest.fixture
def llmasos(home: Path) -> Command:
    """Runs a command; keywords are variables of its environment."""

    def run(*words: str, **environment: str) -> Result:
        return CliRunner().invoke(app, list(words), env=environment)

    return run


@pytest.fixture
def answer(llmasos: Command) -> Callable[..., Any]:
    """Runs a command that must succeed; returns what it prints with --json."""

    def run(*words: str, **environment: str) -> Any:
        done = llmasos(*words, "--json", **environment)
        assert done.exit_code == 0, done.stderr
        return json.loads(done.stdout)

    return run
