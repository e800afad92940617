"""Limits a runner to the compute of its calls, by the system's clock of its process.

The runner itself watches the thread of each call, and ends one that computes too long without harm to the others. But
app code runs in the same process: it may start threads, or disable the watch. The system's clock counts every thread,
and nothing in the process can set it. A limit of the process (RLIMIT_CPU) would not do: it counts a warm runner's
whole life, and cannot grow with its calls.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

# The runner's own share: starting threads, reading frames, and a watch that looks every 20 ms. An app may compute as
# much while nobody calls it.
SLACK_SECONDS: Final = 1.0
# The most that the runner's own watch takes of a second in which calls run or wait: 0.7 % was measured with one call
# that waits, and 0.9 % with sixteen.
OVERHEAD: Final = 0.03


def process_clock(pid: int) -> Callable[[], float]:
    """Return a clock of the compute of all of a process's threads, in seconds; it stops when the process ends."""
    # From the kernel's posix-timers.h: the complement of the process id, three bits up, with CPUCLOCK_SCHED (2).
    clock = ~pid << 3 | 2
    seen = 0.0

    def read() -> float:
        nonlocal seen
        with suppress(OSError):  # the process ended, or this system has no such clock
            seen = max(seen, time.clock_gettime(clock))
        return seen

    return read


@dataclass(slots=True)
class _Running:
    allowed: float
    began: float
    alone: bool


class ComputeMeter:
    """What the calls in one process may compute together, whether they keep to it, and what each is charged.

    The limit is generous: a call that ends takes with it as much of what was computed as can have been its own, and
    with the last one the count begins anew. So an honest app is never ended for another call's compute, and no compute
    can be saved up.

    The charge is exact in sum. A call that ran alone is charged what the clock advanced. Of calls that ran at the same
    time, each is charged what the runner reported, but never more than it can have computed, nor more than it was
    allowed; and the last one is charged at least what none of the others was. So a false report can only move compute
    from one call of an app to another.

    Args:
        clock: The process's compute, in seconds.
        now: The monotonic clock, in seconds.
    """

    def __init__(self, clock: Callable[[], float], now: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._now = now
        self._running: dict[str, _Running] = {}
        # The points on the clock up to which ended calls took compute, and up to which it was charged to them.
        self._settled = self._charged = clock()
        self._busy_since = 0.0

    @property
    def allowed_seconds(self) -> float:
        """What the running calls may compute together."""
        return sum(call.allowed for call in self._running.values())

    @property
    def calls(self) -> int:
        """How many calls run."""
        return len(self._running)

    def began(self, identifier: str, allowed_seconds: float) -> None:
        """Note that a call starts."""
        if not self._running:
            self._busy_since = self._now()
        for call in self._running.values():
            call.alone = False
        self._running[identifier] = _Running(allowed_seconds, self._clock(), alone=not self._running)

    def ended(self, identifier: str, reported_seconds: float | None) -> float:
        """Note that a call ended in any way.

        Args:
            identifier: The call's identifier from `began`.
            reported_seconds: The compute that the runner reported; None if it reported none.

        Returns:
            The charge, in seconds.
        """
        call, clock = self._running.pop(identifier), self._clock()
        most = min(call.allowed, clock - call.began)
        if call.alone or reported_seconds is None:
            charged = most
        else:
            left = 0.0 if self._running else clock - self._charged
            charged = min(most, max(reported_seconds, left))
        self._settled = min(self._settled + most, clock) if self._running else clock
        self._charged = min(self._charged + charged, clock) if self._running else clock
        return charged

    def is_exceeded(self) -> bool:
        """Whether the process computed more than its calls may, the runner's own share left out."""
        overhead = OVERHEAD * (self._now() - self._busy_since) if self._running else 0.0
        return self._clock() - self._settled > self.allowed_seconds + SLACK_SECONDS + overhead
