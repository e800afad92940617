"""The one path: authorise, reserve, execute, settle, audit."""

import asyncio
import shutil
import sqlite3
import threading
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.orm.exc import DetachedInstanceError
from sqlmodel import select

from llmasos.bundles.manifest import LocalisedText, ModelPermission
from llmasos.database.engine import Database, utc_now
from llmasos.database.transaction import Transaction
from llmasos.database.write_queue import WriteKind
from llmasos.errors import (
    AppFailed,
    Cancelled,
    Denied,
    Invalid,
    NotFound,
    PermissionNotDeclared,
    PermissionNotGranted,
    QuotaExceeded,
    ResourceLimit,
    TimedOut,
    Unavailable,
)
from llmasos.i18n import render
from llmasos.invocations.tables import InvocationRow
from llmasos.kernel import audit, calls
from llmasos.kernel.capability import ContractFunction, Operation, Outcome, PreparedCall
from llmasos.kernel.invocation import InstalledApp, Invocation, InvocationLimits, Principal
from llmasos.kernel.tables import AuditEntry
from llmasos.quotas.meters import Demand, Meter, Shrink, Used
from llmasos.quotas.tables import LedgerWindow, Quota, ReservationRow, UsageDay
from llmasos.testing import SmallHost, small_host

WHY = LocalisedText(en="for the test")
APP = InstalledApp(
    "acme/one",
    "1.0",
    "i1",
    {"model": ModelPermission(capability="model", tiers=("fast",), reason=WHY)},
    {"model", "http"},
)


class Words:
    """A stream of words, each a token."""

    def __init__(self, words: list[str], fail_after: int | None = None) -> None:
        self.words = words
        self.given = 0
        self.closed = False
        self.fail_after = fail_after

    async def read(self) -> str | None:
        if self.fail_after == self.given:
            raise RuntimeError("secret insides")
        if self.given == len(self.words):
            return None
        self.given += 1
        return self.words[self.given - 1]

    async def close(self) -> None:
        self.closed = True

    @property
    def used(self) -> Used:
        return Used(prompt_tokens=1, completion_tokens=self.given, model="m")


@dataclass(frozen=True)
class Count(Operation[Any]):
    """Uses as many tokens as it says, in a way of its own."""

    way: str
    tokens: int
    capability = "model"

    @property
    def function(self) -> str:
        return self.way


class TokenCapability:
    """A model that counts."""

    name = "model"
    audited = True

    def __init__(self) -> None:
        self.hanging = asyncio.Event()
        self.streams: list[Words] = []
        self.fail_after: int | None = None
        self.contract = {
            way: ContractFunction(lambda arguments, way=way: self.decoded(way, arguments))
            for way in ("generate", "hang", "crash", "deny", "open")
        }

    @staticmethod
    def decoded(way: str, arguments: list) -> Count:
        match arguments:
            case [int() as tokens]:
                return Count(way, tokens)
        raise Invalid("one number")

    def prepare(self, invocation: Invocation, operation: Count) -> PreparedCall:
        async def execute(granted: Demand) -> Outcome:
            assert granted.shrink
            match operation.way:
                case "generate":
                    tokens = granted.shrink.tokens
                    return Outcome(tokens, Used(10, tokens, cost_micro_usd=7, model="m"))
                case "hang":
                    self.hanging.set()
                    await asyncio.sleep(3600)
                case "crash":
                    raise RuntimeError("secret insides")
                case "deny":
                    raise Denied("not while it runs either")
                case "open":
                    self.streams.append(Words(["a", "b", "c"], self.fail_after))
                    return Outcome(stream=self.streams[-1])
            raise AssertionError

        demand = Demand({Meter.TOKENS: 10 + operation.tokens}, shrink=Shrink(operation.tokens, 5), model="m")
        return PreparedCall(execute, demand, used=lambda _granted: Used(prompt_tokens=10, model="m"))


