"""The ledger: what may be used, what is reserved for running calls, what was used.

A reservation is made in every quota that applies, or in none, in one write transaction: concurrent processes cannot
spend past a limit. If a process dies before it settles a reservation, the reservation is freed with its lease.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from llmasos.database.engine import Database
from llmasos.database.leases import Lease
from llmasos.database.pending_write import PendingWrite
from llmasos.database.transaction import Transaction
from llmasos.database.write_queue import WriteKind
from llmasos.errors import QuotaExceeded
from llmasos.quotas import refusals, repository
from llmasos.quotas.fit import fit
from llmasos.quotas.ledger_batch import Holds, LedgerBatch, Limit
from llmasos.quotas.meters import NOTHING_USED, Demand, Meter, Subject, Used, Window
from llmasos.quotas.repository import Applying
from llmasos.quotas.run_limits import RunAccount, RunHold, RunLimit

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Reservation:
    """What a call may use. `granted` is the demand, or the part that fits. Its id is never used again."""

    id: str
    subject: Subject
    granted: Demand
    windows: Holds = ()
    run_holds: tuple[RunHold, ...] = ()


@dataclass(frozen=True, slots=True)
class Overrun:
    """A provider returned more than was reserved for it."""

    meter: Meter
    reserved: int
    used: int


class Ledger:
    """Reserves before a call and settles after it, across every quota that applies."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        self.lease = Lease(database)
        self.lease.on_release(repository.release_lease)
        self._queue = database.write_queue
        self._clock = clock
        self._numbers = itertools.count()

    async def reserve(
        self,
        subject: Subject,
        demand: Demand,
        account: RunAccount | None = None,
        record: Callable[[Transaction], object] | None = None,
    ) -> Reservation:
        """Reserve a demand in every quota that applies, or as much of its answer as fits; committed when it returns.

        Args:
            subject: Whom it is charged to.
            demand: The most that it may use.
            account: The limits of the run that it belongs to.
            record: A batched write that joins the same commit.

        Raises:
            QuotaExceeded: There is not enough room, or a cost quota meets an unknown price. Nothing is reserved.
            Unavailable: The database does not take writes.
        """
        if demand.is_empty and not demand.unknown_price:
            return Reservation(self._number(), subject, demand)
        self.lease.start()
        meters = _meters(demand)

        def announce(transaction: Transaction) -> None:
            transaction.buffer(LedgerBatch).announce_reserve(subject, meters, int(self._clock()))

        def reserve(transaction: Transaction) -> Reservation:
            reservation = self.reserve_in(transaction, subject, demand, account)
            if record is not None:
                record(transaction)
            return reservation

        pending = self._queue.submit(reserve, WriteKind.BATCHED, announce)
        try:
            return await pending
        except asyncio.CancelledError:
            # The reservation may exist already or be made later, and nothing else would settle it.
            pending.then(lambda reservation: self.settle(reservation, NOTHING_USED, counts=False))
            raise

    def settle(self, reservation: Reservation, used: Used, *, counts: bool = True) -> PendingWrite[list[Overrun]]:
        """Replace the reserved amount by the used one. The write is queued when this returns, even if the caller ends.

        Args:
            reservation: Each is settled once.
            used: What was really used. An unknown price is charged as the reserved amount.
            counts: Whether it counts as a call in the totals of the day.
        """
        return self.settle_with(
            reservation, lambda transaction: self.settle_in(transaction, reservation, used, counts=counts)
        )

    def settle_with(self, reservation: Reservation, work: Callable[[Transaction], T]) -> PendingWrite[T]:
        """Queue a final write that calls `settle_in` for a reservation."""

        def announce(transaction: Transaction) -> None:
            if reservation.windows:
                transaction.buffer(LedgerBatch).announce_settle(reservation.id, reservation.windows)

        return self._queue.submit(work, WriteKind.FINAL, announce)

    async def close(self) -> None:
        """Free all that is reserved, with the process's lease. Safe to call twice."""
        await asyncio.to_thread(self.lease.stop)

    def reserve_in(
        self,
        transaction: Transaction,
        subject: Subject,
        demand: Demand,
        account: RunAccount | None = None,
    ) -> Reservation:
        """`reserve`, inside the caller's own write; if it raises, it changed nothing."""
        now = int(self._clock())
        batch = transaction.buffer(LedgerBatch)
        quotas = batch.quotas(transaction, subject, now)
        if demand.unknown_price:
            for quota in quotas:
                if quota.meter is Meter.COST:
                    raise refusals.unknown_price(quota, subject.model)
        of_run = _run_limits(account, quotas, demand)
        granted = fit(demand, _least((limit.meter, limit.room) for limit in of_run)) if of_run else demand
        if granted is None:
            raise _run_refusal(of_run, demand, quotas)
        limits = batch.limits(transaction, subject, _meters(granted), now)
        windows = batch.hold(limits, granted.amounts)
        if windows is None:
            granted = _fitting(limits, granted, now)
            windows = batch.hold(limits, granted.amounts)
            if windows is None:
                raise QuotaExceeded
        id_ = self._number()
        if windows:
            batch.open(id_, self.lease.id, windows)
        run_holds = tuple([limit.hold(granted.amounts[limit.meter]) for limit in of_run])
        for hold in run_holds:
            batch.on_discard(hold.release)
        return Reservation(id_, subject, granted, windows, run_holds)

    def settle_in(
        self, transaction: Transaction, reservation: Reservation, used: Used, *, counts: bool = True
    ) -> list[Overrun]:
        """`settle`, inside the caller's own write; see `settle_with`."""
        batch = transaction.buffer(LedgerBatch)
        granted = reservation.granted
        actual = {meter: _actual(meter, reservation, used) for meter in granted.amounts}
        if reservation.windows:
            still_held = batch.end(transaction, reservation.id, reservation.windows)
            for window_id, meter, amount in reservation.windows:
                batch.charge(window_id, amount if window_id in still_held else 0, actual[meter])
        for hold in reservation.run_holds:
            hold.settle(actual[hold.of.meter])
            batch.on_discard(hold.unsettle)
        if counts:
            batch.add_usage(reservation.subject, used.model or granted.model, used, int(self._clock()))
        amounts = granted.amounts
        return [Overrun(meter, amounts[meter], is_) for meter, is_ in actual.items() if is_ > amounts[meter]]

    def _number(self) -> str:
        return f"{self.lease.id}-{next(self._numbers)}"


