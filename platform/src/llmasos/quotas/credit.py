"""Reservations made ahead: where calls follow each other at once, one commit reserves for several of them.

A credit is a reservation like any other, made for a few calls like the last one, while there is room for many times as
many. Calls draw on it without a commit, as long as they follow at once and nobody else in this process has written to
the database. What nobody draws on for a moment is given back. So what another process changes of the quotas meanwhile
holds after at most `MOST_CALLS` calls; no limit is ever passed, since a credit is reserved.
"""

from __future__ import annotations

import math
import time
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from llmasos.quotas.book import Holds, Limit
from llmasos.quotas.meters import Demand, Meter, Subject
from llmasos.quotas.repository import Applying

# Calls further apart than this reserve for themselves, and a credit that is left alone for so long is given back.
AT_ONCE_SECONDS: Final = 0.02
# A credit is for 1 call, then 3, then 7: it doubles while it is used up. With what seven calls settle, a commit keeps
# an event loop for less than a millisecond.
MOST_CALLS: Final = 7
# It takes at most one part in so many of the room that is left, so that it keeps nobody from what is left near a limit.
PART_OF_ROOM: Final = 64
# Subjects and meters whose pace is known.
_PACES: Final = 1000

Key: TypeAlias = Hashable
"""Who asks, and for which meters: what is held in the same windows."""


@dataclass(slots=True, eq=False)
class Credit:
    """What is reserved ahead. It is drawn on in the writer's gate only."""

    id: str
    minute: int
    sessions_that_wrote: int
    """Of the database, when it was made: with another session a quota may have been set."""
    quotas: Sequence[Applying]
    """Those that applied when it was made."""
    windows: Holds
    calls: int
    """How many may still draw on it, however little they take."""
    left: dict[int, int] = field(init=False)
    drawn_monotonic: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.left = {window_id: amount for window_id, _meter, amount in self.windows}

    @property
    def is_idle(self) -> bool:
        """Whether nobody drew on it for a moment. Its process may have been stopped, and the reservation be gone."""
        return time.monotonic() - self.drawn_monotonic >= AT_ONCE_SECONDS

    def draw(self, amounts: Mapping[Meter, int]) -> Holds | None:
        """Take the amounts out of it; None where it has too little, or is idle."""
        if not self.calls or self.is_idle:
            return None
        holds = tuple([(window_id, meter, amounts[meter]) for window_id, meter, _all in self.windows])
        if any(amount > self.left[window_id] for window_id, _meter, amount in holds):
            return None
        for window_id, _meter, amount in holds:
            self.left[window_id] -= amount
        self.calls -= 1
        self.drawn_monotonic = time.monotonic()
        return holds

    def rest(self) -> Holds:
        """All that is left, taken out of it."""
        rest = tuple([(window_id, meter, self.left[window_id]) for window_id, meter, _all in self.windows])
        self.left = dict.fromkeys(self.left, 0)
        return rest


@dataclass(slots=True)
class _Pace:
    asked_monotonic: float
    calls: int = 0
    pending: bool = False
    crowded_monotonic: float = -math.inf


class Credits:
    """The credits of a process, and how fast each is used up. An event loop's own."""

    def __init__(self) -> None:
        self._credits: dict[Key, Credit] = {}
        self._paces: dict[Key, _Pace] = {}

    def __bool__(self) -> bool:
        return bool(self._credits)

    def find(self, key: Key) -> Credit | None:
        """The credit for a key."""
        return self._credits.get(key)

    def calls_ahead(self, key: Key) -> int:
        """For how many calls the commit that is now asked for may reserve ahead. Say `keep` after it."""
        now = time.monotonic()
        used_up = self._credits.pop(key, None)
        pace = self._paces.get(key)
        if pace is None:
            if len(self._paces) >= _PACES:
                self._paces.clear()
            self._paces[key] = _Pace(now, pending=True)
            return 0
        last = used_up.drawn_monotonic if used_up is not None else pace.asked_monotonic
        quick = now - last < AT_ONCE_SECONDS
        pace.asked_monotonic = now
        if pace.pending:
            # Those who ask while a commit is under way share the next one, and need no credit.
            pace.crowded_monotonic = now
        if not quick or now - pace.crowded_monotonic < AT_ONCE_SECONDS:
            pace.calls = 0
        else:
            pace.calls = min(2 * pace.calls + 1, MOST_CALLS)
        pace.pending = True
        return pace.calls

    def keep(self, key: Key, credit: Credit | None) -> Credit | None:
        """Note what a commit reserved ahead, if anything; the credit whose place it takes."""
        pace = self._paces.get(key)
        if pace is not None:
            pace.pending = False
        if credit is None:
            return None
        before = self._credits.get(key)
        self._credits[key] = credit
        return before

    def idle(self) -> list[Credit]:
        """The credits that nobody drew on for a moment; they are forgotten."""
        idle = {key: each for key, each in self._credits.items() if each.is_idle}
        for key in idle:
            del self._credits[key]
        return list(idle.values())

    def clear(self) -> None:
        """Forget them all."""
        self._credits.clear()


def key_of(subject: Subject, demand: Demand) -> Key:
    """What has the same key is held in the same windows."""
    meters = tuple([meter for meter, amount in demand.amounts.items() if amount])
    return subject.workspace, subject.user, subject.app, subject.model, meters


def affordable(limits: Sequence[Limit], amounts: Mapping[Meter, int], calls: int) -> bool:
    """Whether so many calls may be reserved ahead."""
    return all(calls * amounts[limit.meter] * PART_OF_ROOM <= limit.room for limit in limits)
