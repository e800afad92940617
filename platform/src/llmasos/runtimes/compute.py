"""Holds a runner to the compute of its calls, by the clock that the system keeps of its process.

The runner itself watches the thread of each call, and ends one that computes too long without harm to the others. But
app code runs in the same process: it may start threads, or take the watch apart. The system's clock counts every
thread, and nothing in the process can set it. A limit of the process (RLIMIT_CPU) would not do: it counts a warm
runner's whole life, and cannot grow with its calls.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

# Of the runner's own: starting threads, reading frames, and a watch that looks every 20 ms. It is also what an app may
# compute while nobody calls it.
SLACK_SECONDS: Final = 1.0
# Of a second that calls run or wait, the most that the runner's own watch takes: measured were 0.7 % with one call
# that waits, and 0.9 % with sixteen.
OVERHEAD: Final = 0.03


def process_clock(pid: int) -> Callable[[], float]:
    """A clock of what a process computed with all its threads, in seconds; once it is gone, what was last seen."""
    # From the kernel's posix-timers.h: the complement of the process id, three bits up, with CPUCLOCK_SCHED (2).
    clock = ~pid << 3 | 2
    seen = 0.0

    def read() -> float:
        nonlocal seen
        with suppress(OSError):  # it ended, or this system has no such clock
            seen = max(seen, time.clock_gettime(clock))
        return seen

    return read


@dataclass(slots=True)
class _Running:
    allowed: float
    began: float
    alone: bool


@dataclass(frozen=True, slots=True)
class Spent:
    """What one call can have computed at most, in seconds; `exact` where no other ran at the same time."""

    seconds: float
    exact: bool


class ComputeMeter:
    """What the calls in one process may compute together, and whether they keep to it.

    A call that ends takes with it as much of what was computed as can have been its own; with the last, the count
    begins anew. So an honest app is never charged for another's call, and no compute can be saved up.

    Args:
        clock: What the process computed, in seconds.
        now: The monotonic clock, in seconds.
    """

    def __init__(self, clock: Callable[[], float], now: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._now = now
        self._running: dict[str, _Running] = {}
        self._settled = clock()
        self._busy_since = 0.0

    @property
    def allowed_seconds(self) -> float:
        """What the running calls have together."""
        return sum(call.allowed for call in self._running.values())

    @property
    def calls(self) -> int:
        """How many run."""
        return len(self._running)

    def began(self, identifier: str, allowed_seconds: float) -> None:
        """A call starts."""
        if not self._running:
            self._busy_since = self._now()
        for call in self._running.values():
            call.alone = False
        self._running[identifier] = _Running(allowed_seconds, self._clock(), alone=not self._running)

    def ended(self, identifier: str) -> Spent:
        """A call ended, however it did."""
        call, clock = self._running.pop(identifier), self._clock()
        seconds = min(call.allowed, clock - call.began)
        self._settled = min(self._settled + seconds, clock) if self._running else clock
        return Spent(seconds, call.alone)

    def is_exceeded(self) -> bool:
        """Whether the process computed more than its calls may, the runner's own share left out."""
        overhead = OVERHEAD * (self._now() - self._busy_since) if self._running else 0.0
        return self._clock() - self._settled > self.allowed_seconds + SLACK_SECONDS + overhead