@pytest.fixture
async def capability() -> TokenCapability:
    return TokenCapability()


@pytest.fixture
async def host(database: Database, capability: TokenCapability) -> AsyncIterator[SmallHost]:
    async with small_host(database, capability) as host:
        yield host


ME = Principal("w", "u")


def limit(database: Database, tokens: int, meter: str = "tokens", window: str = "day") -> None:
    with database.write() as session:
        session.add(
            Quota(
                workspace_id="w",
                scope="app",
                scope_id="acme/one",
                meter=meter,
                window=window,
                limit=tokens,
                created_at=utc_now(),
            )
        )


def window(database: Database) -> tuple[int, int, int]:
    with database.read() as session:
        row = session.exec(select(LedgerWindow)).one()
        assert not session.exec(select(ReservationRow)).all()
        return row.used, row.reserved, row.overrun


def row_of(database: Database, id_: str) -> InvocationRow:
    with database.read() as session:
        row = session.get(InvocationRow, id_)
        assert row
        return row


def audit_lines(database: Database) -> list[tuple[str, str]]:
    with database.read() as session:
        assert audit.verify(session).intact
        return [(line.event, line.outcome) for line in session.exec(select(AuditEntry).order_by(AuditEntry.seq))]


async def test_a_call_is_reserved_settled_counted_and_audited(host: SmallHost, database: Database) -> None:
    limit(database, 100)
    async with host.invocations.open(ME, APP, "act") as invocation:
        assert await host.guest(invocation, "model", "generate", [20]) == 20
    assert window(database) == (30, 0, 0)
    assert audit_lines(database) == [("model.generate", "ok"), ("invocation", "ok")]
    row = row_of(database, invocation.id)
    assert (row.status, row.prompt_tokens, row.completion_tokens, row.cost_micro_usd) == ("succeeded", 10, 20, 7)
    with database.read() as session:
        totals = {day.model: (day.calls, day.prompt_tokens) for day in session.exec(select(UsageDay))}
    assert totals == {"m": (1, 10), "": (1, 0)}


async def test_near_the_limit_the_answer_shrinks_and_past_it_nothing_is_spent(
    host: SmallHost, database: Database
) -> None:
    limit(database, 50)
    async with host.invocations.open(ME, APP, "act") as invocation:
        assert await host.guest(invocation, "model", "generate", [20]) == 20
        assert await host.guest(invocation, "model", "generate", [20]) == 10
        with pytest.raises(QuotaExceeded, match="llmasos quota set --app acme/one --meter tokens --window day"):
            await host.guest(invocation, "model", "generate", [20])
    assert window(database) == (50, 0, 0)
    assert ("model.generate", "quota-exceeded") in audit_lines(database)


async def test_what_the_manifest_does_not_declare_is_denied_with_the_lines_to_paste(host: SmallHost) -> None:
    async with host.invocations.open(ME, APP, "act") as invocation:
        with pytest.raises(PermissionNotDeclared, match=r'\[\[permissions\]\]\ncapability = "storage"'):
            await host.guest(invocation, "storage", "get", ["a"])


async def test_a_call_that_is_cancelled_before_it_began_leaves_nothing(host: SmallHost) -> None:
    async with host.invocations.open(ME, APP, "act") as invocation:
        for function in ("generate", "read"):
            call = asyncio.ensure_future(host.guest(invocation, "model", function, [20]))
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call


async def test_what_is_declared_but_not_granted_is_denied(host: SmallHost) -> None:
    async with host.invocations.open(ME, APP, "act") as invocation:
        with pytest.raises(PermissionNotGranted, match="does not grant"):
            await host.guest(invocation, "http", "request", ["{}"])


