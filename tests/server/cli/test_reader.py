"""What a command does when its output cannot be taken: by an encoding, or by a reader that left."""

import io
import json
import os
import sqlite3
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest

import llmasos.connection
from llmasos.connection import LocalConnection
from llmasos.host import Host, HostParts
from llmasos.kernel.invocation import Event, Principal
from llmasos.settings import Settings
from llmasos.testing import FakeAction, FakeApps, Guest
from llmasos_server.cli import shell


@pytest.fixture
def tool(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An app that streams until it is stopped, or answers in Chinese."""

    async def endless(guest: Guest) -> object:
        for number in range(100_000):
            await guest.invocation.emit(Event("chunk", f"{number}\n"))
        return "done"

    async def chinese(guest: Guest) -> object:
        await guest.invocation.emit(Event("chunk", "你好"))
        return {"say": "你好 \U0001f600"}

    apps = FakeApps()
    apps.add("acme/tool", endless=FakeAction(endless, streaming=True), chinese=FakeAction(chinese, streaming=True))

    @asynccontextmanager
    async def connected(
        _settings: Settings, principal: Principal, _told: object = None
    ) -> AsyncIterator[LocalConnection]:
        parts = HostParts(runnables=lambda _: apps, runtimes={"wasm": apps.runtime})
        async with Host.open(Settings(), parts) as host:
            yield LocalConnection(host, principal)

    monkeypatch.setattr(llmasos.connection, "connected", connected)


def run(*words: str, **streams: Any) -> int:
    """Run a command with other streams than the test's own; its exit code."""
    before = {name: getattr(sys, name) for name in streams}
    try:
        for name, stream in streams.items():
            setattr(sys, name, stream)
        return int(shell.app(list(words), standalone_mode=False))
    finally:
        for name, stream in before.items():
            setattr(sys, name, stream)


def ends(home: Path, columns: str = "status, error_code") -> list[tuple[str, str | None]]:
    with closing(sqlite3.connect(home / "llmasos.db")) as database:
        return database.execute(f"SELECT {columns} FROM invocation").fetchall()


@pytest.mark.usefixtures("tool")
def test_a_reader_that_leaves_a_stream_cancels_the_run_quietly(home: Path) -> None:
    """11-23: `run --stream | head -c 50` ended with "The host could not do output.chunk"."""
    assert run("migrate") == 0
    reading, writing = os.pipe()
    os.close(reading)
    told = io.StringIO()
    with os.fdopen(writing, "w") as gone:
        assert run("run", "acme/tool", "endless", "--stream", stdout=gone, stderr=told) == 1
    assert told.getvalue() == ""
    [(id_, *end)] = ends(home, "id, status, error_code")
    assert end == ["cancelled", "cancelled"]
    # What was shown until then was paid for: it is in the history.
    kept = io.StringIO()
    assert run("invocations", "show", id_, "--json", stdout=kept) == 0
    assert json.loads(kept.getvalue())["shown"].startswith("0\n")


class Ascii(io.TextIOWrapper):
    """A stdout that takes nothing but ASCII, as with LANG=C or on an old terminal."""

    def __init__(self) -> None:
        super().__init__(io.BytesIO(), encoding="ascii", write_through=True)

    def text(self) -> str:
        assert isinstance(self.buffer, io.BytesIO)
        return self.buffer.getvalue().decode("ascii")


@pytest.mark.usefixtures("home")
def test_a_command_in_chinese_prints_on_a_stdout_of_ascii(monkeypatch: pytest.MonkeyPatch) -> None:
    """11-23: `list` in Chinese on an ASCII stdout raised UnicodeEncodeError."""
    monkeypatch.setenv("LLMASOS_LOCALE", "zh")
    stdout = Ascii()
    assert run("list", stdout=stdout) == 0
    assert "?" in stdout.text()


@pytest.mark.usefixtures("tool")
@pytest.mark.parametrize(("words", "said"), [(["--stream"], "??"), ([], "?? ?")])
def test_an_answer_that_stdout_cannot_take_is_printed_as_far_as_it_can(home: Path, words: list[str], said: str) -> None:
    """11-23: an answer that was paid for is not lost."""
    assert run("migrate") == 0
    stdout = Ascii()
    assert run("run", "acme/tool", "chinese", *words, stdout=stdout) == 0
    assert said in stdout.text()
    assert ends(home) == [("succeeded", None)]


@pytest.mark.usefixtures("tool")
def test_json_on_a_stdout_of_ascii_has_the_same_values() -> None:
    assert run("migrate") == 0
    stdout = Ascii()
    assert run("run", "acme/tool", "chinese", "--json", stdout=stdout) == 0
    assert json.loads(stdout.text())["output"] == {"say": "你好 \U0001f600"}


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_a_stream_that_was_closed_takes_everything(name: str) -> None:
    """11-23: `llmasos list >&-` has no stdout at all."""
    assert run("list", **{name: None}) == 0
    assert run("no-such-command", **{name: None}) == 2
