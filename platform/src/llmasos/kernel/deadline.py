"""The deadline of an invocation, for everything that it awaits: one timer, while `asyncio.timeout` makes one a call."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from typing import TypeVar, cast

T = TypeVar("T")


class Expired(Exception):
    """The deadline came before what was waited for."""


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
        """Wait for it until then.

        Raises:
            Expired: It was not done; it was cancelled.
        """
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._at - time.monotonic(), self._expire)
        wait = _Wait(cast("asyncio.Task[object]", asyncio.current_task()))
        self._waits.add(wait)
        try:
            return await work
        except asyncio.CancelledError as error:
            # Somebody else may have cancelled the task as well: then it stays cancelled.
            if self._end(wait) <= wait.cancelling and wait.expired:
                raise Expired from error
            raise
        finally:
            self._end(wait)

    def stop(self) -> None:
        """Forget the timer, unless something still waits."""
        if self._timer is not None and not self._waits:
            self._timer.cancel()
            self._timer = None

    def _end(self, wait: _Wait) -> int:
        """Take back the cancellation by the timer, once; how many others asked for one."""
        if wait in self._waits:
            self._waits.discard(wait)
            if wait.expired:
                return wait.task.uncancel()
        return wait.task.cancelling()

    def _expire(self) -> None:
        # What begins to wait after it is ended by a timer of its own, at once.
        self._timer = None
        for wait in self._waits:
            if not wait.expired:
                wait.expired = True
                wait.task.cancel()