async def test_a_refusal_that_an_app_passes_on_keeps_its_chinese(host: SmallHost) -> None:
    with pytest.raises(PermissionNotDeclared) as caught:
        async with host.invocations.open(Principal(), APP, "go") as invocation:
            with pytest.raises(PermissionNotDeclared) as refused:
                await host.guest(invocation, "storage", "get", ["k"])
            # As an app does: it knows the English alone, and adds words of its own.
            raise AppFailed(f"no luck: {refused.value.message}")
    assert caught.value.message.startswith("no luck: acme/one used storage")
    assert render(caught.value.message, "zh") == f"no luck: {render(refused.value.message, 'zh')}"
    assert "清单" in render(caught.value.message, "zh")


async def test_an_app_that_only_claims_a_refusal_has_failed_itself(host: SmallHost, database: Database) -> None:
    """11-S17: an app's own error passed for the host's, with its code and its exit code."""
    with pytest.raises(AppFailed):
        async with host.invocations.open(ME, APP, "act") as invocation:
            raise AppFailed("A quota is used up.")
    assert row_of(database, invocation.id).error_code == "app-failed"


async def test_a_program_without_an_app_has_its_users_rights_and_quotas(host: SmallHost, database: Database) -> None:
    async with host.invocations.open(ME, None, "v1") as invocation:
        assert await host.guest(invocation, "model", "generate", [20]) == 20
    assert row_of(database, invocation.id).app_id is None


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


async def test_an_unforeseen_error_shows_nothing_of_the_hosts_insides(host: SmallHost, database: Database) -> None:
    async with host.invocations.open(ME, APP, "act") as invocation:
        with pytest.raises(Unavailable) as caught:
            await host.guest(invocation, "model", "crash", [20])
    assert "secret" not in caught.value.message
    assert ("model.crash", "unavailable") in audit_lines(database)


async def test_a_stream_holds_its_reservation_until_it_ends(
    host: SmallHost, database: Database, capability: TokenCapability
) -> None:
    limit(database, 100)
    async with host.invocations.open(ME, APP, "act") as invocation:
        number = await host.guest(invocation, "model", "open", [20])
        assert [await host.guest(invocation, "model", "read", [number]) for _ in range(5)] == [
            "a",
            "b",
            "c",
            None,
            None,
        ]
        await host.guest(invocation, "model", "close", [number])
        with pytest.raises(NotFound):
            await host.guest(invocation, "model", "read", [number + 1])
    assert capability.streams[0].closed
    assert window(database) == (4, 0, 0)


async def test_a_stream_that_is_left_open_is_closed_and_settled(
    host: SmallHost, database: Database, capability: TokenCapability
) -> None:
    limit(database, 100)
    async with host.invocations.open(ME, APP, "act") as invocation:
        number = await host.guest(invocation, "model", "open", [20])
        await host.guest(invocation, "model", "read", [number])
    assert capability.streams[0].closed
    assert window(database) == (2, 0, 0)
    assert audit_lines(database) == [("model.open", "ok"), ("invocation", "ok")]


async def test_a_stream_that_fails_is_settled(host: SmallHost, database: Database, capability: TokenCapability) -> None:
    limit(database, 100)
    capability.fail_after = 2
    async with host.invocations.open(ME, APP, "act") as invocation:
        number = await host.guest(invocation, "model", "open", [20])
        with pytest.raises(Unavailable):
            for _ in range(3):
                await host.guest(invocation, "model", "read", [number])
    assert window(database) == (3, 0, 0)


async def test_an_invocation_over_its_quota_is_not_started(host: SmallHost, database: Database) -> None:
    limit(database, 1, "invocations")
    async with host.invocations.open(ME, APP, "act"):
        pass
    with pytest.raises(QuotaExceeded):
        async with host.invocations.open(ME, APP, "act"):
            pytest.fail("it started")
    assert window(database) == (1, 0, 0)


async def test_compute_shrinks_to_what_is_left(host: SmallHost, database: Database) -> None:
    limit(database, 1_500_000_000, "fuel")
    async with host.invocations.open(ME, APP, "act") as invocation:
        assert invocation.limits.fuel == 1_500_000_000
        invocation.measured(fuel=900_000_000, memory_bytes=5, log="hello")
    assert window(database) == (900_000_000, 0, 0)
    assert row_of(database, invocation.id).log == "hello"


