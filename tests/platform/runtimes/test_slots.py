"""Slots of native runners, with runners that take their time to end."""

import asyncio
import time

import pytest

from llmasos.errors import Unavailable
from llmasos.runtimes import native
from llmasos.runtimes.compute import ComputeMeter
from llmasos.runtimes.native import NativeRuntime
from llmasos.runtimes.pool import OPEN_AFTER
from llmasos.runtimes.slots import Slots


class SlowRunner:
    """A runner that a hostile app keeps from ending until the test lets it."""

    confinement = ()
    is_alive = True

    def __init__(self):
        self.closing = False
        self.ended = None
        self.let_go = asyncio.Event()

    async def close(self):
        self.closing = True
        await self.let_go.wait()

    def end(self, cause, failure=None):
        self.ended = cause


def occupied(slots, *names):
    runners = {}
    for name in names:
        with slots.use((name, "digest", 1)) as slot:
            runners[name] = SlowRunner()
            slot.started(runners[name], ComputeMeter(lambda: 0.0))
    return runners


async def let_go(slots, runners):
    for runner in runners.values():
        runner.let_go.set()
    await slots.ended()


async def test_making_room_never_ends_a_runner_that_became_busy():
    """10-15: the runners to end were chosen before each was waited for, so that a running call could be killed."""
    slots = Slots(300.0, 2, 16)
    runners = occupied(slots, "a", "b", "c")
    slots.make_room()
    with slots.use(("b", "digest", 1)) as slot:  # while `a` is still ending
        await asyncio.sleep(0.01)
        assert slot.runner is None or not slot.runner.closing
    assert runners["a"].closing
    assert not runners["c"].closing
    await let_go(slots, runners)


async def test_a_busy_runner_is_never_ended_to_make_room():
    slots = Slots(300.0, 1, 16)
    runners = occupied(slots, "a", "b")
    with slots.use(("a", "digest", 1)) as slot:
        slots.make_room()
        await asyncio.sleep(0)
        assert slot.runner is runners["a"]
    assert not runners["a"].closing
    assert runners["b"].closing
    await let_go(slots, runners)


async def test_one_crash_is_counted_once_however_many_calls_it_took_along():
    """10-8: a crash with five calls in flight opened the breaker."""
    slots = Slots(300.0, 1, 16)
    with slots.use(("a", "digest", 1)) as slot:
        for crash in range(OPEN_AFTER):
            slot.breaker.check()
            runner = SlowRunner()
            slot.started(runner, ComputeMeter(lambda: 0.0))
            for _ in range(OPEN_AFTER):
                slot.crashed(runner, f"crash {crash}")
        with pytest.raises(Unavailable, match=f"crash {OPEN_AFTER - 1}"):
            slot.breaker.check()


async def test_compute_is_enforced_while_another_runner_does_not_end(tmp_path, monkeypatch):
    """11-S3: the loop that enforces compute waited for an idle runner to end."""
    monkeypatch.setattr(native, "_LOOK_SECONDS", 0.01)
    runtime = NativeRuntime(tmp_path, lambda *_: None, idle_seconds=0.02)
    slots = runtime._slots
    runners = occupied(slots, "idle")
    with slots.use(("busy", "digest", 1)) as slot:
        runners["busy"] = SlowRunner()
        clock = [0.0]
        slot.started(runners["busy"], ComputeMeter(lambda: clock[0]))
        slot.meter.began("call", 0.5)
        runtime._looking = asyncio.create_task(runtime._look_after())
        until = time.monotonic() + 5
        while not runners["idle"].closing and time.monotonic() < until:  # noqa: ASYNC110 -- the test waits from outside
            await asyncio.sleep(0.01)
        clock[0] = 100.0
        while runners["busy"].ended is None and time.monotonic() < until:  # noqa: ASYNC110 -- the test waits from outside
            await asyncio.sleep(0.01)
    assert runners["idle"].closing
    assert runners["busy"].ended == "it computed longer than its calls may"
    for runner in runners.values():
        runner.let_go.set()
    await runtime.close()
