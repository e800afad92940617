"""Admits invocations while there is memory for them, and queues the others, fairly by app.

An invocation counts as the memory that its program was seen to touch, not as its limit: most touch a few MiB and wait
for a model, and five hundred of them fit where fifty limits would. That is a guess about the future, so what the
runners really hold is measured too, on a clock while anything runs: above the budget nothing more is admitted, and well
above it the largest runner is ended, before the system ends something else.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Final

# What an invocation counts as if its program has not run yet. A live Python component touches 2.3 MiB.
FIRST_BYTES: Final = 8 << 20
LEAST_BYTES: Final = 2 << 20
# Above this share of the budget, waiting no longer helps.
EMERGENCY: Final = 1.25
LOOK_SECONDS: Final = 0.1


class Admission:
    """The memory budget of all runners together."""

    def __init__(self, budget_bytes: int, held_bytes: Callable[[], int], emergency: Callable[[], None]) -> None:
        """A budget.

        Args:
            budget_bytes: What all running invocations together may hold.
            held_bytes: Returns what the runners hold now.
            emergency: Called when that is far above the budget.
        """
        self._budget = budget_bytes
        self._held_bytes = held_bytes
        self._emergency = emergency
        self._running = 0
        self._counted = 0
        self._seen: OrderedDict[str, int] = OrderedDict()
        self._waiting: OrderedDict[str, deque[tuple[int, asyncio.Future[None]]]] = OrderedDict()
        self._held = 0
        self._clock: asyncio.TimerHandle | None = None

    @asynccontextmanager
    async def slot(self, app: str, program: str, limit_bytes: int) -> AsyncGenerator[None]:
        """Wait for room, and occupy it until the block ends."""
        size = min(self._seen.get(program, FIRST_BYTES), max(limit_bytes, LEAST_BYTES), self._budget)
        if self._clock is None:
            self._look()
        if self._waiting or not self._fits(size):
            await self._wait(app, size)
        else:
            self._counted += size
        self._running += 1
        try:
            yield
        finally:
            self._running -= 1
            self._counted -= size
            self._admit()

    def saw(self, program: str, touched_bytes: int) -> None:
        """Record what an invocation of the program touched."""
        known = self._seen.pop(program, LEAST_BYTES)
        # Up immediately, down slowly: a program that was large once may be large again.
        self._seen[program] = max(touched_bytes, known - (known - touched_bytes) // 16, LEAST_BYTES)
        while len(self._seen) > 10_000:
            self._seen.popitem(last=False)

    def close(self) -> None:
        """Stop the clock."""
        if self._clock is not None:
            self._clock.cancel()

    def _look(self) -> None:
        """Measure now, and periodically while anything runs or waits."""
        self._held = self._held_bytes()
        if self._held > self._budget * EMERGENCY:
            self._emergency()
        self._admit()
        self._clock = asyncio.get_running_loop().call_later(LOOK_SECONDS, self._tick)

    def _tick(self) -> None:
        self._clock = None
        if self._running or self._waiting:
            self._look()

    def _fits(self, size: int) -> bool:
        # Alone, an invocation always fits: otherwise one that is larger than the budget would wait forever.
        return self._counted == 0 or (self._counted + size <= self._budget and self._held <= self._budget)

    async def _wait(self, app: str, size: int) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(app, deque()).append((size, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._counted -= size
            self._admit()
            raise

    def _admit(self) -> None:
        """Give the free room to those that wait, one app after the other."""
        while self._waiting:
            app, queue = next(iter(self._waiting.items()))
            while queue and queue[0][1].done():
                queue.popleft()
            if not queue:
                del self._waiting[app]
                continue
            size, turn = queue[0]
            if not self._fits(size):
                return
            queue.popleft()
            self._counted += size
            turn.set_result(None)
            self._waiting.move_to_end(app)