async def test_tokens_of_one_run_are_limited_and_a_callee_pays_into_its_callers_limit(host: SmallHost) -> None:
    async with host.invocations.open(ME, APP, "act", InvocationLimits(tokens=50)) as caller:
        async with host.invocations.open(ME, APP, "inner", parent=caller) as callee:
            assert await host.guest(callee, "model", "generate", [20]) == 20
        assert await host.guest(caller, "model", "generate", [20]) == 10
        with pytest.raises(QuotaExceeded, match=r"llmapp\.toml"):
            await host.guest(caller, "model", "generate", [20])
        assert caller.usage.tokens == 50


@pytest.mark.parametrize(
    "arguments", [["x" * (1 << 21)], [[[]] * 9] * 9, list(range(9)), ["x"], [eval("[" * 80 + "]" * 80)]]
)
async def test_oversized_deep_or_wrong_arguments_are_refused(host: SmallHost, arguments: list) -> None:
    async with host.invocations.open(ME, APP, "act") as invocation:
        with pytest.raises(Invalid):
            await host.guest(invocation, "model", "generate", arguments)


async def test_after_its_end_an_invocation_can_call_nothing(host: SmallHost) -> None:
    async with host.invocations.open(ME, APP, "act") as invocation:
        pass
    with pytest.raises(Cancelled):
        await host.guest(invocation, "model", "generate", [20])


async def test_a_guest_that_is_denied_in_a_loop_does_not_flood_the_audit(host: SmallHost, database: Database) -> None:
    async with host.invocations.open(ME, APP, "act") as invocation:
        for _ in range(200):
            with pytest.raises(PermissionNotDeclared):
                await host.guest(invocation, "storage", "get", ["a"])
    assert len(audit_lines(database)) == 21


async def test_invocations_of_others_are_not_found(host: SmallHost) -> None:
    """SECURITY R6."""
    async with host.invocations.open(ME, APP, "act") as invocation:
        for other in (Principal("w", "other"), Principal("other", "u")):
            with pytest.raises(NotFound):
                await host.invocations.find(invocation.id, other)
            with pytest.raises(NotFound):
                await host.invocations.cancel(invocation.id, other)
        assert [row.id for row in await host.invocations.list(ME)] == [invocation.id]
        assert await host.invocations.list(Principal("other", "u")) == []


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


async def test_a_program_of_this_process_reads_a_stream_without_a_number(
    host: SmallHost, database: Database, capability: TokenCapability
) -> None:
    limit(database, 100)
    async with host.invocations.open(ME, None, "v1") as invocation:
        stream = await host.kernel.call(invocation, Count("open", 20))
        assert [part async for part in stream] == ["a", "b", "c"]
        broken_off = await host.kernel.call(invocation, Count("open", 20))
        assert await broken_off.read() == "a"
        await broken_off.close()
        assert await broken_off.read() is None
    assert [stream.closed for stream in capability.streams] == [True, True]
    assert invocation.usage.tokens == 4 + 2


async def test_an_invocation_is_written_with_when_it_began(host: SmallHost, database: Database) -> None:
    async with host.invocations.open(ME, APP, "act") as invocation:
        assert (await host.invocations.find(invocation.id, ME)).status == "running"
        time.sleep(0.05)  # noqa: ASYNC251 - so that the row's two times must differ
    row = row_of(database, invocation.id)
    assert row.ended_at is not None
    assert (row.ended_at - row.started_at).total_seconds() >= 0.05
    assert row.duration_ms >= 50


