"""An app's lifecycle hooks run when commands install, upgrade and uninstall it, native and as a component."""

import asyncio
import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from sqlmodel import select
from typer.testing import CliRunner, Result

from llmasos.host import Host
from llmasos.installs.tables import Installation
from llmasos.kernel.invocation import Principal
from llmasos.runtimes.confinement import confinement
from llmasos.runtimes.native import NativeRuntime
from llmasos.settings import Settings
from llmasos_server.cli.shell import app

SOURCE = '''
from llmasos_sdk import App, Context

app = App()
VERSION = "{version}"


def note(ctx: Context, word: str) -> None:
    """Remember one thing that was heard, and the release that heard it."""
    ctx.storage.put_json("heard", [*ctx.storage.get_json("heard", []), f"{{VERSION}} {{word}}"])


@app.action
def heard(ctx: Context) -> list[str]:
    """List what was heard."""
    return ctx.storage.get_json("heard", [])


@app.on_install
def ready(ctx: Context) -> None:
    note(ctx, "install")


@app.on_upgrade
def moved(ctx: Context, from_version: str) -> None:
    note(ctx, f"upgrade from {{from_version}}")
    {at_upgrade}


@app.on_uninstall
def going(ctx: Context) -> None:
    note(ctx, "uninstall")
    raise ValueError("no goodbye")


@app.on_event
def told(ctx: Context, event: dict) -> None:
    note(ctx, f"{{event['name']}} without {{event['payload']['removed']}}")
'''
MANIFEST = """
schema = 1
id = "acme/hooked"
version = "{version}"
license = "Apache-2.0"
name.en = "Hooked"
summary.en = "Hears of its own installation."
[runtime]
kind = "{kind}"
source = "app.py"
[[permissions]]
capability = "storage"
reason.en = "Remembers what it heard."
[[permissions]]
capability = "model"
tiers = ["fast"]
optional = true
reason.en = "Never asked."
"""


def llmasos(*words: str) -> Result:
    return CliRunner().invoke(app, list(words))


def answer(*words: str) -> Any:
    done = llmasos(*words, "--json")
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout)


def publish(folder: Path, kind: str, version: str, at_upgrade: str = "pass") -> None:
    project = folder / version
    project.mkdir()
    (project / "app.py").write_text(SOURCE.format(version=version, at_upgrade=at_upgrade))
    (project / "llmapp.toml").write_text(MANIFEST.format(version=version, kind=kind))
    (project / "README.md").write_text("# Hooked\n")
    answer("publish", str(project))


def heard() -> list[str]:
    return answer("run", "acme/hooked", "heard")["output"]


@pytest.fixture
def home(stocked_home: Path) -> Path:
    return stocked_home


@pytest.mark.parametrize("kind", ["python", "wasm"])
def test_the_hooks_of_one_source_run_native_and_as_a_component(home: Path, tmp_path: Path, kind: str) -> None:
    if kind == "python" and not confinement().is_available:
        pytest.skip(str(confinement().missing))
    publish(tmp_path, kind, "1.0.0")
    assert answer("install", "acme/hooked", "--yes")["items"] == [
        {"app": "acme/hooked", "version": "1.0.0", "outcome": "installed"}
    ]
    assert heard() == ["1.0.0 install"]
    for words in (("run", "acme/hooked", "@install"), ("run", "acme/hooked", "@uninstall")):
        refused = llmasos(*words)
        assert (refused.exit_code, "has no action" in refused.stderr) == (5, True)
    answer("grants", "revoke", "acme/hooked", "model")
    assert heard()[1:] == ["1.0.0 grants without ['model']"]
    gone = llmasos("uninstall", "acme/hooked", "--keep-data")
    assert (gone.exit_code, gone.stdout) == (0, "acme/hooked 1.0.0 is uninstalled\n")
    assert "what it does before that failed; there is nothing" in gone.stderr
    assert gone.stderr.count("\n") == 2
    with sqlite3.connect(home / "llmasos.db") as database:
        [kept] = database.execute("select value from stored_value").fetchone()
        runs = database.execute("select action, status, user_id from invocation order by started_at").fetchall()
    assert json.loads(kept)[2:] == ["1.0.0 uninstall"]
    assert [row for row in runs if row[0].startswith("@")] == [
        ("@install", "succeeded", "local"),
        ("@event", "succeeded", "local"),
        ("@uninstall", "failed", "local"),
    ]
    assert answer("audit", "verify")


@pytest.mark.skipif(not confinement().is_available, reason=str(confinement().missing))
def test_a_failing_hook_undoes_no_upgrade_and_a_rollback_runs_the_hook(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(tmp_path, "python", "1.0.0")
    publish(tmp_path, "python", "1.1.0", "raise KeyError('table')")
    answer("install", "acme/hooked@1.0.0", "--yes")
    upgraded = answer("upgrade", "acme/hooked", "--yes")["items"][0]
    assert (upgraded["version"], upgraded["outcome"]) == ("1.1.0", "upgraded")
    assert upgraded["problem"]["code"] == "app-failed"
    assert "llmasos rollback acme/hooked" in upgraded["problem"]["detail"]
    assert "problem" not in answer("rollback", "acme/hooked")["items"][0]
    assert heard() == ["1.0.0 install", "1.1.0 upgrade from 1.0.0", "1.0.0 upgrade from 1.1.0"]
    monkeypatch.setenv("LLMASOS_LOCALE", "zh")
    again = llmasos("upgrade", "acme/hooked", "--yes")
    assert again.exit_code == 0
    assert "请运行 `llmasos rollback acme/hooked`，或告知其作者" in again.stderr


@pytest.mark.skipif(not confinement().is_available, reason=str(confinement().missing))
async def test_an_uninstall_by_command_ends_the_runner_of_the_host_beside_it(home: Path, tmp_path: Path) -> None:
    await asyncio.to_thread(publish, tmp_path, "python", "1.0.0")
    await asyncio.to_thread(answer, "install", "acme/hooked", "--yes")
    async with Host.open(Settings()) as host:
        await host.actions.run(Principal(), "acme/hooked", "heard", {})
        with host.database.read() as session:
            [installation] = session.exec(select(Installation))
        runtime = host.runtimes.of("python")
        assert isinstance(runtime, NativeRuntime)
        assert runtime.confinement(installation.id)
        await asyncio.to_thread(llmasos, "uninstall", "acme/hooked", "--keep-data")
        async with asyncio.timeout(10):
            while runtime.confinement(installation.id):  # noqa: ASYNC110 - a process that ends sets no event
                await asyncio.sleep(0.05)
