"""How calls and invocations end: cancelled, at their deadline, on a full disk, with their host."""

import asyncio
import shutil
import sqlite3
import threading
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from sqlalchemy import event
from sqlmodel import select
from tests.platform.kernel.token_capability import APP, ME, TokenCapability, audit_lines, limit, row_of, window

from llmasos.database.engine import Database
from llmasos.database.transaction import Transaction
from llmasos.database.write_queue import WriteKind
from llmasos.errors import Cancelled, Denied, TimedOut, Unavailable
from llmasos.kernel.invocation import InvocationLimits
from llmasos.quotas.tables import UsageDay
from llmasos.testing import SmallHost, small_host


async def test_a_call_that_is_cancelled_before_it_began_leaves_nothing(host: SmallHost) -> None:
    async with host.invocations.open(ME, APP, "act") as invocation:
        for function in ("generate", "read"):
            call = asyncio.ensure_future(host.guest(invocation, "model", function, [20]))
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call


async def test_a_cancelled_call_is_settled_with_what_it_used(
    host: SmallHost, database: Database, capability: TokenCapability
) -> None:
    limit(database, 100)
    seen = []

    async def run() -> None:
        async with host.invocations.open(ME, APP, "act") as invocation:
            seen.append(invocation)
            await host.guest(invocation, "model", "hang", [20])

    task = asyncio.create_task(run())
    await capability.hanging.wait()
    await host.invocations.cancel(seen[0].id, ME)
    with pytest.raises(Cancelled):
        await task
    assert window(database) == (10, 0, 0)
    row = row_of(database, seen[0].id)
    assert (row.status, row.error_code) == ("cancelled", "cancelled")


async def test_a_host_call_ends_at_the_deadline(host: SmallHost, database: Database) -> None:
    limit(database, 100)
    with pytest.raises(TimedOut, match=r"0\.05 seconds"):
        async with host.invocations.open(ME, APP, "act", InvocationLimits(wall_seconds=0.05)) as invocation:
            await host.guest(invocation, "model", "hang", [20])
    assert window(database) == (10, 0, 0)
    assert row_of(database, invocation.id).error_code == "timeout"


async def test_after_its_end_an_invocation_can_call_nothing(host: SmallHost) -> None:
    async with host.invocations.open(ME, APP, "act") as invocation:
        pass
    with pytest.raises(Cancelled):
        await host.guest(invocation, "model", "generate", [20])


async def test_another_process_can_cancel_an_invocation(
    host: SmallHost, database: Database, capability: TokenCapability
) -> None:
    async def run() -> None:
        async with host.invocations.open(ME, APP, "act") as invocation:
            await host.guest(invocation, "model", "hang", [20])

    task = asyncio.create_task(run())
    await capability.hanging.wait()
    with Database(database.url) as elsewhere:
        async with small_host(elsewhere) as other:
            await other.invocations.cancel((await host.invocations.list(ME))[0].id, ME)
    with pytest.raises(Cancelled):
        await task


async def test_closing_the_kernel_cancels_and_settles_what_runs(
    database: Database, capability: TokenCapability
) -> None:
    limit(database, 100)
    async with small_host(database, capability) as host:

        async def run() -> None:
            async with host.invocations.open(ME, APP, "act") as invocation:
                await host.guest(invocation, "model", "hang", [20])

        task = asyncio.create_task(run())
        await capability.hanging.wait()
    with pytest.raises(Cancelled):
        await task
    assert window(database) == (10, 0, 0)


async def test_what_fails_while_it_runs_is_audited_once(host: SmallHost, database: Database) -> None:
    """10-5: a denial by the capability's own rules wrote two lines, one as it was settled and one as a refusal."""
    async with host.invocations.open(ME, APP, "act") as invocation:
        with pytest.raises(Denied):
            await host.guest(invocation, "model", "deny", [20])
    assert audit_lines(database) == [("model.deny", "denied"), ("invocation", "ok")]


async def test_an_invocation_is_written_with_when_it_began(host: SmallHost, database: Database) -> None:
    async with host.invocations.open(ME, APP, "act") as invocation:
        assert (await host.invocations.find(invocation.id, ME)).status == "running"
        time.sleep(0.05)  # noqa: ASYNC251 - so that the row's two times must differ
    row = row_of(database, invocation.id)
    assert row.ended_at is not None
    assert (row.ended_at - row.started_at).total_seconds() >= 0.05
    assert row.duration_ms >= 50


@asynccontextmanager
async def full_disk(database: Database) -> AsyncIterator[None]:
    """Let the database add no page, which SQLite reports like a full disk."""
    limit = "PRAGMA max_page_count = 1"

    def taken(connection: sqlite3.Connection, *_more: object) -> None:
        connection.execute(limit)

    event.listen(database.engine, "checkout", taken)
    await database.write_queue.submit(lambda transaction: transaction.all(limit))
    try:
        yield
    finally:
        limit = "PRAGMA max_page_count = 1000000"
        await database.write_queue.submit(lambda transaction: transaction.all(limit))


