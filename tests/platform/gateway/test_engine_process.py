"""The supervisor of an engine, with a slow fake process instead of the real weights."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmasos.errors import ModelUnavailable
from llmasos.gateway.embedded import process
from llmasos.gateway.embedded.process import EngineProcess, EngineSpec

LOADING_SECONDS = 1.5
SLOW = f"""
import sys, time
sys.stdin.readline()
time.sleep({LOADING_SECONDS})
print('{{"port": 1}}', flush=True)
sys.stdin.read()
"""


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[EngineProcess]:
    child = tmp_path / "child.py"
    child.write_text(SLOW)
    monkeypatch.setattr(process, "CHILD", child)
    engine = EngineProcess(EngineSpec("slow", "chat", tmp_path))
    yield engine
    engine.close()


async def longest_pause_of_the_loop(until: asyncio.Future) -> float:
    longest, before = 0.0, time.monotonic()
    while not until.done():
        await asyncio.sleep(0.01)
        now = time.monotonic()
        longest, before = max(longest, now - before), now
    return longest


async def use(engine: EngineProcess) -> str:
    async with engine.running() as address:
        return address.url


async def test_the_event_loop_keeps_running_while_weights_load(engine):
    """10-2: a second call took the lock that the first one's start held, on the event loop."""
    first = asyncio.create_task(use(engine))
    await asyncio.sleep(0.1)
    others = [asyncio.create_task(use(engine)) for _ in range(3)]
    assert await longest_pause_of_the_loop(first) < LOADING_SECONDS / 2
    assert {await first, *await asyncio.gather(*others)} == {"http://127.0.0.1:1"}


async def test_callers_that_wait_for_weights_take_no_thread_from_others(engine):
    """10-2, its kind: each waiting caller held a thread of the loop's pool, which has six on two cores."""
    callers = [asyncio.create_task(use(engine)) for _ in range(100)]
    await asyncio.sleep(0.1)
    await asyncio.to_thread(lambda: None)
    assert not any(caller.done() for caller in callers)
    await asyncio.gather(*callers)


async def test_a_caller_who_gives_up_does_not_cancel_the_start_for_others(engine):
    first, second = asyncio.create_task(use(engine)), asyncio.create_task(use(engine))
    await asyncio.sleep(0.1)
    first.cancel()
    assert await second == "http://127.0.0.1:1"


async def test_closing_ends_a_start_in_flight_with_an_error_for_its_callers(engine):
    """10-2, its kind: closing waited for the lock until the weights were loaded."""
    caller = asyncio.create_task(use(engine))
    await asyncio.sleep(0.2)
    engine.close()
    with pytest.raises(ModelUnavailable, match="closed, since the host is stopping"):
        await caller
    assert engine.pid is None
    with pytest.raises(ModelUnavailable, match="closed, since the host is stopping"):
        engine.start()


def test_many_threads_start_one_process(engine):
    pids: list[int | None] = []

    def start() -> None:
        engine.start()
        pids.append(engine.pid)

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(pids) == 8
    assert len(set(pids)) == 1


def test_a_process_that_ends_at_once_is_an_error_with_its_last_words(tmp_path, engine):
    process.CHILD.write_text("import sys; sys.exit('no such weights')")
    with pytest.raises(ModelUnavailable, match="does not start"):
        engine.start()
    process.CHILD.write_text(SLOW)
    assert engine.start().url == "http://127.0.0.1:1"


CONFINED = """
import importlib.util, json, os, socket, subprocess, sys, threading
spec = importlib.util.spec_from_file_location("child", sys.argv[1])
child = importlib.util.module_from_spec(spec)
spec.loader.exec_module(child)
listening = socket.create_server(("127.0.0.1", 0))
idle = threading.Thread(target=threading.Event().wait, daemon=True)
idle.start()
confined = child._confine()

def refused(act):
    try:
        act()
    except PermissionError:
        return True
    return False

acts = {
    "open": lambda: open("/etc/hostname"),
    "write": lambda: open("/tmp/x", "w"),
    "list": lambda: os.listdir("/"),
    "tcp": socket.socket,
    "udp": lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
    "fork": os.fork,
    "run": lambda: os.execv("/bin/true", ["true"]),
    "kill": lambda: os.kill(os.getppid(), 0),
}
print(json.dumps({"confined": confined, **{name: refused(act) for name, act in acts.items()}}), flush=True)
connection, _ = listening.accept()
connection.sendall(connection.recv(5))
"""


def test_an_engine_that_listens_reaches_nothing_but_its_connections(tmp_path):
    """11-S9: the engine's process was unconfined, though it parses guests' grammars."""
    script = tmp_path / "confined.py"
    script.write_text(CONFINED.replace("print(json", "port = listening.getsockname()[1]\nprint(port)\nprint(json"))
    with subprocess.Popen(
        [sys.executable, str(script), str(process.CHILD)], stdout=subprocess.PIPE, text=True
    ) as child:
        port = int(child.stdout.readline())
        refused = json.loads(child.stdout.readline())
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            connection.sendall(b"hello")
            assert connection.recv(5) == b"hello"
    assert refused == dict.fromkeys(refused, True)
