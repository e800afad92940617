"""What is reserved ahead: fewer commits, and never a unit more, nor a quota unheard of."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from sqlmodel import SQLModel, col, func, select

from llmasos import tables  # noqa: F401
from llmasos.database.engine import Database
from llmasos.errors import QuotaExceeded
from llmasos.quotas import credit, service
from llmasos.quotas import ledger as ledgers
from llmasos.quotas.credit import MOST_CALLS
from llmasos.quotas.doctor import check
from llmasos.quotas.ledger import Held, Ledger
from llmasos.quotas.meters import Demand, Meter, Scope, Subject, Used, Window
from llmasos.quotas.runs import RunAccount
from llmasos.quotas.service import QuotaName
from llmasos.quotas.tables import LedgerWindow, Reservation

SUBJECT = Subject("w", "u", "acme/one", "m")
NOON = 1_800_000_000.0
PLENTY = 1_000_000
USED = Used(prompt_tokens=3, completion_tokens=4)


# So long that a busy machine does not pass it between two calls.
AT_ONCE_SECONDS = 0.25


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (credit, ledgers):
        monkeypatch.setattr(module, "AT_ONCE_SECONDS", AT_ONCE_SECONDS)


class Clock:
    now = NOON

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with Database(f"sqlite:///{tmp_path}/t.db") as database:
        SQLModel.metadata.create_all(database.engine)
        yield database


@pytest.fixture
async def ledger(database: Database, clock: Clock) -> AsyncIterator[Ledger]:
    ledger = Ledger(database, clock)
    yield ledger
    await ledger.close()


def set_quota(database: Database, limit: int, scope: Scope = Scope.APP, window: Window = Window.DAY) -> None:
    ids = {Scope.WORKSPACE: "w", Scope.USER: "u", Scope.APP: "acme/one", Scope.MODEL: "m"}
    with database.write() as session:
        name = QuotaName("w", scope, ids[scope], Meter.TOKENS, window)
        service.set_quota(session, lambda event, detail: None, name, limit)


def tokens(amount: int) -> Demand:
    return Demand({Meter.TOKENS: amount}, model="m")


def state(database: Database) -> list[tuple[int, int, int]]:
    with database.read() as session:
        return [(row.used, row.reserved, row.overrun) for row in session.exec(select(LedgerWindow))]


def rows(database: Database) -> int:
    with database.read() as session:
        return session.exec(select(func.count(col(Reservation.window_id)))).one()


def adds_up(database: Database) -> bool:
    with database.read() as session:
        return check(session, int(NOON)) == []


async def calls(ledger: Ledger, amounts: list[int]) -> list[Held]:
    """So many calls, one after another; what they held, of which nothing is waited for."""
    made = []
    for amount in amounts:
        held = await ledger.reserve(SUBJECT, tokens(amount))
        ledger.settle(held, USED)
        made.append(held)
    return made


async def test_calls_that_follow_at_once_draw_on_one_reservation(ledger: Ledger, database: Database) -> None:
    for scope in Scope:
        set_quota(database, PLENTY, scope)
    made = await calls(ledger, [50, 60, 40, *[45] * 20])
    drawn = [held.drawn for held in made]
    # One for itself, then one and a credit for one more, then one for three, then for seven.
    assert drawn[:9] == [False, False, True, False, True, True, True, False, True]
    await ledger.settle(await ledger.reserve(SUBJECT, tokens(10)), USED)
    assert adds_up(database)
    assert {used for used, _reserved, _overrun in state(database)} == {7 * 24}


async def test_what_nobody_draws_on_is_given_back(ledger: Ledger, database: Database) -> None:
    set_quota(database, PLENTY)
    await calls(ledger, [50] * 6)
    await asyncio.sleep(4 * AT_ONCE_SECONDS)
    assert state(database) == [(42, 0, 0)]
    assert rows(database) == 0


async def test_near_a_limit_every_unit_is_there_for_whoever_asks(ledger: Ledger, database: Database) -> None:
    set_quota(database, 100)
    for _ in range(10):
        held = await ledger.reserve(SUBJECT, tokens(10))
        assert not held.drawn
    with pytest.raises(QuotaExceeded):
        await ledger.reserve(SUBJECT, tokens(1))
    assert state(database) == [(0, 100, 0)]


async def test_a_credit_is_a_small_part_of_the_room(ledger: Ledger, database: Database) -> None:
    set_quota(database, 64 * 50)
    for _ in range(12):
        await ledger.reserve(SUBJECT, tokens(50))
        assert state(database)[0][1] <= 13 * 50 + 64 * 50 / 64


async def test_a_quota_that_is_set_in_this_process_holds_for_the_next_call(ledger: Ledger, database: Database) -> None:
    set_quota(database, PLENTY)
    assert (await calls(ledger, [10] * 6))[-1].drawn
    set_quota(database, 20, Scope.USER)
    await ledger.reserve(SUBJECT, tokens(10))
    await ledger.reserve(SUBJECT, tokens(10))
    with pytest.raises(QuotaExceeded):
        await ledger.reserve(SUBJECT, tokens(10))


@pytest.mark.parametrize("quotas", [[PLENTY], []], ids=["a quota", "none"])
async def test_a_quota_that_another_process_sets_holds_soon(
    ledger: Ledger, database: Database, quotas: list[int]
) -> None:
    for limit in quotas:
        set_quota(database, limit)
    await calls(ledger, [10] * 6)
    with Database(database.url) as elsewhere:
        set_quota(elsewhere, 0, Scope.USER)
    more = 0
    with pytest.raises(QuotaExceeded):
        while more < 50:
            await ledger.reserve(SUBJECT, tokens(10))
            more += 1
    assert more <= MOST_CALLS


async def test_another_window_begins_without_the_credit_of_the_last(
    ledger: Ledger, database: Database, clock: Clock
) -> None:
    set_quota(database, PLENTY, window=Window.MINUTE)
    assert (await calls(ledger, [10] * 6))[-1].drawn
    clock.now += 60
    assert not (await ledger.reserve(SUBJECT, tokens(10))).drawn
    await asyncio.sleep(4 * AT_ONCE_SECONDS)
    assert sorted(state(database)) == [(0, 10, 0), (42, 0, 0)]


async def test_the_limits_of_a_run_hold_where_a_credit_is_drawn_on(ledger: Ledger, database: Database) -> None:
    set_quota(database, PLENTY)
    account = RunAccount({Meter.TOKENS: 80})
    for _ in range(8):
        await ledger.reserve(SUBJECT, tokens(10), account)
    with pytest.raises(QuotaExceeded):
        await ledger.reserve(SUBJECT, tokens(10), account)
    # Another run of the same app is not held back by it.
    await ledger.reserve(SUBJECT, tokens(10), RunAccount({Meter.TOKENS: 80}))


async def test_a_call_that_uses_more_than_it_drew_is_charged_in_full(ledger: Ledger, database: Database) -> None:
    set_quota(database, PLENTY)
    held = (await calls(ledger, [10] * 5))[-1]
    again = await ledger.reserve(SUBJECT, tokens(10))
    assert held.drawn and again.drawn
    overruns = await ledger.settle(again, Used(completion_tokens=25))
    assert [(each.reserved, each.used) for each in overruns] == [(10, 25)]
    await asyncio.sleep(4 * AT_ONCE_SECONDS)
    assert state(database) == [(5 * 7 + 10, 0, 15)]


async def test_a_quota_that_is_removed_under_a_credit_leaves_nothing_behind(ledger: Ledger, database: Database) -> None:
    set_quota(database, PLENTY)
    set_quota(database, PLENTY, Scope.USER)
    await calls(ledger, [10] * 5)
    again = await ledger.reserve(SUBJECT, tokens(10))
    assert again.drawn
    with database.write() as session:
        name = QuotaName("w", Scope.USER, "u", Meter.TOKENS, Window.DAY)
        service.remove_quota(session, lambda event, detail: None, name)
    await ledger.settle(again, USED)
    await asyncio.sleep(4 * AT_ONCE_SECONDS)
    assert state(database) == [(42, 0, 0)]
    assert rows(database) == 0


async def test_the_credit_of_a_process_that_died_is_freed_whole(database: Database, clock: Clock) -> None:
    set_quota(database, PLENTY)
    dead = Ledger(database, clock)
    await calls(dead, [10] * 6)
    outstanding = await dead.reserve(SUBJECT, tokens(10))
    assert outstanding.drawn
    assert state(database)[0][1] > 0
    await dead.close()
    assert state(database) == [(42, 0, 0)]
    assert rows(database) == 0
    assert adds_up(database)


async def test_reservations_that_are_cancelled_leave_no_credit_behind(ledger: Ledger, database: Database) -> None:
    set_quota(database, PLENTY)
    for _ in range(30):
        await calls(ledger, [10] * 3)
        task = asyncio.create_task(ledger.reserve(SUBJECT, tokens(10)))
        await asyncio.sleep(0)
        task.cancel()
        outcome = (await asyncio.gather(task, return_exceptions=True))[0]
        if isinstance(outcome, Held):
            ledger.settle(outcome, USED)
    await asyncio.sleep(4 * AT_ONCE_SECONDS)
    assert state(database)[0][1] == 0
    assert rows(database) == 0


async def test_many_at_once_and_apart_add_up(ledger: Ledger, database: Database) -> None:
    for scope in Scope:
        set_quota(database, PLENTY, scope)
    done = 0

    async def one(number: int) -> None:
        nonlocal done
        for turn in range(30):
            held = await ledger.reserve(SUBJECT, tokens(20 + (number * turn) % 13))
            if turn % 7 == number % 7:
                await asyncio.sleep(0.001)
            ledger.settle(held, USED)
            done += 1

    for together in (1, 5, 1, 20, 1):
        await asyncio.gather(*(one(number) for number in range(together)))
    await asyncio.sleep(4 * AT_ONCE_SECONDS)
    assert set(state(database)) == {(7 * done, 0, 0)}
    assert rows(database) == 0