async def test_a_list_of_invocations_leaves_their_logs_out(host: SmallHost) -> None:
    """10-22: a page of invocations read up to 201 logs of 64 KiB on the event loop."""
    async with host.invocations.open(ME, APP, "act") as invocation:
        invocation.add_log("long")
    [row] = await host.invocations.list(ME)
    with pytest.raises(DetachedInstanceError, match="log"):
        _ = row.log
    assert (await host.invocations.find(invocation.id, ME)).log == "long"


@asynccontextmanager
async def full_disk(database: Database) -> AsyncIterator[None]:
    """No page is added to the database: what SQLite says of it is the same as of a full disk."""
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
        # It is written in a second transaction, which needs 30 of the 40 again.
        assert await call == 20
        with pytest.raises(Unavailable):
            await failing


async def test_what_a_guest_says_keeps_no_other_from_being_written(host: SmallHost, database: Database) -> None:
    """10-18: NUL and lone surrogates failed the end-write on PostgreSQL: no settlement, no audit line."""
    ids: list[str] = []

    async def run(text: str, tokens: int) -> None:
        try:
            async with host.invocations.open(ME, APP, f"act{text}") as invocation:
                invocation.add_log(text)
                invocation.usage.prompt_tokens = tokens
                invocation.usage.model = text
                ids.append(invocation.id)
                raise Invalid(text)
        except Invalid:
            pass

    await asyncio.gather(run("fine", 1), run("\ud800", 1 << 80), run("a\0b", -1), run("fine", 2))
    rows = [row_of(database, id_) for id_ in ids]
    assert [(row.status, row.model, row.action, row.prompt_tokens) for row in rows] == [
        ("failed", "fine", "actfine", 1),
        ("failed", "\ufffd", "act\ufffd", 1 << 62),
        ("failed", "a\ufffdb", "acta\ufffdb", 0),
        ("failed", "fine", "actfine", 2),
    ]
    assert not any({"\0", "\ud800"} & set(row.log + row.error_message) for row in rows)
    assert audit_lines(database) == [("invocation", "invalid")] * 4


async def test_what_a_guest_makes_up_fills_no_row(host: SmallHost, database: Database) -> None:
    """11-S13: 20 lines of a megabyte by a made-up name."""
    name = "n" * 1_000_000
    with pytest.raises(Invalid):
        async with host.invocations.open(ME, APP, name) as invocation:
            invocation.usage.model = name
            raise Invalid(name)
    await database.write_queue.submit(lambda it: audit.append(it, audit.Line("w", "u", name, detail={"a": [name]})))
    with database.read() as session:
        lines = session.exec(select(AuditEntry)).all()
        assert audit.verify(session).intact
    assert max(len(line.event) + len(str(line.detail)) for line in lines) < 2_000
    row = row_of(database, invocation.id)
    assert len(row.action) + len(row.model) + len(row.error_message) < 5_000


async def test_host_calls_are_paced(host: SmallHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """11-S14: calls that cost nothing took up to a whole core of the host."""
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr(calls.asyncio, "sleep", sleep)
    monkeypatch.setattr(calls, "CALLS_PER_SECOND", 0.001)
    async with host.invocations.open(ME, APP, "act") as invocation:
        for _ in range(int(calls.CALLS_AT_ONCE)):
            await host.kernel.pace(invocation)
        assert waited == []
        for _ in range(3):
            await host.kernel.pace(invocation)
    assert [round(seconds) for seconds in waited] == [1000, 2000, 3000]


async def test_host_calls_count_against_compute(host: SmallHost, database: Database) -> None:
    """11-S14: the host's time was charged to nobody."""
    fuel = 3 * calls.CALL_FUEL
    async with host.invocations.open(ME, APP, "act", InvocationLimits(fuel=fuel)) as invocation:
        for _ in range(3):
            with pytest.raises(PermissionNotDeclared):
                await host.guest(invocation, "storage", "get", ["a"])
        with pytest.raises(ResourceLimit):
            await host.guest(invocation, "storage", "get", ["a"])
    assert row_of(database, invocation.id).fuel == fuel