async def test_nobody_is_told_of_an_end_that_is_not_committed_and_it_is_committed_later(
    sqlite_template: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    copy = shutil.copyfile(sqlite_template, tmp_path / "t.db")
    with Database(f"sqlite:///{copy}") as database:
        limit(database, 10_000)
        async with small_host(database, TokenCapability()) as host, AsyncExitStack() as stack:
            with pytest.raises(Unavailable, match="disk is full"):
                async with host.invocations.open(ME, APP, "act") as invocation:
                    await host.guest(invocation, "model", "generate", [20])
                    await stack.enter_async_context(full_disk(database))
                    invocation.add_log("x" * 60_000)
            assert "what happened is written when it does: The disk is full" in caplog.text
            assert row_of(database, invocation.id).status == "running"
            await stack.aclose()
            row = row_of(database, invocation.id)
            assert (row.status, row.completion_tokens, len(row.log)) == ("succeeded", 20, 60_000)
            assert window(database) == (30, 0, 0)
            assert audit_lines(database) == [("model.generate", "ok"), ("invocation", "ok")]
            assert "takes writes again" in caplog.text


async def test_a_host_that_closes_while_the_disk_is_full_ends_and_says_what_is_lost(
    sqlite_template: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    copy = shutil.copyfile(sqlite_template, tmp_path / "t.db")
    with Database(f"sqlite:///{copy}") as database:
        async with small_host(database) as host:
            still_full = full_disk(database)
            with pytest.raises(Unavailable, match="disk is full"):
                async with host.invocations.open(ME, APP, "act") as invocation:
                    await still_full.__aenter__()
                    invocation.add_log("x" * 60_000)
        assert row_of(database, invocation.id).error_code == "host-died"
        await asyncio.to_thread(database.write_queue.close)
        assert "are lost: The disk is full" in caplog.text
        with pytest.raises(Unavailable, match="closing"):
            await still_full.__aexit__(None, None, None)


async def test_an_invocation_is_there_for_every_reader_from_its_beginning_to_its_end(
    host: SmallHost, database: Database
) -> None:
    """10-20: nobody is told of what is not committed."""
    for _ in range(5):
        async with host.invocations.open(ME, APP, "act") as invocation:
            assert (await host.invocations.find(invocation.id, ME)).status == "running"
            assert (await host.invocations.list(ME))[0].id == invocation.id
        assert (await host.invocations.list(ME))[0].status == "succeeded"
    assert audit_lines(database) == [("invocation", "ok")] * 5
    with database.read() as session:
        assert [day.calls for day in session.exec(select(UsageDay))] == [5]


async def test_a_call_is_settled_before_its_answer_and_an_invocation_ends_before_its_answer(
    host: SmallHost, database: Database
) -> None:
    """10-2: durability before speed, also of a stream's last part and of an end that is cancelled. SECURITY M3."""
    limit(database, 1000)
    async with host.invocations.open(ME, APP, "act") as invocation:
        await host.guest(invocation, "model", "generate", [20])
        assert window(database) == (30, 0, 0)
        number = await host.guest(invocation, "model", "open", [20])
        while await host.guest(invocation, "model", "read", [number]) is not None:
            pass
        assert window(database) == (34, 0, 0)
        assert audit_lines(database) == [("model.generate", "ok"), ("model.open", "ok")]
    assert row_of(database, invocation.id).status == "succeeded"

    async def run() -> None:
        async with host.invocations.open(ME, APP, "act") as invocation:
            begun.set_result(invocation.id)
            await asyncio.sleep(3600)

    begun = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(run())
    id_ = await begun
    busy = threading.Event()
    database.write_queue.submit(lambda _transaction: busy.wait(30))
    task.cancel()
    for _ in range(5):
        await asyncio.sleep(0.01)
        task.cancel()
    assert not task.done(), "it is told that it ended before that is committed"
    busy.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert row_of(database, id_).status == "cancelled"


async def test_a_commit_that_fails_leaves_an_invocations_own_limit_as_it_was(
    host: SmallHost, database: Database
) -> None:
    """10-11: what a transaction held of an invocation's tokens is given back if it is rolled back."""

    def fails(transaction: Transaction) -> None:
        raise ValueError("and the transaction with it")

    limit(database, 10_000)
    async with host.invocations.open(ME, APP, "act", InvocationLimits(tokens=40)) as invocation:
        busy = threading.Event()
        database.write_queue.submit(lambda _transaction: busy.wait(30))
        call = asyncio.ensure_future(host.guest(invocation, "model", "generate", [20]))
        await asyncio.sleep(0)
        failing = database.write_queue.submit(fails, WriteKind.BATCHED)
        busy.set()
        # It is written in a second transaction, which again needs 30 of the 40.
        assert await call == 20
        with pytest.raises(Unavailable):
            await failing
