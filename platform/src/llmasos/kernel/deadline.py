"""The deadline of an invocation, for everything that it awaits, on one timer; `asyncio.timeout` makes one per call."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from typing import TypeVar, cast

T = TypeVar("T")


class Expired(Exception):
    """The deadline came before the awaited result."""


class _Wait:
    __slots__ = ("cancelling", "expired", "task")

    def __init__(self, task: asyncio.Task[object]) -> None:
        self.task = task
        self.cancelling = task.cancelling()
        self.expired = False


class Deadline:
    """An instant on the monotonic clock, in seconds. `stop` it at the end of the invocation."""

    __slots__ = ("_at", "_timer", "_waits")

    def __init__(self, at_monotonic: float) -> None:
        self._at = at_monotonic
        self._timer: asyncio.TimerHandle | None = None
        self._waits: set[_Wait] = set()

    async def bound(self, work: Awaitable[T]) -> T:
        """Await `work` until the deadline.

        Raises:
            Expired: The work was not done in time, and was cancelled.
        """
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._at - time.monotonic(), self._expire)
        wait = _Wait(cast("asyncio.Task[object]", asyncio.current_task()))
        self._waits.add(wait)
        try:
            return await work
        except asyncio.CancelledError as error:
            # Another caller may have cancelled the task as well: then it stays cancelled.
            if self._end(wait) <= wait.cancelling and wait.expired:
                raise Expired from error
            raise
        finally:
            self._end(wait)

    def stop(self) -> None:
        """Cancel the timer, unless something still waits."""
        if self._timer is not None and not self._waits:
            self._timer.cancel()
            self._timer = None

    def _end(self, wait: _Wait) -> int:
        """Undo the timer's own cancellation, once, and return how many other cancellations were requested."""
        if wait in self._waits:
            self._waits.discard(wait)
            if wait.expired:
                return wait.task.uncancel()
        return wait.task.cancelling()

    def _expire(self) -> None:
        # A wait that begins after the deadline is ended by a timer of its own, immediately.
        self._timer = None
        for wait in self._waits:
            if not wait.expired:
                wait.expired = True
                wait.task.cancel()
