"""The ledger's rows while a transaction is open: read once, changed in memory, written once at its end.

A batch of writes reserves and settles again and again in the same few windows. Here their sums are kept, so that a
window costs one statement a batch, and a reservation that follows on one that ended in the same batch takes over its
row. Rooms are checked against what is here, which is what the database holds and what the batch has yet to write.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import TypeAlias

from llmasos.database.transaction import Transaction
from llmasos.quotas.meters import Demand, Meter, Subject, Used, Window
from llmasos.quotas.repository import Applying, open_window

# A provider that says more in one call, or less than nothing, does not fail the writes that share its commit.
MOST = 1 << 48

Holds: TypeAlias = tuple[tuple[int, Meter, int], ...]
"""What is held where: window id, meter, amount."""


@dataclass(slots=True)
class WindowState:
    """What a window holds, with what the batch has yet to write of it."""

    used: int
    reserved: int
    overrun: int
    limit: int
    unwritten: tuple[int, int, int] = (0, 0, 0)

    @property
    def room(self) -> int:
        """What may still be held below the limit of its row."""
        return self.limit - self.used - self.reserved

    def change(self, used: int, reserved: int, overrun: int) -> None:
        """Add to each."""
        self.used += used
        self.reserved += reserved
        self.overrun += overrun
        before = self.unwritten
        self.unwritten = (before[0] + used, before[1] + reserved, before[2] + overrun)


@dataclass(frozen=True, slots=True)
class Limit:
    """A quota that applies, and its window of now."""

    quota: Applying
    meter: Meter
    window_id: int
    state: WindowState

    @property
    def room(self) -> int:
        """What may still be held. Below 0 where the quota was lowered, or a provider went past it."""
        at = self.state
        return self.quota.limit - at.used - at.reserved - at.overrun


class Book:
    """What the writes of a batch change of the ledger. A buffer of `Transaction`."""

    def __init__(self) -> None:
        self._windows: dict[int, WindowState] = {}
        self._opened: dict[str, tuple[str, Holds]] = {}
        self._drawn: dict[str, dict[int, int]] = {}
        self._ended: dict[tuple[str, Holds], list[str]] = {}
        self._usage: dict[tuple[str, str, str, str, int], list[int]] = {}

    def hold(self, limits: Sequence[Limit], amounts: Mapping[Meter, int]) -> Holds | None:
        """Hold in every window, or, where one has not enough room below its limit, in none: None."""
        for limit in limits:
            if amounts[limit.meter] > limit.room:
                return None
        for limit in limits:
            at = limit.state
            at.change(0, amounts[limit.meter], 0)
            # The row's limit follows the quota's, which somebody may have set meanwhile.
            at.limit = limit.quota.limit
            self._windows[limit.window_id] = at
        return tuple([(limit.window_id, limit.meter, amounts[limit.meter]) for limit in limits])

    def open(self, transaction: Transaction, id_: str, lease_id: str, holds: Holds) -> str:
        """Write down what is held, so that it can be freed when the process dies; the id that it has."""
        ended = self._ended.get((lease_id, holds))
        if ended:
            id_ = ended.pop()
        else:
            self._opened[id_] = (lease_id, holds)
        transaction.memo["reservation", id_] = {window_id: amount for window_id, _meter, amount in holds}
        return id_

    def end(self, transaction: Transaction, id_: str, lease_id: str, holds: Holds) -> set[int]:
        """End a reservation; the windows in which it was still held."""
        still = set(_held(transaction, id_))
        transaction.memo.pop(("reservation", id_), None)
        if self._opened.pop(id_, None) is None and still:
            # Where its process was taken for dead, or a quota was removed, its rows are no longer those of the holds.
            whole = len(still) == len(holds)
            self._ended.setdefault((lease_id, holds if whole else ()), []).append(id_)
        return still

    def draw(self, transaction: Transaction, id_: str, lease_id: str, holds: Holds) -> set[int]:
        """Take a part out of a reservation, which ends with its last part; the windows in which it was still held."""
        amounts = _held(transaction, id_)
        still = {window_id for window_id, _meter, _amount in holds if window_id in amounts}
        for window_id, _meter, amount in holds:
            if window_id in still:
                amounts[window_id] -= amount
        if not any(amounts.values()):
            transaction.memo.pop(("reservation", id_), None)
            self._drawn.pop(id_, None)
            if self._opened.pop(id_, None) is None:
                self._ended.setdefault((lease_id, ()), []).append(id_)
        elif id_ in self._opened:
            _lease, whole = self._opened[id_]
            self._opened[id_] = lease_id, tuple([(window, meter, amounts[window]) for window, meter, _all in whole])
        else:
            self._drawn[id_] = amounts
        return still

    def charge(self, transaction: Transaction, window_id: int, held: int, used: int) -> None:
        """Turn what is held in a window into what was used; what has no room goes into the overrun.

        Args:
            window_id: Of a quota that may have been removed meanwhile.
            held: 0 where no reservation holds it any more.
            used: May be more than was held.
        """
        at = state(transaction, window_id)
        if at is None:
            return
        used = _countable(used)
        within = min(used, held or max(0, at.room))
        at.change(within, -held, used - within)
        self._windows[window_id] = at

    def add_usage(self, subject: Subject, model: str | None, used: Used, now: int) -> None:
        """Add one call to the totals of its day."""
        key = (subject.workspace, subject.user, subject.app or "", model or "", now // 86_400)
        cost, fuel = used.cost_micro_usd, used.amounts.get(Meter.COMPUTE, 0)
        tokens = _countable(used.prompt_tokens), _countable(used.completion_tokens)
        amounts = (1, *tokens, _countable(cost or 0), int(cost is None), _countable(fuel))
        before = self._usage.get(key)
        self._usage[key] = [*amounts] if before is None else [a + b for a, b in zip(before, amounts, strict=True)]

    def write(self, transaction: Transaction) -> None:
        """Write it all."""
        # In the order of their ids: two transactions that want the same rows wait, instead of locking each other.
        changed = [(*at.unwritten, at.limit, window_id) for window_id, at in sorted(self._windows.items())]
        for at in self._windows.values():
            at.unwritten = (0, 0, 0)
        transaction.run_many(_CHANGE_WINDOW, changed)
        for id_, left in self._drawn.items():
            rows = [(amount, id_, window_id) for window_id, amount in sorted(left.items())]
            transaction.run_many("UPDATE reservation SET amount = ? WHERE id = ? AND window_id = ?", rows)
        ended = [(id_,) for ids in self._ended.values() for id_ in ids]
        if ended:
            transaction.run_many("DELETE FROM reservation WHERE id = ?", ended)
        if self._opened:
            transaction.run_many(
                "INSERT INTO reservation (id, window_id, meter, amount, lease_id) VALUES (?, ?, ?, ?, ?)",
                [
                    (id_, window_id, meter.value, amount, lease_id)
                    for id_, (lease_id, holds) in self._opened.items()
                    for window_id, meter, amount in holds
                ],
            )
        for (*who, days), amounts in self._usage.items():
            key = (*who, transaction.day(EPOCH + timedelta(days)))
            if not transaction.run(_ADD_USAGE, *amounts, *key):
                transaction.run(_BEGIN_DAY, *key)
                transaction.run(_ADD_USAGE, *amounts, *key)


def _held(transaction: Transaction, id_: str) -> dict[int, int]:
    """What a reservation holds in each window; nothing where its process was taken for dead."""
    key = ("reservation", id_)
    found: dict[int, int] | None = transaction.memo.get(key)
    if found is None:
        query = f"SELECT window_id, amount FROM reservation WHERE id = ?{transaction.for_update}"  # noqa: S608
        found = transaction.memo[key] = dict(transaction.all(query, id_))
    return found


def _countable(amount: int) -> int:
    return max(0, min(amount, MOST))


def limits(
    transaction: Transaction, quotas: Sequence[Applying], subject: Subject, demand: Demand, now: int
) -> list[Limit]:
    """The windows in which a demand is held. In one transaction they are looked up once a subject and minute."""
    meters = tuple([meter for meter, amount in demand.amounts.items() if amount])
    key = ("limits", subject.workspace, subject.user, subject.app, subject.model, now // 60, meters)
    found: list[Limit] | None = transaction.memo.get(key)
    if found is None:
        bound = [quota for quota in quotas if quota.window is not Window.RUN and quota.meter in meters]
        windows = {quota.quota_id: open_window(transaction, quota) for quota in bound}
        # In the order of their ids, as `write` has them.
        states = {window_id: state(transaction, window_id) for window_id in sorted(windows.values())}
        found = []
        for quota in bound:
            at = states[windows[quota.quota_id]]
            if at is not None:
                found.append(Limit(quota, quota.meter, windows[quota.quota_id], at))
        transaction.memo[key] = found
    return found


def state(transaction: Transaction, window_id: int) -> WindowState | None:
    """What a window holds, kept from change until the transaction ends; None where its quota was removed."""
    key = ("state", window_id)
    found: WindowState | None = transaction.memo.get(key)
    if found is None:
        row = transaction.one(
            f'SELECT used, reserved, overrun, "limit" FROM ledger_window WHERE id = ?{transaction.for_update}',  # noqa: S608
            window_id,
        )
        if row is not None:
            found = transaction.memo[key] = WindowState(*row)
    return found


# A day's number counts from it.
EPOCH = date(1970, 1, 1)
_CHANGE_WINDOW = """
UPDATE ledger_window SET used = used + ?, reserved = reserved + ?, overrun = overrun + ?, "limit" = ? WHERE id = ?
"""
_ADD_USAGE = """
UPDATE usage_day SET calls = calls + ?, prompt_tokens = prompt_tokens + ?, completion_tokens = completion_tokens + ?,
cost_micro_usd = cost_micro_usd + ?, unpriced_calls = unpriced_calls + ?, fuel = fuel + ?
WHERE workspace_id = ? AND user_id = ? AND app_id = ? AND model = ? AND day = ?
"""
_BEGIN_DAY = """
INSERT INTO usage_day (workspace_id, user_id, app_id, model, day,
calls, prompt_tokens, completion_tokens, cost_micro_usd, unpriced_calls, fuel)
VALUES (?, ?, ?, ?, ?, 0, 0, 0, 0, 0, 0) ON CONFLICT (workspace_id, user_id, app_id, model, day) DO NOTHING
"""
