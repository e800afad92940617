"""The ledger: what may be used, what is held for calls that run, what was used.

A reservation holds in every quota that applies, or in none, in one write transaction: no number of processes at once
can spend past a limit. What is settled later than the host lives is freed by the lease of the process that held it.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from llmasos.database.engine import Database
from llmasos.database.leases import Lease
from llmasos.database.writer import Pending, Transaction
from llmasos.errors import QuotaExceeded, Unavailable
from llmasos.quotas import book, refusals, repository
from llmasos.quotas.book import Book, Holds, Limit
from llmasos.quotas.credit import AT_ONCE_SECONDS, Credit, Credits, affordable, key_of
from llmasos.quotas.fit import fit
from llmasos.quotas.meters import NOTHING_USED, Demand, Meter, Subject, Used, Window
from llmasos.quotas.repository import Applying
from llmasos.quotas.runs import Part, Pot, RunAccount


@dataclass(frozen=True, slots=True)
class Held:
    """A reservation: what a call may use. `granted` is the demand, or what of it there was room for."""

    id: str
    subject: Subject
    granted: Demand
    windows: Holds = ()
    pots: tuple[Part, ...] = ()
    drawn: bool = False
    """Whether it is a part of the reservation with this id."""


@dataclass(frozen=True, slots=True)
class Overrun:
    """A provider returned more than was reserved for it."""

    meter: Meter
    reserved: int
    used: int


class Ledger:
    """Reserves before a call and settles after it, across every quota that applies."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        self.lease = Lease(database, clock)
        self.lease.on_release(repository.release_lease)
        self._database = database
        self._writer = database.writer
        self._clock = clock
        self._numbers = itertools.count()
        self._credits = Credits()
        self._looks_after: tuple[asyncio.AbstractEventLoop, asyncio.TimerHandle] | None = None

    async def reserve(
        self,
        subject: Subject,
        demand: Demand,
        account: RunAccount | None = None,
        record: Callable[[Transaction], object] | None = None,
    ) -> Held:
        """Hold a demand in every quota that applies, or as much of its answer as fits.

        Args:
            subject: Who it is charged to.
            demand: The most that it may use.
            account: The limits of the run that it belongs to.
            record: A buffered write that goes with it: into its commit, or, where that was made ahead, into the next
                of this process, before anything that is written later.

        Raises:
            QuotaExceeded: There is not enough room, or a cost quota meets an unknown price. Nothing is held.
            Unavailable: The database does not take writes.
        """
        if demand.is_empty and not demand.unknown_price:
            return Held(self._number(), subject, demand)
        self.lease.start()
        key = key_of(subject, demand)
        credit = self._credits.find(key)
        if credit is not None:
            windows = self._database.gate.while_empty(lambda: self._draw(credit, demand, account))
            if windows is not None:
                if record is not None:
                    self._writer.post(record, hot=True, buffered=True)
                return Held(credit.id, subject, demand, *windows, drawn=True)
            self._end(credit)
        calls = self._credits.calls_ahead(key)

        def hold(transaction: Transaction) -> tuple[Held, Credit | None]:
            both = self._reserve_ahead(transaction, subject, demand, account, calls)
            if record is not None:
                record(transaction)
            return both

        pending = self._writer.submit(hold, hot=True, buffered=True)
        ahead: Credit | None = None
        try:
            held, ahead = await pending
        except asyncio.CancelledError:
            # It may be held already, or be held in a moment, and nobody will settle it.
            pending.then(lambda both: self._give_back(*both))
            raise
        finally:
            if (before := self._credits.keep(key, ahead)) is not None:
                self._end(before)
        if ahead is not None:
            self._look_after_credits_soon()
        return held

    def settle(self, held: Held, used: Used, *, counts: bool = True) -> Pending[list[Overrun]]:
        """Turn what was held into what was used. It is queued when this returns, whatever becomes of the caller.

        Args:
            held: The reservation; settled once.
            used: What was really used. An unknown price is charged as what was reserved for it.
            counts: Whether it is a call in the totals of the day.
        """
        return self._writer.submit(
            lambda transaction: self.settle_in(transaction, held, used, counts=counts),
            essential=True,
            hot=True,
            buffered=True,
        )

    async def close(self) -> None:
        """Give back all that is held, with the process's lease. Safe to call twice."""
        if self._looks_after is not None:
            self._looks_after[1].cancel()
            self._looks_after = None
        self._credits.clear()
        await asyncio.to_thread(self.lease.stop)

    def reserve_in(
        self,
        transaction: Transaction,
        subject: Subject,
        demand: Demand,
        account: RunAccount | None = None,
    ) -> Held:
        """`reserve`, inside a write of the caller's; where it raises, it changed nothing."""
        now = int(self._clock())
        quotas = repository.applying(transaction, subject, now)
        if demand.unknown_price:
            for quota in quotas:
                if quota.meter is Meter.COST:
                    raise refusals.unknown_price(quota, subject.model)
        pots = _pots(account, quotas, demand)
        granted = fit(demand, _least((pot.meter, pot.room) for pot in pots)) if pots else demand
        if granted is None:
            raise _run_refusal(pots, demand, quotas)
        limits = book.limits(transaction, quotas, subject, granted, now)
        windows = transaction.buffer(Book).hold(limits, granted.amounts)
        if windows is None:
            granted = _fitting(limits, granted, now)
            windows = transaction.buffer(Book).hold(limits, granted.amounts)
            if windows is None:
                raise QuotaExceeded
        id_ = self._number()
        if windows:
            id_ = transaction.buffer(Book).open(transaction, id_, self.lease.id, windows)
        parts = tuple([pot.hold(granted.amounts[pot.meter]) for pot in pots])
        return Held(id_, subject, granted, windows, parts)

    def settle_in(self, transaction: Transaction, held: Held, used: Used, *, counts: bool = True) -> list[Overrun]:
        """`settle`, inside a write of the caller's."""
        actual = {meter: _actual(meter, held, used) for meter in held.granted.amounts}
        for part in held.pots:
            part.end(actual[part.pot.meter])
        if held.windows:
            changes = transaction.buffer(Book)
            end = changes.draw if held.drawn else changes.end
            still = end(transaction, held.id, self.lease.id, held.windows)
            for window_id, meter, amount in held.windows:
                changes.charge(transaction, window_id, amount if window_id in still else 0, actual[meter])
        if counts:
            model = used.model or held.granted.model
            transaction.buffer(Book).add_usage(held.subject, model, used, int(self._clock()))
        amounts = held.granted.amounts
        return [Overrun(meter, amounts[meter], is_) for meter, is_ in actual.items() if is_ > amounts[meter]]

    def _draw(
        self, credit: Credit, demand: Demand, account: RunAccount | None
    ) -> tuple[Holds, tuple[Part, ...]] | None:
        """Hold in the windows and the pots, from what is reserved ahead; None where that does not do."""
        of_now = int(self._clock()) // 60, self._database.sessions_that_wrote
        if (credit.minute, credit.sessions_that_wrote) != of_now or demand.unknown_price:
            return None
        pots = _pots(account, credit.quotas, demand)
        if any(pot.room < demand.amounts[pot.meter] for pot in pots):
            return None
        windows = credit.draw(demand.amounts)
        if windows is None:
            return None
        return windows, tuple([pot.hold(demand.amounts[pot.meter]) for pot in pots])

    def _reserve_ahead(
        self,
        transaction: Transaction,
        subject: Subject,
        demand: Demand,
        account: RunAccount | None,
        calls: int,
    ) -> tuple[Held, Credit | None]:
        """`reserve_in`, and a credit for so many calls more, where there is plenty of room."""
        held = self.reserve_in(transaction, subject, demand, account)
        if not calls or held.granted.amounts != demand.amounts or demand.unknown_price:
            return held, None
        now = int(self._clock())
        quotas = repository.applying(transaction, subject, now)
        limits = book.limits(transaction, quotas, subject, demand, now)
        if not affordable(limits, demand.amounts, calls):
            return held, None
        changes = transaction.buffer(Book)
        windows = changes.hold(limits, {meter: calls * amount for meter, amount in demand.amounts.items()}) or ()
        id_ = changes.open(transaction, self._number(), self.lease.id, windows) if windows else self._number()
        return held, Credit(id_, now // 60, self._database.sessions_that_wrote, quotas, windows, calls)

    def _end(self, credit: Credit) -> None:
        """Give back what is left of a credit, before what is submitted next."""

        def end(transaction: Transaction) -> None:
            changes, rest = transaction.buffer(Book), credit.rest()
            still = changes.draw(transaction, credit.id, self.lease.id, rest)
            for window_id, _meter, amount in rest:
                if window_id in still:
                    changes.charge(transaction, window_id, amount, 0)

        self._writer.post(end, hot=True, buffered=True)

    def _give_back(self, held: Held, credit: Credit | None) -> None:
        self.settle(held, NOTHING_USED, counts=False)
        if credit is not None:
            self._end(credit)

    def _look_after_credits_soon(self) -> None:
        loop = asyncio.get_running_loop()
        # A loop that was closed forgot its timers.
        if self._looks_after is None or self._looks_after[0] is not loop:
            self._looks_after = loop, loop.call_later(AT_ONCE_SECONDS, self._look_after_credits)

    def _look_after_credits(self) -> None:
        """Give back the credits that nobody draws on."""
        for credit in self._credits.idle():
            # Where the writer is closed, it goes with the lease.
            with suppress(Unavailable):
                self._end(credit)
        self._looks_after = None
        if self._credits:
            self._look_after_credits_soon()

    def _number(self) -> str:
        return f"{self.lease.id}-{next(self._numbers)}"


def _pots(account: RunAccount | None, quotas: Sequence[Applying], demand: Demand) -> tuple[Pot, ...]:
    if account is None:
        return ()
    of_quotas = (
        account.quota(quota.quota_id, quota.meter, quota.limit) for quota in quotas if quota.window is Window.RUN
    )
    return tuple(pot for pot in itertools.chain(account.own(), of_quotas) if demand.amounts.get(pot.meter))


def _fitting(limits: Sequence[Limit], demand: Demand, now: int) -> Demand:
    """The demand cut to what the windows have left."""
    granted = fit(demand, _least((limit.meter, max(0, limit.room)) for limit in limits))
    if granted is not None:
        return granted
    for limit in limits:
        if fit(demand, {limit.meter: max(0, limit.room)}) is None:
            raise refusals.used_up(limit.quota, limit.state, _least_need(demand, limit.meter), now)
    raise QuotaExceeded


def _least(rooms: Iterable[tuple[Meter, int]]) -> dict[Meter, int]:
    """The room of each meter: that of its tightest limit."""
    least: dict[Meter, int] = {}
    for meter, room in rooms:
        least[meter] = min(room, least.get(meter, room))
    return least


def _least_need(demand: Demand, meter: Meter) -> int:
    """The least of a meter that would do for a demand."""
    amount = demand.amounts[meter]
    shrink = demand.shrink
    if shrink is None:
        return amount
    cut = shrink.tokens - min(shrink.floor, shrink.tokens)
    if meter is shrink.meter:
        return amount - cut
    return amount - int(cut * shrink.micro_usd_per_token) if meter is Meter.COST else amount


def _run_refusal(pots: Sequence[Pot], demand: Demand, quotas: Sequence[Applying]) -> QuotaExceeded:
    tight = next((pot for pot in pots if fit(demand, {pot.meter: pot.room}) is None), pots[0])
    quota = next((quota for quota in quotas if quota.quota_id == tight.quota_id), None)
    need = _least_need(demand, tight.meter)
    return refusals.used_up_in_run(quota, tight, need)


def _actual(meter: Meter, held: Held, used: Used) -> int:
    """What was used of a meter that was reserved."""
    match meter:
        case Meter.TOKENS:
            return used.tokens
        case Meter.COST:
            return held.granted.amounts[meter] if used.cost_micro_usd is None else used.cost_micro_usd
        case _:
            return used.amounts.get(meter, 0)
