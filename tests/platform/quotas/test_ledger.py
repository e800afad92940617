"""The ledger: reserve in every quota or in none, settle always, free what dead processes hold."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from sqlalchemy.exc import IntegrityError
from sqlmodel import select, text

from llmasos import tables  # noqa: F401
from llmasos.database.engine import Database, utc_now
from llmasos.errors import QuotaExceeded
from llmasos.i18n import render
from llmasos.quotas import service
from llmasos.quotas.ledger import Ledger, Overrun
from llmasos.quotas.meters import NOTHING_USED, Demand, Meter, Scope, Shrink, Subject, Used, Window
from llmasos.quotas.run_limits import RunAccount
from llmasos.quotas.service import QuotaName
from llmasos.quotas.tables import LedgerWindow, Quota, ReservationRow, UsageDay

SUBJECT = Subject("w", "u", "acme/one", "m", "run-1")
NOON = 1_800_000_000 - 1_800_000_000 % 86_400 + 43_200


class Clock:
    """A clock that stands still until it is set."""

    def __init__(self) -> None:
        self.now = float(NOON)

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def ledger(database: Database, clock: Clock) -> AsyncIterator[Ledger]:
    yield Ledger(database, clock)


def set_quota(
    database: Database, limit: int, scope: Scope = Scope.APP, meter: Meter = Meter.TOKENS, window: Window = Window.DAY
) -> QuotaName:
    ids = {Scope.WORKSPACE: "w", Scope.USER: "u", Scope.APP: "acme/one", Scope.MODEL: "m"}
    name = QuotaName("w", scope, ids[scope], meter, window)
    with database.write() as session:
        service.set_quota(session, lambda event, detail: None, name, limit)
    return name


def tokens(amount: int, floor: int | None = None) -> Demand:
    shrink = None if floor is None else Shrink(amount, floor)
    return Demand({Meter.TOKENS: amount}, shrink=shrink, model="m")


def expire_leases(database: Database) -> None:
    """Make leases look as if their processes ran on another machine and did not extend them."""
    with database.write() as session:
        session.connection().exec_driver_sql("UPDATE host_lease SET machine = 'elsewhere', expires_at = 1")


def state(database: Database) -> list[tuple[int, int, int]]:
    with database.read() as session:
        return [(row.used, row.reserved, row.overrun) for row in session.exec(select(LedgerWindow))]


async def test_it_holds_in_every_quota_that_applies(ledger: Ledger, database: Database) -> None:
    for scope in Scope:
        set_quota(database, 100, scope)
    set_quota(database, 5, meter=Meter.INVOCATIONS)
    held = await ledger.reserve(SUBJECT, tokens(60))
    assert len(held.windows) == 4
    assert state(database) == [(0, 60, 0)] * 4
    await ledger.settle(held, Used(prompt_tokens=10, completion_tokens=20))
    assert state(database) == [(30, 0, 0)] * 4
    with database.read() as session:
        assert session.exec(select(ReservationRow)).all() == []


async def test_if_one_quota_has_no_room_nothing_is_reserved(ledger: Ledger, database: Database) -> None:
    set_quota(database, 100, Scope.WORKSPACE)
    set_quota(database, 50, Scope.MODEL, window=Window.HOUR)
    with pytest.raises(QuotaExceeded) as caught:
        await ledger.reserve(SUBJECT, tokens(51))
    assert all(reserved == 0 for _used, reserved, _over in state(database))
    assert caught.value.message == (
        "The quota of model m, 50 tokens an hour, has no room: 0 used, 0 reserved by running calls, "
        "and this call needs 51. It resets at 2027-01-15 13:00 UTC; "
        "to raise it: llmasos quota set --model m --meter tokens --window hour --limit 100"
    )
    assert "重置时间" in render(caught.value.message, "zh")


@pytest.mark.parametrize(("asked", "granted"), [(49, 49), (50, 50), (51, None)])
async def test_exactly_at_one_under_and_one_over(
    ledger: Ledger, database: Database, asked: int, granted: int | None
) -> None:
    set_quota(database, 50)
    if granted is None:
        with pytest.raises(QuotaExceeded):
            await ledger.reserve(SUBJECT, tokens(asked))
    else:
        assert (await ledger.reserve(SUBJECT, tokens(asked))).granted.amounts == {Meter.TOKENS: granted}


async def test_an_answer_shrinks_down_to_its_floor(ledger: Ledger, database: Database) -> None:
    set_quota(database, 100)
    demand = Demand({Meter.TOKENS: 90}, shrink=Shrink(tokens=80, floor=20))
    await ledger.reserve(SUBJECT, tokens(50))
    held = await ledger.reserve(SUBJECT, demand)
    assert held.granted.amounts == {Meter.TOKENS: 50}
    assert held.granted.shrink == Shrink(tokens=40, floor=20)
    with pytest.raises(QuotaExceeded, match="this call needs 30"):
        await ledger.reserve(SUBJECT, demand)


async def test_a_cost_quota_shrinks_the_answer_by_its_price(ledger: Ledger, database: Database) -> None:
    set_quota(database, 1000, meter=Meter.COST)
    demand = Demand({Meter.TOKENS: 500, Meter.COST: 1500}, shrink=Shrink(400, 10, micro_usd_per_token=3.0))
    held = await ledger.reserve(SUBJECT, demand)
    assert held.granted.shrink is not None
    assert held.granted.shrink.tokens == 233
    assert held.granted.amounts == {Meter.TOKENS: 333, Meter.COST: 999}


async def test_an_unknown_price_is_refused_by_a_cost_quota_and_by_no_other(ledger: Ledger, database: Database) -> None:
    set_quota(database, 1000)
    demand = Demand({Meter.TOKENS: 10}, unknown_price=True, model="m")
    await ledger.settle(await ledger.reserve(SUBJECT, demand), Used(prompt_tokens=5, cost_micro_usd=None, model="m"))
    with database.read() as session:
        assert session.exec(select(UsageDay)).one().unpriced_calls == 1
    set_quota(database, 1_000_000, Scope.USER, Meter.COST, Window.MONTH)
    with pytest.raises(QuotaExceeded, match="llmasos models add") as caught:
        await ledger.reserve(SUBJECT, demand)
    assert "llmasos quota remove --user u --meter cost_micro_usd --window month" in caught.value.message


async def test_what_was_reserved_is_charged_if_the_price_turns_out_unknown(ledger: Ledger, database: Database) -> None:
    set_quota(database, 1000, meter=Meter.COST)
    held = await ledger.reserve(SUBJECT, Demand({Meter.COST: 70}))
    await ledger.settle(held, Used(cost_micro_usd=None))
    assert state(database) == [(70, 0, 0)]


async def test_an_overrun_is_charged_in_full_and_stops_the_next_call(ledger: Ledger, database: Database) -> None:
    set_quota(database, 100)
    held = await ledger.reserve(SUBJECT, tokens(50))
    assert await ledger.settle(held, Used(completion_tokens=500)) == [Overrun(Meter.TOKENS, 50, 500)]
    assert state(database) == [(50, 0, 450)]
    with pytest.raises(QuotaExceeded, match="500 used"):
        await ledger.reserve(SUBJECT, tokens(1))


async def test_a_window_ends_and_the_next_begins_empty(ledger: Ledger, database: Database, clock: Clock) -> None:
    set_quota(database, 50)
    held = await ledger.reserve(SUBJECT, tokens(50))
    clock.now += 43_199
    with pytest.raises(QuotaExceeded):
        await ledger.reserve(SUBJECT, tokens(1))
    clock.now += 1
    await ledger.reserve(SUBJECT, tokens(50))
    # What was reserved yesterday counts as used yesterday.
    await ledger.settle(held, Used(prompt_tokens=50))
    assert sorted(state(database)) == [(0, 50, 0), (50, 0, 0)]


async def test_a_quota_applies_to_the_next_call_in_every_process(ledger: Ledger, database: Database) -> None:
    await ledger.reserve(SUBJECT, tokens(1000))
    with Database(database.url) as elsewhere:
        set_quota(elsewhere, 10)
    with pytest.raises(QuotaExceeded):
        await ledger.reserve(SUBJECT, tokens(11))
    set_quota(database, 11)
    held = await ledger.reserve(SUBJECT, tokens(11))
    set_quota(database, 5)
    await ledger.settle(held, Used(prompt_tokens=6))
    with pytest.raises(QuotaExceeded):
        await ledger.reserve(SUBJECT, tokens(1))
    assert state(database) == [(6, 0, 0)]


async def test_a_quota_that_is_removed_while_a_call_holds_it_hurts_nobody(ledger: Ledger, database: Database) -> None:
    name = set_quota(database, 50)
    held = await ledger.reserve(SUBJECT, tokens(50))
    with database.write() as session:
        service.remove_quota(session, lambda event, detail: None, name)
    set_quota(database, 50)
    await ledger.reserve(SUBJECT, tokens(20))
    await ledger.settle(held, Used(prompt_tokens=50))
    assert state(database) == [(0, 20, 0)]


async def test_a_run_has_limits_of_its_own(ledger: Ledger, database: Database) -> None:
    set_quota(database, 100, window=Window.RUN)
    account = RunAccount({Meter.TOKENS: 150})
    inner = RunAccount({Meter.TOKENS: 60}, account)
    held = await ledger.reserve(SUBJECT, tokens(50), inner)
    with pytest.raises(QuotaExceeded, match="10 are left"):
        await ledger.reserve(SUBJECT, tokens(20), inner)
    await ledger.settle(held, Used(prompt_tokens=40))
    assert (await ledger.reserve(SUBJECT, tokens(80, floor=1), account)).granted.amounts == {Meter.TOKENS: 60}
    with pytest.raises(QuotaExceeded, match="--window run"):
        await ledger.reserve(SUBJECT, tokens(1), account)
    # The next run starts from zero.
    await ledger.reserve(SUBJECT, tokens(100), RunAccount({}))


async def test_a_changed_quota_applies_from_the_next_call_on(ledger: Ledger, database: Database) -> None:
    set_quota(database, 50)
    for _ in range(3):
        await ledger.settle(await ledger.reserve(SUBJECT, tokens(10)), Used(prompt_tokens=10))
    set_quota(database, 35)
    with pytest.raises(QuotaExceeded, match="35 tokens a day"):
        await ledger.reserve(SUBJECT, tokens(10))
    set_quota(database, 40)
    await ledger.settle(await ledger.reserve(SUBJECT, tokens(10)), Used(prompt_tokens=10))
    assert state(database) == [(40, 0, 0)]


async def test_a_cancelled_reserve_holds_nothing(ledger: Ledger, database: Database) -> None:
    set_quota(database, 50)
    for _ in range(20):
        # A reserve waits while another process writes: only then can it be cancelled.
        with database.gate:
            task = asyncio.create_task(ledger.reserve(SUBJECT, tokens(50)))
            await asyncio.sleep(0)
            task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    database.write_queue.submit(lambda transaction: None).result()
    await asyncio.sleep(0.05)
    database.write_queue.submit(lambda transaction: None).result()
    assert state(database) == [(0, 0, 0)]


async def test_the_lease_of_a_dead_process_is_swept_and_its_late_settlement_is_charged(
    ledger: Ledger, database: Database, clock: Clock
) -> None:
    set_quota(database, 100)
    with Database(database.url) as elsewhere:
        other = Ledger(elsewhere, clock)
        held = await other.reserve(SUBJECT, tokens(80))
        assert state(database) == [(0, 80, 0)]
        database.write_queue.submit(ledger.lease.sweep).result()
        assert state(database) == [(0, 80, 0)], "its process lives"
        expire_leases(database)
        database.write_queue.submit(ledger.lease.sweep).result()
        assert state(database) == [(0, 0, 0)]
        # It was only asleep: what it used in the meantime still counts, without violating the limit's constraint.
        await ledger.reserve(SUBJECT, tokens(50))
        await other.settle(held, Used(prompt_tokens=70))
        assert state(database) == [(50, 50, 20)]


async def test_the_schema_itself_refuses_to_go_over(ledger: Ledger, database: Database) -> None:
    set_quota(database, 50)
    await ledger.reserve(SUBJECT, tokens(50))
    for change in ("used = 1", "reserved = 51", "reserved = -1", "overrun = -1"):
        with pytest.raises(IntegrityError), database.write() as session:
            session.connection().execute(text(f"UPDATE ledger_window SET {change}"))


async def test_totals_are_kept_without_any_quota(ledger: Ledger, database: Database) -> None:
    for _ in range(3):
        held = await ledger.reserve(SUBJECT, tokens(50))
        await ledger.settle(held, Used(prompt_tokens=1, completion_tokens=2, cost_micro_usd=3, model="m"))
    await ledger.settle(await ledger.reserve(SUBJECT, tokens(50)), NOTHING_USED, counts=False)
    with database.read() as session:
        row = session.exec(select(UsageDay)).one()
        assert (row.calls, row.prompt_tokens, row.completion_tokens, row.cost_micro_usd) == (3, 3, 6, 9)
        assert session.exec(select(Quota)).all() == []


def test_totals_are_read_by_day_app_and_model(database: Database) -> None:
    with database.write() as session:
        for app, model, user in (("a/b", "m", "u"), ("a/b", "m", "v"), ("", "n", "u")):
            session.add(
                UsageDay(workspace_id="w", user_id=user, app_id=app, model=model, day=utc_now().date(), calls=2)
            )
    with database.read() as session:
        found = service.usage(session, "w")
        assert [(each.app_id, each.model, each.calls) for each in found] == [("", "n", 2), ("a/b", "m", 4)]
        assert [each.calls for each in service.usage(session, "w", user="v", app="a/b")] == [2]
        assert service.usage(session, "other") == []


async def test_what_is_settled_after_its_lease_ended_is_charged_to_the_room_that_is_left(
    ledger: Ledger, database: Database, clock: Clock
) -> None:
    set_quota(database, 100)
    await ledger.settle(await ledger.reserve(SUBJECT, tokens(80)), Used(prompt_tokens=80))
    held = await ledger.reserve(SUBJECT, tokens(20))
    with Database(database.url) as elsewhere:
        expire_leases(database)
        elsewhere.write_queue.submit(Ledger(elsewhere, clock).lease.sweep).result()
    assert state(database) == [(80, 0, 0)]
    await ledger.settle(held, Used(prompt_tokens=30))
    assert state(database) == [(100, 0, 10)]
    with database.read() as session:
        assert session.exec(select(ReservationRow)).all() == []


async def test_what_the_own_process_frees_is_not_remembered_as_reserved(ledger: Ledger, database: Database) -> None:
    set_quota(database, 100)
    held = await ledger.reserve(SUBJECT, tokens(100))
    ledger.lease.stop()
    assert state(database) == [(0, 0, 0)]
    await ledger.settle(held, Used(prompt_tokens=30))
    assert state(database) == [(30, 0, 0)]
    await ledger.reserve(SUBJECT, tokens(70))


@pytest.mark.parametrize(("said", "counted"), [(10**30, 1 << 48), (-5, 0)])
async def test_a_provider_that_says_nonsense_harms_no_call_that_shares_its_commit(
    ledger: Ledger, database: Database, said: int, counted: int
) -> None:
    set_quota(database, 1000)
    first, second = await ledger.reserve(SUBJECT, tokens(50)), await ledger.reserve(SUBJECT, tokens(50))
    settled = [
        ledger.settle(first, Used(completion_tokens=said, model="m")),
        ledger.settle(second, Used(prompt_tokens=7, model="m")),
    ]
    for each in settled:
        await each
    ((used, reserved, overrun),) = state(database)
    assert (used + overrun, reserved) == (counted + 7, 0)
    with database.read() as session:
        row = session.exec(select(UsageDay)).one()
        assert (row.calls, row.prompt_tokens, row.completion_tokens) == (2, 7, counted)
