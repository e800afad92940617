"""The pure core of quotas as properties, and the whole ledger as a stateful model."""

import asyncio
import math
from collections.abc import Callable
from datetime import UTC, datetime
from typing import ClassVar

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)
from sqlmodel import func, select

from llmasos import tables  # noqa: F401
from llmasos.database.engine import Database
from llmasos.errors import QuotaExceeded
from llmasos.quotas import service
from llmasos.quotas.fit import fit
from llmasos.quotas.ledger import Ledger, Reservation
from llmasos.quotas.meters import Demand, Meter, Scope, Shrink, Subject, Used, Window
from llmasos.quotas.service import QuotaName
from llmasos.quotas.tables import LedgerWindow, ReservationRow
from llmasos.quotas.windows import window_end, window_start

INSTANTS = st.integers(0, 4_102_444_800)
CALENDAR = st.sampled_from([Window.MINUTE, Window.HOUR, Window.DAY, Window.MONTH])


@given(CALENDAR, INSTANTS)
def test_an_instant_is_inside_its_window_and_windows_follow_each_other(window: Window, at: int) -> None:
    start, end = window_start(window, at), window_end(window, at)
    assert end is not None
    assert start <= at < end
    assert window_start(window, start) == window_start(window, end - 1) == start
    assert window_start(window, end) == end


@given(INSTANTS)
def test_windows_are_those_of_the_utc_calendar(at: int) -> None:
    moment = datetime.fromtimestamp(at, UTC)
    day = moment.replace(hour=0, minute=0, second=0)
    assert window_start(Window.DAY, at) == day.timestamp()
    assert window_start(Window.MONTH, at) == day.replace(day=1).timestamp()
    assert window_start(Window.HOUR, at) == moment.replace(minute=0, second=0).timestamp()
    assert window_end(Window.RUN, at) is None


AMOUNTS = st.integers(0, 10_000)


@given(AMOUNTS, AMOUNTS, AMOUNTS, AMOUNTS, AMOUNTS, st.floats(0.001, 500))
def test_what_was_made_to_fit_fits_and_keeps_its_floor(
    prompt: int, answer: int, floor: int, token_room: int, cost_room: int, price: float
) -> None:
    cost = math.ceil((prompt + answer) * price)
    demand = Demand({Meter.TOKENS: prompt + answer, Meter.COST: cost}, shrink=Shrink(answer, floor, price))
    granted = fit(demand, {Meter.TOKENS: token_room, Meter.COST: cost_room})
    if granted is None:
        # Even the smallest acceptable amount does not fit (rounding may cost one token).
        least = min(floor, answer) + 1
        assert prompt + least > token_room or (prompt + least) * price + 1 > cost_room or least > answer
    else:
        assert granted.shrink is not None
        assert granted.amounts[Meter.TOKENS] == prompt + granted.shrink.tokens <= max(token_room, 0)
        assert granted.amounts[Meter.COST] <= cost_room
        assert min(floor, answer) <= granted.shrink.tokens <= answer
        # The reservation covers the real cost of the granted answer.
        assert (prompt + granted.shrink.tokens) * price <= granted.amounts[Meter.COST] + 1


@given(AMOUNTS, AMOUNTS)
def test_without_a_shrink_all_or_nothing_fits(amount: int, room: int) -> None:
    demand = Demand({Meter.TOKENS: amount})
    assert fit(demand, {Meter.TOKENS: room}) == (demand if amount <= room else None)
    assert fit(demand, {}) is demand
    assert fit(demand, {Meter.COST: 0}) is demand


SUBJECTS = [Subject("w", user, app, model) for user in ("u", "v") for app in ("a/b", None) for model in ("m", None)]
NAMES = [("workspace", "w"), ("user", "u"), ("user", "v"), ("app", "a/b"), ("model", "m")]


