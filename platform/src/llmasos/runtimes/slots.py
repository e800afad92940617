"""Slots for warm runners: one per installation, release and memory limit, with its runner and its crash count."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager
from typing import TypeAlias

from llmasos.runtimes.compute import ComputeMeter
from llmasos.runtimes.pool import Breaker
from llmasos.runtimes.runner import Runner

Key: TypeAlias = tuple[str, str, int]
"""Installation, digest and memory limit in bytes."""


class Slot:
    """A slot for one runner at a time.

    Args:
        calls: The largest number of concurrent calls of its runner.
    """

    def __init__(self, calls: int) -> None:
        self.lock = asyncio.Lock()
        """Held while its runner is started."""
        self.room = asyncio.Semaphore(calls)
        self.runner: Runner | None = None
        self.meter = ComputeMeter(lambda: 0.0)
        self.breaker = Breaker()
        self.users = 0
        self.last_used = 0.0
        self.retired = False
        self._crashed: Runner | None = None
        self._release: Callable[[], None] = _nothing

    def started(self, runner: Runner, meter: ComputeMeter, release: Callable[[], None] | None = None) -> None:
        """Set its new runner; `release` frees the runner's resources once it has ended."""
        self.runner, self.meter, self._release = runner, meter, release or _nothing

    def crashed(self, runner: Runner, cause: str) -> None:
        """Count a crash of its runner once, however many calls failed with it."""
        if self._crashed is not runner:
            self._crashed = runner
            self.breaker.failed(cause)

    def take(self) -> Callable[[], Coroutine[None, None, None]] | None:
        """Detach its runner, and return a function that ends it; None if there is none."""
        runner, self.runner = self.runner, None
        release, self._release = self._release, _nothing
        if runner is None:
            return None

        async def end() -> None:
            try:
                await runner.close()
            finally:
                release()

        return end


def _nothing() -> None:
    pass


class Slots:
    """All slots of a runtime. Only `ended` and `close` wait for a runner to end.

    Args:
        idle_seconds: How long an unused runner stays.
        most_runners: The largest number of warm runners.
        calls_each: The largest number of concurrent calls of a runner.
    """

    def __init__(self, idle_seconds: float, most_runners: int, calls_each: int) -> None:
        self._idle_seconds = idle_seconds
        self._most_runners = most_runners
        self._calls_each = calls_each
        self._slots: dict[Key, Slot] = {}
        # Retired while they run something: kept until it ends.
        self._leaving: set[Slot] = set()
        self._ending: set[asyncio.Task[None]] = set()

    @property
    def runners(self) -> list[tuple[Key, Runner]]:
        """The runners that accept calls, with their keys."""
        return [(key, slot.runner) for key, slot in self._slots.items() if slot.runner is not None]

    @property
    def occupied(self) -> list[Slot]:
        """The slots that have a runner, retired ones included."""
        return [slot for slot in (*self._slots.values(), *self._leaving) if slot.runner is not None]

    @contextmanager
    def use(self, key: Key) -> Generator[Slot]:
        """Open the slot of a key; its runner stays until the block ends. Other releases of the installation retire."""
        slot = self._slots.get(key)
        if slot is None:
            slot = self._slots[key] = Slot(self._calls_each)
            self.retire(lambda other: other[0] == key[0] and other[1] != key[1])
        slot.users += 1
        try:
            yield slot
        finally:
            slot.users -= 1
            slot.last_used = time.monotonic()
            if slot.retired and slot.users == 0:
                self._leaving.discard(slot)
                self.end(slot)

    def retire(self, leaves: Callable[[Key], bool]) -> None:
        """Remove slots, and end the runner of each once its last call has ended."""
        for key, slot in list(self._slots.items()):
            if leaves(key):
                slot.retired = True
                del self._slots[key]
                if slot.users > 0:
                    self._leaving.add(slot)
                else:
                    self.end(slot)

    def make_room(self) -> None:
        """End the least recently used idle runners before a new one starts, if there are too many."""
        running = self.occupied
        idle = sorted((slot for slot in running if slot.users == 0), key=lambda slot: slot.last_used)
        for slot in idle[: max(0, len(running) - self._most_runners + 1)]:
            self.end(slot)

    def end_idle(self) -> None:
        """End and remove the runners that were idle for too long."""
        limit = time.monotonic() - self._idle_seconds
        for key, slot in list(self._slots.items()):
            if slot.users == 0 and slot.last_used < limit:
                del self._slots[key]
                self.end(slot)

    def end(self, slot: Slot) -> None:
        """Detach the runner from its slot now, so that no new call gets it, and end it in the background."""
        if (end := slot.take()) is not None:
            task = asyncio.create_task(end())
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)

    async def ended(self) -> None:
        """Wait for the runners that are ending."""
        await asyncio.gather(*self._ending)

    async def close(self) -> None:
        """End every runner."""
        for slot in self.occupied:
            self.end(slot)
        self._slots.clear()
        await self.ended()
