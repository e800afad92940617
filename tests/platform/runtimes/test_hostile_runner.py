import asyncio
import gc
import os
from pathlib import Path

import pytest
from waiting import until

from llmasos.errors import RunnerDied, TimedOut
from llmasos.runtimes import runner as runners
from llmasos.runtimes.runner import Runner

SCRIPT = Path(__file__).with_name("hostile_runner.py")


def start_message(*search_path: str):
    return {"t": "start", "kind": "component", "search_path": list(search_path), "confine": {}, "threads": 1}


def call(action: str, invocation_id: str = "one", wall_seconds: float = 20.0):
    limits = {"memory_bytes": 1, "fuel": 1, "wall_seconds": wall_seconds, "log_bytes": 1, "output_bytes": 1}
    return {
        "t": "call", "id": invocation_id, "program": "", "action": action, "input": "", "capabilities": [],
        "limits": limits,
    }  # fmt: skip


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def slow_host(_capability, _function, _arguments):
    await asyncio.sleep(30)


@pytest.mark.parametrize(
    ("action", "words"),
    [
        ("huge", "frame of 4294967295 bytes"),
        ("nest", "no message"),
        ("nan", "no message"),
        ("surrogate", "no message"),
        ("not_utf8", "no message"),
        ("unknown_field", "no message"),
        ("negative", "no message"),
        ("enormous", "no message"),
        ("wrong_type", "no message"),
        ("no_json", "no message"),
        ("empty", "no message"),
        ("array", "no message"),
        ("unknown_message", "no message"),
        ("ready_twice", "twice that it was ready"),
        ("compiled", "which it may not send"),
        ("other_id", "does not run"),
        ("other_call", "does not run"),
        ("done_twice", "does not run"),
        ("order", "out of order"),
        ("flood", "more calls at once"),
        ("nested_argument", "no message"),
        ("print", "exit code 9; it printed last: last words"),
        ("segfault", "SIGSEGV"),
        ("close", "SIGKILL"),
        ("descriptors", "died"),
    ],
)
async def test_a_runner_that_misbehaves_costs_only_itself(action, words):
    """SECURITY C6, R1."""
    runner = await Runner.start(start_message(), script=SCRIPT)
    descriptors = open_descriptors()
    waiting = asyncio.create_task(runner.call(call("wait", "two"), slow_host))
    await asyncio.sleep(0)
    first = await runner.call(call(action), slow_host)
    if action != "done_twice":
        assert isinstance(first.error, RunnerDied)
        assert words in first.error.message
        assert "\n" not in first.error.message
    error = (await waiting).error
    assert isinstance(error, RunnerDied)
    assert words in error.message
    assert not runner.is_alive
    with pytest.raises(RunnerDied, match=words):
        await runner.call(call("wait", "three"), slow_host)
    await runner.close()
    assert open_descriptors() <= descriptors
    with pytest.raises(ProcessLookupError):
        os.kill(runner.process.pid, 0)
    gc.collect()


@pytest.mark.parametrize("action", ["silence", "trickle"])
async def test_a_runner_that_hangs_is_killed_at_the_deadline(action, monkeypatch):
    monkeypatch.setattr(runners, "GRACE_SECONDS", 0.2)
    runner = await Runner.start(start_message(), script=SCRIPT)
    end = await runner.call(call(action, wall_seconds=0.2), slow_host)
    assert isinstance(end.error, TimedOut)
    assert "was killed" in end.error.message
    assert not runner.is_alive
    await runner.close()


async def test_a_runner_that_does_not_heed_a_cancellation_is_killed(monkeypatch):
    monkeypatch.setattr(runners, "GRACE_SECONDS", 0.2)
    runner = await Runner.start(start_message(), script=SCRIPT)
    task = asyncio.create_task(runner.call(call("silence"), slow_host))
    await asyncio.sleep(0.1)
    task.cancel()
    assert isinstance((await task).error, asyncio.CancelledError)
    assert not runner.is_alive
    await runner.close()


async def test_a_runner_that_dies_at_its_start_says_why():
    with pytest.raises(RunnerDied, match="exit code 3; it printed last: no such module"):
        await Runner.start(start_message("dies"), script=SCRIPT)


async def test_a_runner_that_never_gets_ready_is_given_up():
    with pytest.raises(RunnerDied, match="not ready after"):
        await Runner.start(start_message("silent"), script=SCRIPT, start_seconds=0.3)


async def large_answers(_capability, _function, _arguments):
    return "x" * 2_000_000


@pytest.mark.parametrize("action", ["deaf", "hungry"])
async def test_a_runner_that_does_not_read_its_replies_is_closed_within_seconds(action):
    """11-S3: `close` waited without a bound for an unread reply to be sent, inside the loop that enforces compute."""
    runner = await Runner.start(start_message(), script=SCRIPT)
    running = asyncio.create_task(runner.call(call(action), large_answers))
    await until(lambda: runner._transport.get_write_buffer_size() > 0)
    async with asyncio.timeout(10):
        await runner.close()
    assert isinstance((await running).error, RunnerDied)
    with pytest.raises(ProcessLookupError):
        os.kill(runner.process.pid, 0)


async def test_a_runner_that_does_not_read_its_replies_gets_no_more_of_them():
    """11-S4: unread replies piled up in the host, 2.5 GB from an app that was allowed 64 MiB."""
    answered = []

    async def answer(*_call):
        answered.append(1)
        return "x" * 1_000_000

    runner = await Runner.start(start_message(), script=SCRIPT)
    running = asyncio.create_task(runner.call(call("hungry"), answer))
    await until(lambda: answered and runner._transport.get_write_buffer_size() > 0)
    await asyncio.sleep(0.3)  # in which it asks for thousands
    assert 1 <= len(answered) <= 3
    assert runner._transport.get_write_buffer_size() < 3_000_000
    await runner.close()
    await running
