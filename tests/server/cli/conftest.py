"""The command line in this process, on a home of the test's own."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.server.cli.components import minimal_component
from tests.server.cli.store_commands import STORAGE
from typer.testing import CliRunner, Result

from llmasos.bundles.testing import MODEL_PERMISSION, action, bundle_files, manifest_text
from llmasos.bundles.writer import write_bundle
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

    def run(*words: str, stdin: str | None = None, **environment: str) -> Result:
        return CliRunner().invoke(app, list(words), input=stdin, env=environment)

    return run


@pytest.fixture
def answer(llmasos: Command) -> Callable[..., Any]:
    """Runs a command that must succeed; returns what it prints with --json."""

    def run(*words: str, stdin: str | None = None, **environment: str) -> Any:
        done = llmasos(*words, "--json", stdin=stdin, **environment)
        assert done.exit_code == 0, done.stderr
        return json.loads(done.stdout)

    return run


@pytest.fixture(scope="module")
def binary() -> bytes:
    """A small component."""
    return minimal_component(json.dumps([action()]))


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory, binary: bytes) -> Path:
    """A home in which 1.0.0 asks for a model, and 1.1.0 for storage too."""
    folder = tmp_path_factory.mktemp("template")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLMASOS_HOME", str(folder / "home"))
        for version, extra in (("1.0.0", MODEL_PERMISSION), ("1.1.0", MODEL_PERMISSION + STORAGE)):
            path = folder / f"{version}.llmapp"
            write_bundle(bundle_files(manifest_text(version=version, extra=extra), binary), path)
            done = CliRunner().invoke(app, ["publish", str(path)])
            assert done.exit_code == 0, done.stderr
    return folder / "home"


@pytest.fixture
def released(home: Path, template: Path) -> None:
    """A home of the test's own, like the template."""
    shutil.copytree(template, home)
