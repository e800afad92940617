"""10-3: an upgrade of the host, or deleted prepared files, need nothing of the user."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.server.cli.components import minimal_component
from typer.testing import CliRunner, Result

from llmasos.bundles.testing import action, bundle_files, manifest_text
from llmasos.bundles.writer import write_bundle
from llmasos.runtimes import compiled, environments, prepared
from llmasos.runtimes.confinement import confinement
from llmasos_server.cli.shell import app

ECHO = action() | {"output_schema": {"type": "object"}}
NATIVE_SOURCE = '''
from llmasos_sdk import App, Context

app = App()


@app.action
def greet(ctx: Context, name: str) -> dict:
    """Return the name."""
    return {"name": name}
'''

Invalidate = Callable[[Path, pytest.MonkeyPatch], None]


def llmasos(*words: str) -> Result:
    return CliRunner().invoke(app, list(words))


def answer(*words: str) -> Any:
    done = llmasos(*words, "--json")
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout)


def run() -> Any:
    return answer("run", "acme/hello", "greet", "-p", "name=Ann")["output"]


def installs() -> list[tuple[str, str]]:
    checks = json.loads(llmasos("doctor", "--json").stdout)["checks"]
    return [(check["status"], check["detail"]) for check in checks if check["part"] == "installs"]


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A home for each runtime, in which acme/hello is installed."""
    folder = tmp_path_factory.mktemp("templates")
    bundle = folder / "hello.llmapp"
    write_bundle(bundle_files(manifest_text(extra=""), minimal_component(json.dumps([ECHO])), [ECHO]), bundle)
    project = folder / "native"
    project.mkdir()
    (project / "app.py").write_text(NATIVE_SOURCE)
    (project / "llmapp.toml").write_text(manifest_text(extra="").replace('"wasm"', '"python"'))
    (project / "README.md").write_text("# Hello\n")
    with pytest.MonkeyPatch.context() as patch:
        for kind, path in (("wasm", bundle), ("python", project)):
            patch.setenv("LLMASOS_HOME", str(folder / kind))
            answer("publish", str(path))
            answer("install", "acme/hello", "--yes")
    return {kind: folder / kind for kind in ("wasm", "python")}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, templates: dict[str, Path], kind: str) -> Path:
    if kind == "python" and confinement().missing is not None:
        pytest.skip("this system cannot confine a native app")
    monkeypatch.setenv("LLMASOS_LOCALE", "en")
    for name in ("LLMASOS_DATABASE_URL", "LLMASOS_URL"):
        monkeypatch.delenv(name, raising=False)
    home = tmp_path / "home"
    shutil.copytree(templates[kind], home, symlinks=True)
    monkeypatch.setenv("LLMASOS_HOME", str(home))
    return home


def remove(folder: Path) -> None:
    prepared.remove_tree(folder)  # an environment is read-only


def delete_compiled(home: Path, _patch: pytest.MonkeyPatch) -> None:
    shutil.rmtree(home / "compiled")


def delete_environments(home: Path, _patch: pytest.MonkeyPatch) -> None:
    remove(home / "environments")


def upgrade_wasmtime(_home: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(compiled, "version", lambda _package: "999.0")


def move_to_another_machine(_home: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(compiled, "processor_features", lambda: "another")


def upgrade_python(_home: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(sys, "version", sys.version.replace(".", ".9", 1))
    patch.setattr(environments, "_key_suffix", environments._key_suffix.__wrapped__)


def change_sdk(home: Path, patch: pytest.MonkeyPatch) -> None:
    changed = home.parent / "llmasos_sdk"
    find = environments._source
    shutil.copytree(find("llmasos_sdk"), changed)
    (changed / "fixed.py").write_text("FIXED = True\n")
    patch.setattr(environments, "_source", lambda package: changed if package == "llmasos_sdk" else find(package))
    patch.setattr(environments, "_key_suffix", environments._key_suffix.__wrapped__)


CASES = [
    ("wasm", delete_compiled),
    ("wasm", upgrade_wasmtime),
    ("wasm", move_to_another_machine),
    ("python", delete_environments),
    ("python", upgrade_python),
    ("python", change_sdk),
]


@pytest.mark.parametrize(("kind", "invalidate"), CASES)
def test_an_app_whose_prepared_code_is_stale_or_gone_just_runs(
    home: Path, kind: str, invalidate: Invalidate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """10-3: it used to fail with "install it again", which prepared nothing."""
    assert run() == {"name": "Ann"}
    invalidate(home, monkeypatch)
    assert [status for status, detail in installs() if "acme/hello" in detail] == ["note"]
    done = llmasos("run", "acme/hello", "greet", "-p", "name=Ann")
    assert done.exit_code == 0, done.stderr
    assert "Preparing acme/hello 1.0.0" in done.stderr
    assert "Preparing" not in llmasos("run", "acme/hello", "greet", "-p", "name=Ann").stderr
    assert not any("acme/hello" in detail for _, detail in installs())


@pytest.mark.parametrize("kind", ["wasm", "python"])
def test_install_restores_an_installed_app(home: Path, kind: str) -> None:
    """10-3: `install` used to answer "already" and to prepare nothing."""
    assert answer("install", "acme/hello")["items"][0]["outcome"] == "already"
    shutil.rmtree(home / "code")
    remove(home / ("compiled" if kind == "wasm" else "environments"))
    assert ("problem", True) in [(status, "llmasos install acme/hello" in detail) for status, detail in installs()]
    done = llmasos("run", "acme/hello", "greet", "-p", "name=Ann")
    assert done.exit_code == 1
    assert "llmasos install acme/hello" in done.stderr
    assert answer("install", "acme/hello")["items"][0]["outcome"] == "restored"
    assert run() == {"name": "Ann"}
