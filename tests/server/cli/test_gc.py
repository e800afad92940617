"""11-41: `llmasos gc` frees what came together in an afternoon, and harms nothing that is needed."""

import json
import os
from pathlib import Path

import pytest
from tests.server.cli.components import minimal_component
from typer.testing import CliRunner

from llmasos.authoring.build import collect_builds
from llmasos.bundles.testing import action, bundle_files, manifest_text
from llmasos.bundles.writer import write_bundle
from llmasos_server.cli.shell import app


def llmasos(*words: str) -> dict[str, object]:
    done = CliRunner().invoke(app, [*words, "--json"])
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout)


def old(path: Path, size: int = 1000) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)
    os.utime(path, (0, 0))
    return path


def test_gc_removes_what_nothing_needs_and_apps_still_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """11-41."""
    home = tmp_path / "home"
    monkeypatch.setenv("LLMASOS_HOME", str(home))
    monkeypatch.setenv("LLMASOS_LOCALE", "en")
    for name in ("LLMASOS_DATABASE_URL", "LLMASOS_URL"):
        monkeypatch.delenv(name, raising=False)
    echo = action() | {"output_schema": {"type": "object"}}
    bundle = tmp_path / "app.llmapp"
    write_bundle(bundle_files(manifest_text(extra=""), minimal_component(json.dumps([echo])), [echo]), bundle)
    llmasos("publish", str(bundle))
    llmasos("install", "acme/hello", "--yes")
    for path in (home / "compiled").iterdir():  # as if it was installed a year ago
        if path.is_file():
            os.utime(path, (0, 0))
    unneeded = [
        old(home / "compiled" / f"{'0' * 64}-1-x86-1.cwasm"),
        old(home / "compiled" / f"{'0' * 64}-1-x86-1.json"),
        old(home / "builds" / f"{'0' * 64}.wasm"),
        old(home / "builds" / ".tmp-killed"),
        old(home / "bundles" / f"{'0' * 64}.llmapp"),
        old(home / "tools" / "jco-0000000000000000" / "jco.js"),
    ]
    os.utime(home / "tools" / "jco-0000000000000000", (0, 0))
    freed = llmasos("gc")["freed_bytes"]
    assert isinstance(freed, dict)
    assert [path for path in unneeded if path.exists()] == []
    assert freed["builds"] == 2000
    assert freed["bundles"] == 1000
    assert freed["apps"] >= 2000
    assert freed["tools"] >= 1000
    assert llmasos("run", "acme/hello", "greet", "-p", "name=Ann")["output"] == {"name": "Ann"}
    assert sum(llmasos("gc")["freed_bytes"].values()) == 0  # type: ignore[attr-defined]


def test_a_refused_publication_leaves_nothing_for_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """11-S16: refused publications left their compiled components for ever."""
    home = tmp_path / "home"
    monkeypatch.setenv("LLMASOS_HOME", str(home))
    left = [old(home / "compiled" / f"{'0' * 64}-1-x86-1{suffix}") for suffix in (".cwasm", ".json")]
    bundle = tmp_path / "app.llmapp"
    component = minimal_component(json.dumps([action("other")]))
    write_bundle(bundle_files(manifest_text(extra=""), component), bundle)
    assert CliRunner().invoke(app, ["publish", str(bundle)]).exit_code == 1
    assert [path for path in left if path.exists()] == []


def test_kept_builds_have_a_bound_in_number_and_in_bytes(tmp_path: Path) -> None:
    """11-41."""
    for number in range(6):
        path = old(tmp_path / f"{number}.wasm", 100)
        os.utime(path, (number, number))
    assert collect_builds(tmp_path, kept=4, kept_bytes=250) == 400
    assert sorted(path.name for path in tmp_path.iterdir()) == ["4.wasm", "5.wasm"]
