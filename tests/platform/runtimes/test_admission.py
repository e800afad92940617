import asyncio
import os

import pytest

from llmasos.errors import Unavailable
from llmasos.runtimes import pool
from llmasos.runtimes.admission import FIRST_BYTES, LEAST_BYTES, LOOK_SECONDS, Admission
from llmasos.runtimes.pool import OPEN_AFTER, OPEN_SECONDS, Breaker

MIB = 1 << 20


def admission(budget_mib: int, held=lambda: 0, emergency=lambda: None) -> Admission:
    return Admission(budget_mib * MIB, held, emergency)


async def test_what_does_not_fit_waits_and_then_runs():
    admitting = admission(16)
    running = most = 0

    async def run(app: str) -> None:
        nonlocal running, most
        async with admitting.slot(app, "program", 64 * MIB):
            running += 1
            most = max(most, running)
            await asyncio.sleep(0.001)
            running -= 1

    await asyncio.gather(*(run("a") for _ in range(40)))
    assert most == 16 * MIB // FIRST_BYTES


async def test_an_app_that_asks_for_much_does_not_keep_another_waiting():
    admitting = admission(8)
    order: list[str] = []

    async def run(app: str) -> None:
        async with admitting.slot(app, "program", 64 * MIB):
            order.append(app)
            await asyncio.sleep(0)

    first = [asyncio.create_task(run("many")) for _ in range(20)]
    await asyncio.sleep(0)
    await asyncio.gather(run("one"), *first)
    assert order.index("one") <= 4


async def test_a_program_is_counted_with_what_it_was_seen_to_touch():
    admitting = admission(64)
    admitting.saw("small", 1)
    async with asyncio.timeout(1), asyncio.TaskGroup() as group:
        gate = asyncio.Barrier(64 * MIB // LEAST_BYTES)

        async def run() -> None:
            async with admitting.slot("a", "small", 64 * MIB):
                await gate.wait()

        for _ in range(64 * MIB // LEAST_BYTES):
            group.create_task(run())


async def test_one_that_is_larger_than_the_budget_runs_alone():
    admitting = admission(1)
    async with asyncio.timeout(1), admitting.slot("a", "large", 64 * MIB):
        pass


async def test_nothing_is_admitted_while_the_runners_hold_too_much():
    held, emergencies = [70 * MIB], []
    admitting = admission(64, lambda: held[0], lambda: emergencies.append(1))
    async with admitting.slot("a", "p", MIB):
        waiting = asyncio.create_task(admitting.slot("b", "p", MIB).__aenter__())
        await asyncio.sleep(0.3)
        assert not waiting.done()
        assert not emergencies
        held[0] = 100 * MIB
        await asyncio.sleep(0.3)
        assert emergencies
        held[0] = 0
        async with asyncio.timeout(2):
            await waiting


async def test_the_largest_runner_is_ended_though_nothing_enters_leaves_or_waits():
    """10-9: five times over the budget for a second, and nothing was ended, since nothing looked."""
    held, emergencies = [0], []
    admitting = admission(64, lambda: held[0], lambda: emergencies.append(1))
    async with admitting.slot("a", "p", MIB):
        held[0] = 5 * 64 * MIB
        async with asyncio.timeout(2):
            while not emergencies:  # noqa: ASYNC110 -- the emergency is counted, not awaited
                await asyncio.sleep(0.01)
    admitting.close()


async def test_nothing_is_measured_while_nothing_runs():
    looks = []
    admitting = admission(64, lambda: looks.append(1) or 0)
    async with admitting.slot("a", "p", MIB):
        pass
    await asyncio.sleep(2 * LOOK_SECONDS)
    seen = len(looks)
    await asyncio.sleep(3 * LOOK_SECONDS)
    assert len(looks) == seen


def test_private_memory_is_counted_in_the_pages_of_this_machine(monkeypatch):
    """10-9: a page was assumed to have 4096 bytes."""
    assert os.sysconf("SC_PAGE_SIZE") == pool.PAGE_BYTES
    of_this_process = pool.held_bytes([os.getpid()])
    monkeypatch.setattr(pool, "PAGE_BYTES", 16 * pool.PAGE_BYTES)
    assert pool.held_bytes([os.getpid()]) > 8 * of_this_process > 0


async def test_a_waiter_that_is_cancelled_leaves_no_trace():
    admitting = admission(8)
    async with admitting.slot("a", "p", 64 * MIB):
        waiting = asyncio.create_task(admitting.slot("b", "p", 64 * MIB).__aenter__())
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    async with asyncio.timeout(1), admitting.slot("c", "p", 64 * MIB):
        pass


def test_starts_that_keep_failing_are_not_tried_for_a_while():
    now = [0.0]
    breaker = Breaker(lambda: now[0])
    delays = []
    for _ in range(OPEN_AFTER):
        breaker.check()
        breaker.failed("no memory")
        delays.append(breaker.delay_seconds)
    assert delays[0] < delays[-1]
    with pytest.raises(Unavailable, match=r"no memory.*doctor"):
        breaker.check()
    now[0] += OPEN_SECONDS + 1
    breaker.check()
    breaker.failed("no memory")
    with pytest.raises(Unavailable):
        breaker.check()
    now[0] += OPEN_SECONDS + 1
    breaker.worked()
    assert breaker.delay_seconds == 0