class LedgerModel(RuleBasedStateMachine):
    """Plain dictionaries beside the ledger that model its content."""

    new_database_url: ClassVar[Callable[[], str]]
    held = Bundle("held")

    @initialize(limits=st.lists(st.tuples(st.sampled_from(NAMES), st.integers(0, 60)), max_size=5))
    def open(self, limits: list) -> None:
        self.database = Database(self.new_database_url())
        # One clock for both: a new quota starts with the use of its current window.
        self.ledger = Ledger(self.database)
        self.settled: list[tuple[Subject, int]] = []
        self.limits: dict[tuple[str, str], int] = {}
        self.used: dict[tuple[str, str], int] = {}
        self.reserved: dict[tuple[str, str], int] = {}
        for name, limit in limits:
            self.set_quota(name, limit)

    @rule(name=st.sampled_from(NAMES), limit=st.integers(0, 60))
    def set_quota(self, name: tuple[str, str], limit: int) -> None:
        scope, scope_id = name
        quota = QuotaName("w", Scope(scope), scope_id, Meter.TOKENS, Window.DAY)
        with self.database.write() as session:
            service.set_quota(session, lambda event, detail: None, quota, limit)
        if name not in self.limits:
            self.used[name] = sum(used for subject, used in self.settled if self.counts(name, subject))
            self.reserved[name] = 0
        self.limits[name] = limit

    def counts(self, name: tuple[str, str], subject: Subject) -> bool:
        """Whether a new quota counts what was used before: these calls named no model, so none by model does."""
        return name in {("workspace", "w"), ("user", subject.user), ("app", subject.app)}

    def applying(self, subject: Subject) -> list[tuple[str, str]]:
        mine = {("workspace", "w"), ("user", subject.user), ("app", subject.app), ("model", subject.model)}
        return [name for name in self.limits if name in mine]

    @rule(target=held, subject=st.sampled_from(SUBJECTS), amount=st.integers(1, 30), floor=st.integers(1, 30))
    def reserve(self, subject: Subject, amount: int, floor: int):
        names = self.applying(subject)
        room = min((self.limits[name] - self.used[name] - self.reserved[name] for name in names), default=amount)
        demand = Demand({Meter.TOKENS: amount}, shrink=Shrink(amount, floor))

        async def reserve() -> Reservation:
            return await self.ledger.reserve(subject, demand)

        try:
            held = asyncio.run(reserve())
        except QuotaExceeded:
            assert room < min(floor, amount)
            return multiple()
        granted = held.granted.amounts[Meter.TOKENS]
        assert granted == min(amount, room) >= min(floor, amount)
        for name in names:
            self.reserved[name] += granted
        return (held, names, granted)

    @rule(entry=consumes(held), share=st.floats(0, 2))
    def settle(self, entry: tuple, share: float) -> None:
        held, names, granted = entry
        used = int(granted * share)
        self.ledger.settle(held, Used(completion_tokens=used)).result()
        self.settled.append((held.subject, used))
        for name in names:
            self.reserved[name] -= granted
            self.used[name] += used

    @rule(
        target=held,
        ended=st.lists(consumes(held), max_size=4),
        share=st.floats(0, 2),
        wanted=st.lists(st.tuples(st.sampled_from(SUBJECTS), st.integers(1, 30)), max_size=4),
    )
    def settle_and_reserve_in_few_commits(self, ended: list, share: float, wanted: list):
        demands = [Demand({Meter.TOKENS: amount}) for _subject, amount in wanted]

        async def at_once() -> list:
            for held, _names, granted in ended:
                self.ledger.settle(held, Used(completion_tokens=int(granted * share)))
            reserves = (self.ledger.reserve(who, it) for (who, _amount), it in zip(wanted, demands, strict=True))
            return await asyncio.gather(*reserves, return_exceptions=True)

        outcomes = asyncio.run(at_once())
        for held, names, granted in ended:
            self.settled.append((held.subject, int(granted * share)))
            for name in names:
                self.reserved[name] -= granted
                self.used[name] += int(granted * share)
        taken = []
        for (subject, amount), outcome in zip(wanted, outcomes, strict=True):
            names = self.applying(subject)
            fits = all(self.limits[name] - self.used[name] - self.reserved[name] >= amount for name in names)
            assert isinstance(outcome, Reservation if fits else QuotaExceeded)
            if fits:
                for name in names:
                    self.reserved[name] += amount
                taken.append((outcome, names, amount))
        return multiple(*taken)

    @invariant()
    def the_tables_say_the_same(self) -> None:
        if not hasattr(self, "database"):
            return
        self.database.write_queue.submit(lambda transaction: None).result()
        with self.database.read() as session:
            rows = session.exec(select(LedgerWindow)).all()
            assert sum(row.used + row.overrun for row in rows) == sum(self.used.values())
            assert sum(row.reserved for row in rows) == sum(self.reserved.values())
            for row in rows:
                of_reservations = select(func.coalesce(func.sum(ReservationRow.amount), 0)).where(
                    ReservationRow.window_id == row.id
                )
                assert session.exec(of_reservations).one() == row.reserved

    def teardown(self) -> None:
        if hasattr(self, "database"):
            self.database.close()


def test_the_ledger_holds_what_the_model_holds(new_database_url: Callable[[], str]) -> None:
    """SECURITY M1."""

    class OnThisDatabase(LedgerModel):
        pass

    OnThisDatabase.new_database_url = staticmethod(new_database_url)
    steps = settings(max_examples=10, stateful_step_count=25, deadline=None)
    run_state_machine_as_test(OnThisDatabase, settings=steps)
