"""An invocation's deadline ends everything that it waits for, and nothing else."""

import asyncio
import time

import pytest

from llmasos.kernel.deadline import Deadline, Expired


def after(seconds: float) -> Deadline:
    return Deadline(time.monotonic() + seconds)


async def test_what_is_done_in_time_is_answered_and_what_is_not_expires() -> None:
    deadline = after(0.05)
    assert await deadline.bound(asyncio.sleep(0, "done")) == "done"
    waits = [asyncio.create_task(deadline.bound(asyncio.sleep(30))) for _ in range(3)]
    outcomes = await asyncio.gather(*waits, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [Expired] * 3
    # A wait that begins after the deadline ends immediately too.
    with pytest.raises(Expired):
        await deadline.bound(asyncio.sleep(30))
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_who_is_cancelled_by_somebody_else_stays_cancelled() -> None:
    deadline = after(0.02)
    task = asyncio.create_task(deadline.bound(asyncio.sleep(30)))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    async def stubborn() -> None:
        try:
            await asyncio.sleep(30)
        finally:
            # The deadline has passed; now a caller cancels it as well.
            await asyncio.sleep(0.05)

    task = asyncio.create_task(deadline.bound(stubborn()))
    await asyncio.sleep(0.04)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_work_that_ends_by_itself_once_it_is_told_leaves_its_task_uncancelled() -> None:
    async def told() -> str:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            return "what there was"
        return ""

    async def outer() -> tuple[str, int]:
        answer = await after(0.01).bound(told())
        task = asyncio.current_task()
        assert task is not None
        return answer, task.cancelling()

    assert await asyncio.create_task(outer()) == ("what there was", 0)


async def test_one_deadline_inside_another_ends_only_what_is_inside_it() -> None:
    async def inside() -> str:
        try:
            await after(0.01).bound(asyncio.sleep(30))
        except Expired:
            return "inner"
        return ""

    assert await after(30).bound(inside()) == "inner"


async def test_a_stopped_deadline_still_ends_what_waits() -> None:
    deadline = after(0.03)
    task = asyncio.create_task(deadline.bound(asyncio.sleep(30)))
    await asyncio.sleep(0)
    deadline.stop()
    with pytest.raises(Expired):
        await task
