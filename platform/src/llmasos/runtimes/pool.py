"""A few warm runners: the least loaded one gets the next call, and a dead one is replaced, with back-off."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from llmasos.errors import CannotConfine, LlmasosError, RunnerDied, Unavailable
from llmasos.i18n import _
from llmasos.runtimes.runner import Runner

PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")

_log = logging.getLogger(__name__)

FIRST_DELAY_SECONDS: Final = 0.1
LONGEST_DELAY_SECONDS: Final = 5.0
# After this many crashes in a row, no runner is started for a while.
OPEN_AFTER: Final = 5
OPEN_SECONDS: Final = 15.0


class Breaker:
    """Counts crashes in a row: the wait before the next start grows, and finally starts are refused for a while."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures = 0
        self._open_until = 0.0
        self._last = ""

    def check(self) -> None:
        """Check that a start is allowed.

        Raises:
            Unavailable: There were too many recent crashes.
        """
        if self._clock() < self._open_until:
            raise Unavailable(
                _("Runners keep dying ({last}): run `llmasos doctor`.", last=self._last),
            )

    @property
    def delay_seconds(self) -> float:
        """How long to wait before the next start; with jitter, so that several hosts do not retry in step."""
        if self._failures == 0:
            return 0.0
        longest: float = min(FIRST_DELAY_SECONDS * 2.0**self._failures, LONGEST_DELAY_SECONDS)
        return longest * random.uniform(0.5, 1.0)  # noqa: S311

    def failed(self, cause: str) -> None:
        """Count a runner that did not start, or that died."""
        self._failures += 1
        self._last = cause
        if self._failures >= OPEN_AFTER:
            self._open_until = self._clock() + OPEN_SECONDS
            self._failures = OPEN_AFTER - 1  # a single attempt after the pause, not five

    def worked(self) -> None:
        """Reset the count: a runner works."""
        self._failures = 0


class Pool:
    """Runners of one kind, started on demand and kept."""

    def __init__(self, spawn: Callable[[], Awaitable[Runner]], size: int, calls_each: int) -> None:
        self._spawn = spawn
        self._size = size
        self._calls_each = calls_each
        self._runners: list[Runner] = []
        self._starting: asyncio.Task[Runner] | None = None
        self._closed = False
        self._room = asyncio.Event()
        self.breaker = Breaker()

    async def acquire(self) -> Runner:
        """Return the least loaded runner. The caller must start its call without an await in between.

        Raises:
            Unavailable: No runner can be started.
        """
        while True:
            if self._closed:
                raise Unavailable(_("The host is shutting down."))
            self._runners = [runner for runner in self._runners if runner.is_alive]
            best = min(self._runners, key=lambda runner: runner.load, default=None)
            if len(self._runners) < self._size and self._starting is None and (best is None or best.load > 0):
                self._starting = asyncio.create_task(self._start())
                self._starting.add_done_callback(_retrieve)
            if best is not None and best.load < self._calls_each:
                return best
            if self._starting is not None:
                await asyncio.shield(self._starting)
            else:
                self._room.clear()
                await self._room.wait()

    def released(self) -> None:
        """Wake the waiting callers: a call ended."""
        self._room.set()

    @property
    def pids(self) -> dict[int, Runner]:
        """The living runners, by process id."""
        return {runner.process.pid: runner for runner in self._runners if runner.is_alive}

    async def close(self) -> None:
        """End every runner."""
        self._closed = True
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.wait({self._starting})
        await asyncio.gather(*(runner.close() for runner in self._runners))
        self._room.set()

    async def _start(self) -> Runner:
        try:
            self.breaker.check()
            await asyncio.sleep(self.breaker.delay_seconds)
            try:
                runner = await self._spawn()
            except CannotConfine:
                raise  # no runner was started, and the next attempt would fail in the same way immediately
            except LlmasosError as error:
                self.breaker.failed(error.message)
                _log.warning("a runner did not start", extra={"cause": error.message})
                raise RunnerDied(error.message) from error
            self.breaker.worked()
            self._runners.append(runner)
            return runner
        finally:
            self._starting = None


def _retrieve(task: asyncio.Task[Runner]) -> None:
    # There may be no waiter for a runner that is started ahead of need; its failure is already logged and counted.
    if not task.cancelled():
        task.exception()


def held_bytes(pids: list[int]) -> int:
    """Return the private memory of processes: what is resident, less what is mapped from files."""
    total = 0
    for pid in pids:
        try:
            _, resident, shared, *_ = Path(f"/proc/{pid}/statm").read_text().split()
        except (OSError, ValueError):
            continue  # it has just ended
        total += (int(resident) - int(shared)) * PAGE_BYTES
    return total
