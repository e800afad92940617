"""12-5: what is kept of invocations, for how long, and by which key; on either database."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from sqlmodel import select

from llmasos.database.engine import Database, utc_now
from llmasos.database.transaction import Transaction
from llmasos.errors import AppFailed, Unavailable
from llmasos.invocations import content, idempotency
from llmasos.invocations.idempotency import IdempotencyKeyBusy, IdempotencyKeyReused, KeyedRequest
from llmasos.invocations.tables import IdempotencyKeyRow, InvocationContentRow, InvocationEventsRow
from llmasos.kernel.invocation import Event, Invocation, Principal
from llmasos.secrets import KeyChanged, Sealer
from llmasos.testing import ANY_KEY, SmallHost, small_host

ME = Principal("w", "u")
SEALER = Sealer(lambda: ANY_KEY)


@pytest.fixture
async def host(database: Database) -> AsyncIterator[SmallHost]:
    async with small_host(database) as host:
        yield host


async def run(host: SmallHost, chunks: int = 0, output: str = '"out"', who: Principal = ME) -> str:
    async with host.invocations.begin(Invocation(who, None, "act", input_json='{"in":1}')) as invocation:
        for number in range(chunks):
            await invocation.emit(Event("chunk", f"{number} é\0"))
        invocation.output_json = output
    return invocation.id


def contents(database: Database) -> set[str]:
    with database.read() as session:
        return set(session.exec(select(InvocationContentRow.invocation_id)))


def events(database: Database) -> set[str]:
    with database.read() as session:
        return set(session.exec(select(InvocationEventsRow.invocation_id)))


def expire(database: Database) -> None:
    with database.write() as session:
        content.expire(Transaction.of(session))


def age(database: Database, id_: str, days: float) -> None:
    with database.write() as session:
        at = utc_now() - timedelta(days=days)
        transaction = Transaction.of(session)
        for table, column, key in (
            ("invocation_content", "kept_at", "invocation_id"),
            ("invocation", "ended_at", "id"),
        ):
            transaction.run(f"UPDATE {table} SET {column} = ? WHERE {key} = ?", transaction.instant(at), id_)


async def test_what_is_old_goes_and_what_is_not_stays(host: SmallHost, database: Database) -> None:
    old, stale, new = [await run(host, 2) for _ in range(3)]
    age(database, old, 31)
    age(database, stale, 29)
    expire(database)
    assert contents(database) == {stale, new}
    assert events(database) == {new}


async def test_a_workspace_keeps_for_as_long_as_it_chose(host: SmallHost, database: Database) -> None:
    mine, theirs = await run(host, 1), await run(host, 1, who=Principal("other"))
    for id_ in (mine, theirs):
        age(database, id_, 3)
    with database.write() as session:
        content.set_retention_days(session, ME, 2)
    assert contents(database) == {theirs}
    with database.write() as session:
        content.set_retention_days(session, Principal("other"), 0)
    assert contents(database) == events(database) & {theirs} == set()
    await run(host, 1, who=Principal("other"))
    assert contents(database) == set()
    kept = await run(host, 1)
    assert contents(database) == {kept}


async def test_a_workspace_that_keeps_too_much_loses_its_oldest(
    host: SmallHost, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [await run(host, output=f'"{"x" * 1000}"') for _ in range(4)]
    for number, id_ in enumerate(ids):
        age(database, id_, 5 - number)
    monkeypatch.setattr(content, "MAX_WORKSPACE_BYTES", 2500)
    expire(database)
    assert contents(database) == set(ids[2:])


async def test_what_is_larger_than_is_kept_leaves_the_input_out_first(
    host: SmallHost, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(content, "MAX_CONTENT_BYTES", 8)
    id_ = await run(host, output='"12345"')
    with database.read() as session:
        found = content.read(session, SEALER, id_)
    assert found is not None
    assert (found.input, found.output) == (None, "12345")


async def test_content_belongs_to_its_invocation_and_its_key(host: SmallHost, database: Database) -> None:
    """A row that was given to another invocation does not open."""
    one, other = await run(host), await run(host)
    with database.write() as session:
        transaction = Transaction.of(session)
        transaction.run("DELETE FROM invocation_content WHERE invocation_id = ?", other)
        transaction.run("UPDATE invocation_content SET invocation_id = ?", other)
    with database.read() as session:
        with pytest.raises(KeyChanged):
            content.read(session, SEALER, other)
        assert content.count_unreadable(session, SEALER) == 1
        assert content.read(session, SEALER, one) is None


async def test_a_run_succeeds_although_its_key_cannot_be_used(database: Database) -> None:
    def broken() -> bytes:
        raise PermissionError(13, "Permission denied")

    async with small_host(database) as host:
        host.invocations._sealer = host.invocations._journals._sealer = Sealer(broken)
        id_ = await run(host, 1)
        row = await host.invocations.find(id_, ME)
        assert row.status == "succeeded"
        assert contents(database) == set()
        with pytest.raises(Unavailable, match="cannot be read or made"):
            Sealer(broken).seal(b"", "x")


async def test_half_a_surrogate_pair_comes_back_as_it_was(host: SmallHost, database: Database) -> None:
    id_ = await run(host, output='"\\ud800 \ud800"')
    with database.read() as session:
        found = content.read(session, SEALER, id_)
    assert found is not None
    assert found.output == "\ud800 \ud800"


async def test_what_a_failed_run_had_shown_is_kept(host: SmallHost, database: Database) -> None:
    """11-23."""
    with pytest.raises(AppFailed):
        async with host.invocations.begin(Invocation(ME, None, "act")) as invocation:
            await invocation.emit(Event("chunk", "half"))
            await invocation.emit(Event("progress", "not shown", 0.5))
            raise AppFailed
    with database.read() as session:
        found = content.read(session, SEALER, invocation.id)
    assert found is not None
    assert found.shown == "half"


async def test_events_are_written_in_batches_while_it_runs_and_read_by_another_host(
    host: SmallHost, database: Database
) -> None:
    async with small_host(database) as reader, host.invocations.begin(Invocation(ME, None, "act")) as invocation:
        running = host.invocations._journals._running[invocation.id]
        for number in range(6):
            await invocation.emit(Event("chunk", str(number)))
            if number % 2:
                await host.invocations._journals.flush(running)
        journal = await reader.invocations.events(await reader.invocations.find(invocation.id, ME))
        assert [event.text for event in journal.after(0)] == list("012345")
        assert journal.ending is None
        with database.read() as session:
            rows = session.exec(select(InvocationEventsRow).order_by(InvocationEventsRow.first)).all()
        assert [(row.first, row.last) for row in rows] == [(1, 2), (3, 4), (5, 6)]


@pytest.mark.parametrize("after", [0, 3])
async def test_a_batch_that_is_written_again_has_every_event_once(
    host: SmallHost, database: Database, after: int
) -> None:
    """A flush whose commit is not known yet is repeated with what came meanwhile."""
    async with host.invocations.begin(Invocation(ME, None, "act")) as invocation:
        running = host.invocations._journals._running[invocation.id]
        for number in range(3):
            await invocation.emit(Event("chunk", str(number)))
        await host.invocations._journals.flush(running)
        running.written = 0
        await invocation.emit(Event("chunk", "3"))
    found = host.invocations._journals._changes({invocation.id: after})[invocation.id]
    assert [event.text for event in found.events] == list("0123")[after:]
    assert found.ending is not None
    assert found.ending.events == 4


async def test_many_invocations_leave_nothing_in_memory(host: SmallHost, database: Database) -> None:
    for _ in range(50):
        id_ = await run(host, 3)
        journal = await host.invocations.events(await host.invocations.find(id_, ME))
        assert journal.ending is not None
        del journal
    await asyncio.sleep(0)  # the last load is taken from the list by a callback
    kept = host.invocations._journals
    assert (len(kept._running), len(kept._followed), len(kept._loading)) == (0, 0, 0)


async def test_readers_at_once_share_one_journal(host: SmallHost, database: Database) -> None:
    row = await host.invocations.find(await run(host, 3), ME)
    found = await asyncio.gather(*(host.invocations.events(row) for _ in range(20)))
    assert len(set(map(id, found))) == 1


def request(key: str = "k", value: object = 1) -> KeyedRequest:
    return KeyedRequest.of(ME, key, "acme/tool", "act", value)


async def begun(host: SmallHost, id_: str) -> None:
    async with host.invocations.begin(Invocation(ME, None, "act", id=id_)):
        pass


async def test_of_many_claims_at_once_one_is_new(
    host: SmallHost, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(idempotency, "BUSY_SECONDS", 0.0)
    async with small_host(database) as other:
        keys = [host.invocations.keys, other.invocations.keys] * 5
        claims = await asyncio.gather(*(each.claim(request()) for each in keys), return_exceptions=True)
    new = [claim for claim in claims if not isinstance(claim, BaseException)]
    assert [claim.is_new for claim in new] == [True]
    assert all(isinstance(claim, IdempotencyKeyBusy) for claim in claims if isinstance(claim, BaseException))


async def test_a_claim_outlives_its_process_once_the_invocation_began(database: Database) -> None:
    async with small_host(database) as host:
        first = await host.invocations.keys.claim(request())
        await begun(host, first.invocation_id)
        lost = await host.invocations.keys.claim(request("never-begun"))
    async with small_host(database) as host:
        again = await host.invocations.keys.claim(request())
        assert (again.invocation_id, again.is_new) == (first.invocation_id, False)
        anew = await host.invocations.keys.claim(request("never-begun"))
        assert anew.is_new
        assert anew.invocation_id != lost.invocation_id
        with pytest.raises(IdempotencyKeyReused):
            await host.invocations.keys.claim(request(value=2))


async def test_a_key_is_forgotten_after_a_day(host: SmallHost, database: Database) -> None:
    first = await host.invocations.keys.claim(request())
    await begun(host, first.invocation_id)
    with database.write() as session:
        row = session.exec(select(IdempotencyKeyRow)).one()
        row.claimed_at = utc_now() - timedelta(days=1, minutes=1)
    assert (await host.invocations.keys.claim(request(value=2))).is_new
    with database.write() as session:
        row = session.exec(select(IdempotencyKeyRow)).one()
        row.claimed_at = utc_now() - timedelta(days=1, minutes=1)
    with database.write() as session:
        idempotency.expire(Transaction.of(session))
    with database.read() as session:
        assert session.exec(select(IdempotencyKeyRow)).all() == []


async def test_a_released_key_is_free_unless_its_invocation_began(host: SmallHost) -> None:
    first = await host.invocations.keys.claim(request())
    host.invocations.keys.release(request(), first)
    second = await host.invocations.keys.claim(request())
    assert second.is_new
    await begun(host, second.invocation_id)
    host.invocations.keys.release(request(), second)
    assert not (await host.invocations.keys.claim(request())).is_new


async def test_housekeeping_runs_when_a_host_opens(host: SmallHost, database: Database) -> None:
    id_ = await run(host)
    age(database, id_, 31)
    async with small_host(database) as other:
        await run(other)
    assert id_ not in contents(database)
