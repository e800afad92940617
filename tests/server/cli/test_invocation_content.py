"""12-5: `invocations show`, `delete` and `keep`, here and on a running server."""

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from llmasos.database.schema import ensure_schema
from llmasos.errors import AppFailed
from llmasos.host import Host, HostParts
from llmasos.kernel.invocation import Event, Principal
from llmasos.secrets import KEY_FILE
from llmasos.settings import Settings
from llmasos.testing import FakeAction, FakeApps, Guest
from llmasos_server.accounts.tokens import create_token
from llmasos_server.server import Server, create_app, listen


async def echo(guest: Guest) -> object:
    return {"said": guest.input["text"]}


async def fail(guest: Guest) -> object:
    await guest.invocation.emit(Event("chunk", "half an \x1b[31manswer"))
    guest.invocation.add_log("logged\n")
    raise AppFailed


@pytest.fixture
def ran(home: Path) -> Callable[..., str]:
    """Runs an action; returns the invocation's id."""
    ensure_schema(Settings().resolved_database_url, home)
    apps = FakeApps()
    apps.add("acme/tool", echo=FakeAction(echo), fail=FakeAction(fail))
    parts = HostParts(runnables=lambda _: apps, runtimes={"wasm": apps.runtime})

    async def run(action: str) -> None:
        async with Host.open(Settings(), parts) as host:
            try:
                await host.actions.run(Principal(), "acme/tool", action, {"text": "for your eyes"})
            except AppFailed:
                return

    def newest(action: str = "echo") -> str:
        asyncio.run(run(action))
        with closing(sqlite3.connect(home / "llmasos.db")) as database:
            return str(database.execute("SELECT id FROM invocation ORDER BY started_at DESC").fetchone()[0])

    return newest


def test_input_and_output_are_shown(ran, llmasos, answer, tmp_path: Path) -> None:
    id_ = ran()
    shown = llmasos("invocations", "show", id_[:8]).stdout
    assert shown.splitlines()[0].startswith(f"{id_[:12]}  ")
    assert "for your eyes" in shown.partition("Input:")[2].partition("Output:")[0]
    assert "for your eyes" in shown.partition("Output:")[2]
    told = answer("invocations", "show", id_)
    assert (told["input"], told["output"], told["kept"]) == ({"text": "for your eyes"}, {"said": "for your eyes"}, True)
    assert llmasos("invocations", "show", id_, "-o", str(tmp_path / "answer.json")).exit_code == 0
    assert "for your eyes" in (tmp_path / "answer.json").read_text()


def test_what_a_failed_run_had_shown_is_shown_without_its_escape_sequences(ran, llmasos) -> None:
    """11-23, 11-S1."""
    shown = llmasos("invocations", "show", ran("fail")).stdout
    assert "half an" in shown
    assert "\x1b" not in shown
    assert "app-failed" in shown


def test_deleted_content_is_gone_and_the_run_is_still_listed(ran, llmasos, answer, home: Path, tmp_path: Path) -> None:
    id_ = ran("fail")
    assert llmasos("invocations", "delete", id_).exit_code == 0
    told = answer("invocations", "show", id_)
    assert (told["kept"], told["input"], told["shown"], told["log"]) == (False, None, "", "")
    assert "not kept" in llmasos("invocations", "show", id_).stdout
    missing = llmasos("invocations", "show", id_, "-o", str(tmp_path / "x"))
    assert (missing.exit_code, (tmp_path / "x").exists()) == (5, False)
    assert [each["id"] for each in answer("invocations", "acme/tool")["items"]] == [id_]
    assert "invocation.delete" in [line["event"] for line in answer("audit")]


def test_a_workspace_chooses_for_how_long(ran, llmasos, answer) -> None:
    assert answer("invocations", "keep") == {"days": 30}
    before = ran()
    assert answer("invocations", "keep", "0") == {"days": 0}
    assert answer("invocations", "show", before)["kept"] is False
    assert answer("invocations", "show", ran())["kept"] is False
    assert answer("invocations", "keep", "7") == {"days": 7}
    assert answer("invocations", "show", ran())["kept"] is True
    refused = llmasos("invocations", "keep", "3651")
    assert (refused.exit_code, refused.stderr.count("\n")) == (1, 1)
    assert llmasos("invocations", "keep", "1", LLMASOS_URL="http://127.0.0.1:9").exit_code != 0


def test_doctor_tells_of_a_key_that_was_lost_or_replaced(ran, llmasos, home: Path) -> None:
    id_ = ran()
    (home / KEY_FILE).unlink()
    assert "inputs and outputs of 1 invocations cannot be read" in llmasos("doctor").stdout
    ran()
    assert "is another key than 0 secrets and the inputs and outputs of 2 invocations" in llmasos("doctor").stdout
    lost = llmasos("invocations", "show", id_)
    assert (lost.exit_code, lost.stderr.count("\n")) == (1, 1)
    assert "put that key back" in lost.stderr


async def test_a_servers_invocations_are_shown_and_deleted(ran, llmasos, answer) -> None:
    id_ = await asyncio.to_thread(ran)
    app = create_app(Settings())
    with listen("127.0.0.1", 0) as listener:
        ready = asyncio.Event()
        server = Server(app, ready.set)
        serving = asyncio.create_task(server._serve([listener]))
        await ready.wait()
        with app.state.host.database.write() as session:
            token = create_token(session, Principal()).token
        there = {"LLMASOS_URL": f"http://127.0.0.1:{listener.getsockname()[1]}", "LLMASOS_TOKEN": token}
        try:
            told = await asyncio.to_thread(lambda: answer("invocations", "show", id_[:8], **there))
            assert told["output"] == {"said": "for your eyes"}
            deleted = await asyncio.to_thread(lambda: llmasos("invocations", "delete", id_, **there))
            assert deleted.exit_code == 0, deleted.stderr
            told = await asyncio.to_thread(lambda: answer("invocations", "show", id_, **there))
            assert told["kept"] is False
        finally:
            server.should_exit = True
            await serving
