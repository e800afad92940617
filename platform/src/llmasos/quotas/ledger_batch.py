"""The ledger's rows while a transaction is open: read and locked at once, changed in memory, written once at its end.

A batch of writes reserves and settles many times in the same few windows. Their sums are kept here, so that a
window costs one statement per batch. Room is checked against these sums: what the database holds and what
the batch has yet to write.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import TypeAlias

from llmasos.database.text import storable
from llmasos.database.transaction import Transaction
from llmasos.quotas import repository
from llmasos.quotas.meters import Meter, Subject, Used, Window
from llmasos.quotas.repository import Applying

# A provider may report more than this in one call, or a negative number; that must not fail the shared commit.
MOST = 1 << 48
# A provider may also report any name for its model.
MAX_MODEL = 255

Holds: TypeAlias = tuple[tuple[int, Meter, int], ...]
"""What is reserved in which window: window id, meter, amount."""

# The key of the quotas and windows that apply: the subject and the minute.
_Key: TypeAlias = tuple[str, str, str | None, str | None, int]


@dataclass(slots=True)
class WindowState:
    """What a window holds, with the batch's unwritten changes."""

    used: int
    reserved: int
    overrun: int
    limit: int
    unwritten: tuple[int, int, int] = (0, 0, 0)

    @property
    def room(self) -> int:
        """What may still be reserved below the row's limit."""
        return self.limit - self.used - self.reserved

    def change(self, used: int, reserved: int, overrun: int) -> None:
        """Add to each amount."""
        self.used += used
        self.reserved += reserved
        self.overrun += overrun
        before = self.unwritten
        self.unwritten = (before[0] + used, before[1] + reserved, before[2] + overrun)


@dataclass(frozen=True, slots=True)
class Limit:
    """A quota that applies, and its current window."""

    quota: Applying
    meter: Meter
    window_id: int
    state: WindowState

    @property
    def room(self) -> int:
        """What may still be reserved. Below 0 if the quota was lowered, or a provider went past it."""
        at = self.state
        return self.quota.limit - at.used - at.reserved - at.overrun