def _meters(demand: Demand) -> tuple[Meter, ...]:
    return tuple([meter for meter, amount in demand.amounts.items() if amount])


def _run_limits(account: RunAccount | None, quotas: Sequence[Applying], demand: Demand) -> tuple[RunLimit, ...]:
    if account is None:
        return ()
    of_quotas = (
        account.quota(quota.quota_id, quota.meter, quota.limit) for quota in quotas if quota.window is Window.RUN
    )
    return tuple(limit for limit in itertools.chain(account.own(), of_quotas) if demand.amounts.get(limit.meter))


def _fitting(limits: Sequence[Limit], demand: Demand, now: int) -> Demand:
    """Shrink the demand to what the windows have left."""
    granted = fit(demand, _least((limit.meter, max(0, limit.room)) for limit in limits))
    if granted is not None:
        return granted
    for limit in limits:
        if fit(demand, {limit.meter: max(0, limit.room)}) is None:
            raise refusals.used_up(limit.quota, limit.state, _least_need(demand, limit.meter), now)
    raise QuotaExceeded


def _least(rooms: Iterable[tuple[Meter, int]]) -> dict[Meter, int]:
    """The room of each meter, which is that of its tightest limit."""
    least: dict[Meter, int] = {}
    for meter, room in rooms:
        least[meter] = min(room, least.get(meter, room))
    return least


def _least_need(demand: Demand, meter: Meter) -> int:
    """The smallest amount of a meter that satisfies a demand."""
    amount = demand.amounts[meter]
    shrink = demand.shrink
    if shrink is None:
        return amount
    cut = shrink.tokens - min(shrink.floor, shrink.tokens)
    if meter is shrink.meter:
        return amount - cut
    return amount - int(cut * shrink.micro_usd_per_token) if meter is Meter.COST else amount


def _run_refusal(limits: Sequence[RunLimit], demand: Demand, quotas: Sequence[Applying]) -> QuotaExceeded:
    tight = next((limit for limit in limits if fit(demand, {limit.meter: limit.room}) is None), limits[0])
    quota = next((quota for quota in quotas if quota.quota_id == tight.quota_id), None)
    need = _least_need(demand, tight.meter)
    return refusals.used_up_in_run(quota, tight, need)


def _actual(meter: Meter, reservation: Reservation, used: Used) -> int:
    """The used amount of a reserved meter."""
    match meter:
        case Meter.TOKENS:
            return used.tokens
        case Meter.COST:
            return reservation.granted.amounts[meter] if used.cost_micro_usd is None else used.cost_micro_usd
        case _:
            return used.amounts.get(meter, 0)