class LedgerBatch:
    """The changes that the writes of one transaction make to the ledger, as a `Buffer`.

    Announced rows are read and locked together, in the order of ids, when the first one is needed: transactions of
    several processes then wait for each other without deadlock.
    """

    def __init__(self) -> None:
        # What was announced, and not read yet.
        self._subjects: dict[_Key, tuple[Subject, int, set[Meter]]] = {}
        self._settling: dict[str, Holds] = {}
        # What was read.
        self._quotas: dict[_Key, list[Applying]] = {}
        self._window_ids: dict[tuple[int, int], int] = {}
        self._windows: dict[int, WindowState] = {}
        self._held: dict[str, set[int]] = {}
        # What is to be written.
        self._opened: dict[str, tuple[str, Holds]] = {}
        self._usage: dict[tuple[str, str, str, str, int], list[int]] = {}
        self._undo: list[Callable[[], object]] = []

    def announce_reserve(self, subject: Subject, meters: Sequence[Meter], now: int) -> None:
        """Announce a reservation for a subject, at `now` in seconds since the epoch."""
        self._subjects.setdefault(_key(subject, now), (subject, now, set()))[2].update(meters)

    def announce_settle(self, id_: str, holds: Holds) -> None:
        """Announce that a reservation will be settled."""
        if id_ not in self._opened:
            self._settling[id_] = holds

    def quotas(self, transaction: Transaction, subject: Subject, now: int) -> list[Applying]:
        """The quotas that apply to a subject."""
        key = _key(subject, now)
        found = self._quotas.get(key)
        if found is None:
            found = self._quotas[key] = repository.applying(transaction, subject, now)
        return found

    def limits(self, transaction: Transaction, subject: Subject, meters: Sequence[Meter], now: int) -> list[Limit]:
        """The windows in which a demand for these meters is reserved."""
        key = _key(subject, now)
        bound = [quota for quota in self.quotas(transaction, subject, now) if _binds(quota, meters)]
        if key in self._subjects or any(quota.window_key not in self._window_ids for quota in bound):
            self.announce_reserve(subject, meters, now)
            self._load(transaction)
        limits: list[Limit] = []
        for quota in bound:
            window_id = self._window_ids[quota.window_key]
            if (state := self._windows.get(window_id)) is not None:
                limits.append(Limit(quota, quota.meter, window_id, state))
        return limits

    def hold(self, limits: Sequence[Limit], amounts: Mapping[Meter, int]) -> Holds | None:
        """Reserve in every window; return None, and reserve nothing, if one lacks room below its limit."""
        for limit in limits:
            if amounts[limit.meter] > limit.room:
                return None
        for limit in limits:
            at = limit.state
            at.change(0, amounts[limit.meter], 0)
            # The row's limit follows the quota's, which may have changed in the meantime.
            at.limit = limit.quota.limit
        return tuple([(limit.window_id, limit.meter, amounts[limit.meter]) for limit in limits])

    def open(self, id_: str, lease_id: str, holds: Holds) -> None:
        """Record a reservation, so that it is freed if the process dies."""
        self._opened[id_] = (lease_id, holds)

    def end(self, transaction: Transaction, id_: str, holds: Holds) -> set[int]:
        """End a reservation; returns the windows in which it still existed."""
        if self._opened.pop(id_, None) is not None:
            return {window_id for window_id, _meter, _amount in holds}
        if id_ not in self._held:
            self.announce_settle(id_, holds)
            self._load(transaction)
        return self._held.pop(id_)

    def charge(self, window_id: int, reserved: int, used: int) -> None:
        """Replace a window's reserved amount by the used one; the excess goes into the overrun.

        Args:
            window_id: Of a quota that may have been removed since.
            reserved: 0 if the reservation does not exist any more.
            used: May be more than was reserved.
        """
        at = self._windows.get(window_id)
        if at is None:
            return
        used = _countable(used)
        within = min(used, reserved or max(0, at.room))
        at.change(within, -reserved, used - within)

    def add_usage(self, subject: Subject, model: str | None, used: Used, now: int) -> None:
        """Add one call to the totals of its day."""
        key = (subject.workspace, subject.user, subject.app or "", storable(model or "", MAX_MODEL), now // 86_400)
        cost, fuel = used.cost_micro_usd, used.amounts.get(Meter.COMPUTE, 0)
        tokens = _countable(used.prompt_tokens), _countable(used.completion_tokens)
        amounts = (1, *tokens, _countable(cost or 0), int(cost is None), _countable(fuel))
        before = self._usage.get(key)
        self._usage[key] = [*amounts] if before is None else [a + b for a, b in zip(before, amounts, strict=True)]

    def on_discard(self, undo: Callable[[], object]) -> None:
        """Call `undo` if the transaction is rolled back."""
        self._undo.append(undo)

    def discard(self) -> None:
        """Undo the changes made outside the database, newest first."""
        while self._undo:
            self._undo.pop()()

    def write(self, transaction: Transaction) -> None:
        """Write all changes, the rows of each table in one fixed order."""
        changed = [(*at.unwritten, at.limit, id_) for id_, at in sorted(self._windows.items()) if any(at.unwritten)]
        if changed:
            transaction.run_many(_CHANGE_WINDOW, changed)
        if self._opened:
            transaction.run_many(
                "INSERT INTO reservation (id, window_id, meter, amount, lease_id) VALUES (?, ?, ?, ?, ?)",
                [
                    (id_, window_id, meter.value, amount, lease_id)
                    for id_, (lease_id, holds) in self._opened.items()
                    for window_id, meter, amount in holds
                ],
            )
        if self._usage:
            rows = [
                (*who, transaction.day(_EPOCH + timedelta(days)), *amounts)
                for (*who, days), amounts in sorted(self._usage.items())
            ]
            transaction.run_many(_ADD_USAGE, rows)

    def _load(self, transaction: Transaction) -> None:
        """Read and lock the announced rows."""
        quotas: dict[tuple[int, int], Applying] = {}
        for subject, now, meters in self._subjects.values():
            for quota in self.quotas(transaction, subject, now):
                if _binds(quota, meters):
                    quotas[quota.window_key] = quota
        self._subjects.clear()
        for key, quota in sorted(quotas.items()):
            if key not in self._window_ids:
                self._window_ids[key] = quota.window_id or repository.open_window(transaction, quota)
        wanted = {window_id for holds in self._settling.values() for window_id, _meter, _amount in holds}
        wanted.update(self._window_ids[key] for key in quotas)
        for id_, *row in repository.lock_windows(transaction, sorted(wanted - self._windows.keys())):
            self._windows[id_] = WindowState(*row)
        if self._settling:
            self._held.update({id_: set() for id_ in self._settling})
            for id_, window_id in repository.end_reservations(transaction, sorted(self._settling)):
                self._held[id_].add(window_id)
            self._settling.clear()


def _key(subject: Subject, now: int) -> _Key:
    return subject.workspace, subject.user, subject.app, subject.model, now // 60


def _binds(quota: Applying, meters: Sequence[Meter] | set[Meter]) -> bool:
    return quota.window is not Window.RUN and quota.meter in meters


def _countable(amount: int) -> int:
    return max(0, min(amount, MOST))


# Day numbers count from here.
_EPOCH = date(1970, 1, 1)
_CHANGE_WINDOW = """
UPDATE ledger_window SET used = used + ?, reserved = reserved + ?, overrun = overrun + ?, "limit" = ? WHERE id = ?
"""
_ADD_USAGE = """
INSERT INTO usage_day (workspace_id, user_id, app_id, model, day,
calls, prompt_tokens, completion_tokens, cost_micro_usd, unpriced_calls, fuel)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (workspace_id, user_id, app_id, model, day) DO UPDATE SET
calls = usage_day.calls + excluded.calls, prompt_tokens = usage_day.prompt_tokens + excluded.prompt_tokens,
completion_tokens = usage_day.completion_tokens + excluded.completion_tokens,
cost_micro_usd = usage_day.cost_micro_usd + excluded.cost_micro_usd,
unpriced_calls = usage_day.unpriced_calls + excluded.unpriced_calls, fuel = usage_day.fuel + excluded.fuel
"""
