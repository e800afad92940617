"""The one path: authorise, reserve, execute, settle, audit."""

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from sqlalchemy import event
from sqlmodel import SQLModel, select

from llmasos import tables  # noqa: F401
from llmasos.bundles.manifest import ModelPermission, Text
from llmasos.database.engine import Database, utc_now
from llmasos.errors import (
    Cancelled,
    Invalid,
    NotFound,
    PermissionNotDeclared,
    PermissionNotGranted,
    QuotaExceeded,
    TimedOut,
    Unavailable,
)
from llmasos.kernel import audit
from llmasos.kernel.capability import Outcome, Used
from llmasos.kernel.invocation import InstalledApp, Invocation, InvocationLimits, Principal
from llmasos.kernel.syscall import Kernel
from llmasos.kernel.tables import AuditEntry, InvocationRow
from llmasos.quotas.ledger import Ledger
from llmasos.quotas.meters import Demand, Meter, Shrink
from llmasos.quotas.tables import LedgerWindow, Quota, Reservation, UsageDay

WHY = Text(en="for the test")
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


@dataclass
class Counted:
    """An operation that uses as many tokens as it is told to."""

    function: str
    tokens: int
    capability: "TokenCapability"
    granted: Demand | None = None
    detail: dict = field(default_factory=dict)

    @property
    def demand(self) -> Demand:
        return Demand({Meter.TOKENS: 10 + self.tokens}, shrink=Shrink(self.tokens, 5), model="m")

    @property
    def used(self) -> Used:
        return Used(prompt_tokens=10, model="m")

    async def execute(self, granted: Demand) -> Outcome:
        assert granted.shrink
        match self.function:
            case "generate":
                used = Used(prompt_tokens=10, completion_tokens=granted.shrink.tokens, cost_micro_usd=7, model="m")
                return Outcome(value=granted.shrink.tokens, used=used)
            case "hang":
                self.capability.hanging.set()
                await asyncio.sleep(3600)
            case "crash":
                raise RuntimeError("secret insides")
            case "open":
                stream = Words(["a", "b", "c"], self.capability.fail_after)
                self.capability.streams.append(stream)
                return Outcome(stream=stream)
        raise AssertionError


class TokenCapability:
    """A model that counts."""

    name = "model"
    functions = frozenset({"generate", "hang", "crash", "open"})
    audited = True

    def __init__(self) -> None:
        self.hanging = asyncio.Event()
        self.streams: list[Words] = []
        self.fail_after: int | None = None

    def prepare(self, invocation: Invocation, function: str, arguments: list) -> Counted:
        match arguments:
            case [int() as tokens]:
                return Counted(function, tokens, self)
        raise Invalid("one number")


@pytest.fixture
def database(tmp_path: Path):
    with Database(f"sqlite:///{tmp_path}/t.db") as database:
        SQLModel.metadata.create_all(database.engine)
        yield database


@pytest.fixture
async def capability() -> TokenCapability:
    return TokenCapability()


@pytest.fixture
async def kernel(database: Database, capability: TokenCapability) -> AsyncIterator[Kernel]:
    async with Kernel(database, Ledger(database), [capability]) as kernel:
        yield kernel


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
        assert not session.exec(select(Reservation)).all()
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


async def test_a_call_is_reserved_settled_counted_and_audited(kernel: Kernel, database: Database) -> None:
    limit(database, 100)
    async with kernel.invocation(ME, APP, "act") as invocation:
        assert await kernel.syscall(invocation, "model", "generate", [20]) == 20
    assert window(database) == (30, 0, 0)
    assert audit_lines(database) == [("model.generate", "ok"), ("invocation", "ok")]
    row = row_of(database, invocation.id)
    assert (row.status, row.prompt_tokens, row.completion_tokens, row.cost_micro_usd) == ("succeeded", 10, 20, 7)
    with database.read() as session:
        totals = {day.model: (day.calls, day.prompt_tokens) for day in session.exec(select(UsageDay))}
    assert totals == {"m": (1, 10), "": (1, 0)}


async def test_near_the_limit_the_answer_shrinks_and_past_it_nothing_is_spent(
    kernel: Kernel, database: Database
) -> None:
    limit(database, 50)
    async with kernel.invocation(ME, APP, "act") as invocation:
        assert await kernel.syscall(invocation, "model", "generate", [20]) == 20
        assert await kernel.syscall(invocation, "model", "generate", [20]) == 10
        with pytest.raises(QuotaExceeded, match="llmasos quota set --app acme/one --meter tokens --window day"):
            await kernel.syscall(invocation, "model", "generate", [20])
    assert window(database) == (50, 0, 0)
    assert ("model.generate", "quota-exceeded") in audit_lines(database)


async def test_what_the_manifest_does_not_declare_is_denied_with_the_lines_to_paste(kernel: Kernel) -> None:
    async with kernel.invocation(ME, APP, "act") as invocation:
        with pytest.raises(PermissionNotDeclared, match=r'\[\[permissions\]\]\ncapability = "storage"'):
            await kernel.syscall(invocation, "storage", "get", ["a"])


async def test_a_call_that_is_cancelled_before_it_began_leaves_nothing(kernel: Kernel) -> None:
    async with kernel.invocation(ME, APP, "act") as invocation:
        for function in ("generate", "read"):
            call = asyncio.ensure_future(kernel.syscall(invocation, "model", function, [20]))
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call


async def test_what_is_declared_but_not_granted_is_denied(kernel: Kernel) -> None:
    async with kernel.invocation(ME, APP, "act") as invocation:
        with pytest.raises(PermissionNotGranted, match="does not grant"):
            await kernel.syscall(invocation, "http", "request", ["{}"])


async def test_a_refusal_that_an_app_passes_on_keeps_its_chinese(kernel: Kernel) -> None:
    with pytest.raises(Invalid) as caught:
        async with kernel.invocation(Principal(), APP, "go") as invocation:
            with pytest.raises(PermissionNotDeclared) as refused:
                await kernel.syscall(invocation, "storage", "get", ["k"])
            # As a guest does: it knows the English alone, and adds words of its own.
            raise Invalid(f"no luck: {refused.value.message}")
    assert caught.value.message.startswith("no luck: acme/one used storage")
    assert caught.value.message_zh == f"no luck: {refused.value.message_zh}"
    assert "清单" in caught.value.message_zh


async def test_a_program_without_an_app_has_its_users_rights_and_quotas(kernel: Kernel, database: Database) -> None:
    async with kernel.invocation(ME, None, "v1") as invocation:
        assert await kernel.syscall(invocation, "model", "generate", [20]) == 20
    assert row_of(database, invocation.id).app_id is None


async def test_a_cancelled_call_is_settled_with_what_it_used(
    kernel: Kernel, database: Database, capability: TokenCapability
) -> None:
    limit(database, 100)
    seen = []

    async def run() -> None:
        async with kernel.invocation(ME, APP, "act") as invocation:
            seen.append(invocation)
            await kernel.syscall(invocation, "model", "hang", [20])

    task = asyncio.create_task(run())
    await capability.hanging.wait()
    await kernel.cancel(seen[0].id, ME)
    with pytest.raises(Cancelled):
        await task
    assert window(database) == (10, 0, 0)
    row = row_of(database, seen[0].id)
    assert (row.status, row.error_code) == ("cancelled", "cancelled")


async def test_a_host_call_ends_at_the_deadline(kernel: Kernel, database: Database) -> None:
    limit(database, 100)
    with pytest.raises(TimedOut, match=r"0\.05 seconds"):
        async with kernel.invocation(ME, APP, "act", InvocationLimits(wall_seconds=0.05)) as invocation:
            await kernel.syscall(invocation, "model", "hang", [20])
    assert window(database) == (10, 0, 0)
    assert row_of(database, invocation.id).error_code == "timeout"


async def test_an_unforeseen_error_shows_nothing_of_the_hosts_insides(kernel: Kernel, database: Database) -> None:
    async with kernel.invocation(ME, APP, "act") as invocation:
        with pytest.raises(Unavailable) as caught:
            await kernel.syscall(invocation, "model", "crash", [20])
    assert "secret" not in caught.value.message
    assert ("model.crash", "unavailable") in audit_lines(database)


async def test_a_stream_holds_its_reservation_until_it_ends(
    kernel: Kernel, database: Database, capability: TokenCapability
) -> None:
    limit(database, 100)
    async with kernel.invocation(ME, APP, "act") as invocation:
        number = await kernel.syscall(invocation, "model", "open", [20])
        assert [await kernel.syscall(invocation, "model", "read", [number]) for _ in range(5)] == [
            "a",
            "b",
            "c",
            None,
            None,
        ]
        await kernel.syscall(invocation, "model", "close", [number])
        with pytest.raises(NotFound):
            await kernel.syscall(invocation, "model", "read", [number + 1])
    assert capability.streams[0].closed
    assert window(database) == (4, 0, 0)


async def test_a_stream_that_is_left_open_is_closed_and_settled(
    kernel: Kernel, database: Database, capability: TokenCapability
) -> None:
    limit(database, 100)
    async with kernel.invocation(ME, APP, "act") as invocation:
        number = await kernel.syscall(invocation, "model", "open", [20])
        await kernel.syscall(invocation, "model", "read", [number])
    assert capability.streams[0].closed
    assert window(database) == (2, 0, 0)
    assert audit_lines(database) == [("model.open", "ok"), ("invocation", "ok")]


async def test_a_stream_that_fails_is_settled(kernel: Kernel, database: Database, capability: TokenCapability) -> None:
    limit(database, 100)
    capability.fail_after = 2
    async with kernel.invocation(ME, APP, "act") as invocation:
        number = await kernel.syscall(invocation, "model", "open", [20])
        with pytest.raises(Unavailable):
            for _ in range(3):
                await kernel.syscall(invocation, "model", "read", [number])
    assert window(database) == (3, 0, 0)


async def test_an_invocation_over_its_quota_is_not_started(kernel: Kernel, database: Database) -> None:
    limit(database, 1, "invocations")
    async with kernel.invocation(ME, APP, "act"):
        pass
    with pytest.raises(QuotaExceeded):
        async with kernel.invocation(ME, APP, "act"):
            pytest.fail("it started")
    assert window(database) == (1, 0, 0)


async def test_compute_shrinks_to_what_is_left(kernel: Kernel, database: Database) -> None:
    limit(database, 1_500_000_000, "fuel")
    async with kernel.invocation(ME, APP, "act") as invocation:
        assert invocation.limits.fuel == 1_500_000_000
        invocation.measured(fuel=900_000_000, memory_bytes=5, log="hello")
    assert window(database) == (900_000_000, 0, 0)
    assert row_of(database, invocation.id).log == "hello"


async def test_tokens_of_one_run_are_limited_and_a_callee_pays_into_its_callers_limit(kernel: Kernel) -> None:
    async with kernel.invocation(ME, APP, "act", InvocationLimits(tokens=50)) as caller:
        async with kernel.invocation(ME, APP, "inner", parent=caller) as callee:
            assert await kernel.syscall(callee, "model", "generate", [20]) == 20
        assert await kernel.syscall(caller, "model", "generate", [20]) == 10
        with pytest.raises(QuotaExceeded, match=r"llmapp\.toml"):
            await kernel.syscall(caller, "model", "generate", [20])
        assert caller.usage.tokens == 50


@pytest.mark.parametrize(
    "arguments", [["x" * (1 << 21)], [[[]] * 9] * 9, list(range(9)), ["x"], [eval("[" * 80 + "]" * 80)]]
)
async def test_oversized_deep_or_wrong_arguments_are_refused(kernel: Kernel, arguments: list) -> None:
    async with kernel.invocation(ME, APP, "act") as invocation:
        with pytest.raises(Invalid):
            await kernel.syscall(invocation, "model", "generate", arguments)


async def test_after_its_end_an_invocation_can_call_nothing(kernel: Kernel) -> None:
    async with kernel.invocation(ME, APP, "act") as invocation:
        pass
    with pytest.raises(Cancelled):
        await kernel.syscall(invocation, "model", "generate", [20])


async def test_a_guest_that_is_denied_in_a_loop_does_not_flood_the_audit(kernel: Kernel, database: Database) -> None:
    async with kernel.invocation(ME, APP, "act") as invocation:
        for _ in range(200):
            with pytest.raises(PermissionNotDeclared):
                await kernel.syscall(invocation, "storage", "get", ["a"])
    assert len(audit_lines(database)) == 21


async def test_invocations_of_others_are_not_found(kernel: Kernel) -> None:
    async with kernel.invocation(ME, APP, "act") as invocation:
        for other in (Principal("w", "other"), Principal("other", "u")):
            with pytest.raises(NotFound):
                await kernel.find(invocation.id, other)
            with pytest.raises(NotFound):
                await kernel.cancel(invocation.id, other)
        assert [row.id for row in kernel.list(ME)] == [invocation.id]
        assert kernel.list(Principal("other", "u")) == []


async def test_another_process_can_cancel_an_invocation(
    kernel: Kernel, database: Database, capability: TokenCapability
) -> None:
    async def run() -> None:
        async with kernel.invocation(ME, APP, "act") as invocation:
            await kernel.syscall(invocation, "model", "hang", [20])

    task = asyncio.create_task(run())
    await capability.hanging.wait()
    with Database(database.url) as elsewhere:
        other = Kernel(elsewhere, Ledger(elsewhere))
        await other.cancel(kernel.list(ME)[0].id, ME)
    with pytest.raises(Cancelled):
        await task


async def test_closing_the_kernel_cancels_and_settles_what_runs(
    database: Database, capability: TokenCapability
) -> None:
    limit(database, 100)
    kernel = Kernel(database, Ledger(database), [capability])

    async def run() -> None:
        async with kernel.invocation(ME, APP, "act") as invocation:
            await kernel.syscall(invocation, "model", "hang", [20])

    task = asyncio.create_task(run())
    await capability.hanging.wait()
    await kernel.close()
    with pytest.raises(Cancelled):
        await task
    assert window(database) == (10, 0, 0)


async def draws(kernel: Kernel) -> None:
    """Let invocations follow each other at once, so that the next draws on what is reserved ahead."""
    for _ in range(4):
        async with kernel.invocation(ME, APP, "act"):
            pass


async def test_an_invocation_that_follows_at_once_is_there_for_whoever_looks(
    kernel: Kernel, database: Database
) -> None:
    await draws(kernel)
    async with kernel.invocation(ME, APP, "act") as invocation:
        assert (await kernel.find(invocation.id, ME)).status == "running"
    assert row_of(database, invocation.id).status == "succeeded"


async def test_an_invocation_that_is_written_with_its_end_began_when_it_began(
    kernel: Kernel, database: Database
) -> None:
    await draws(kernel)
    async with kernel.invocation(ME, APP, "act") as invocation:
        time.sleep(0.05)  # noqa: ASYNC251 - the loop has no turn in which to write its beginning
    row = row_of(database, invocation.id)
    assert row.ended_at is not None
    assert (row.ended_at - row.started_at).total_seconds() >= 0.05
    assert row.duration_ms >= 50


async def test_what_invocations_leave_is_counted_and_audited_once(kernel: Kernel, database: Database) -> None:
    await draws(kernel)
    async with kernel.invocation(ME, APP, "act"):
        pass
    assert audit_lines(database) == [("invocation", "ok")] * 5
    with database.read() as session:
        assert [day.calls for day in session.exec(select(UsageDay))] == [5]


@asynccontextmanager
async def full_disk(database: Database) -> AsyncIterator[None]:
    """No page is added to the database: what SQLite says of it is the same as of a full disk."""
    limit = "PRAGMA max_page_count = 1"

    def taken(connection: sqlite3.Connection, *_more: object) -> None:
        connection.execute(limit)

    event.listen(database.engine, "checkout", taken)
    await database.writer.submit(lambda transaction: transaction.all(limit))
    try:
        yield
    finally:
        limit = "PRAGMA max_page_count = 1000000"
        # The writer takes another connection after a commit that failed, as this one does.
        with suppress(Unavailable):
            await database.writer.submit(lambda _transaction: None)
        await database.writer.submit(lambda _transaction: None)


async def test_what_ended_while_the_disk_was_full_is_written_once_when_there_is_room(
    kernel: Kernel, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    limit(database, 10_000)
    async with AsyncExitStack() as stack:
        async with kernel.invocation(ME, APP, "act") as invocation:
            await kernel.syscall(invocation, "model", "generate", [20])
            await database.writer.drained()
            await stack.enter_async_context(full_disk(database))
            invocation.add_log("x" * 60_000)
        await database.writer.drained()
        assert "those that nobody waits for are tried again: The disk is full" in caplog.text
        assert row_of(database, invocation.id).status == "running"
        with pytest.raises(Unavailable, match="disk is full"):
            await database.writer.submit(lambda _transaction: None)
    row = row_of(database, invocation.id)
    assert (row.status, row.completion_tokens, len(row.log)) == ("succeeded", 20, 60_000)
    assert window(database) == (30, 0, 0)
    assert audit_lines(database) == [("model.generate", "ok"), ("invocation", "ok")]
    assert "takes writes again" in caplog.text


async def test_a_kernel_that_closes_while_the_disk_is_full_ends_and_says_what_is_lost(
    database: Database, capability: TokenCapability, caplog: pytest.LogCaptureFixture
) -> None:
    kernel = Kernel(database, Ledger(database), [capability])
    async with kernel.invocation(ME, APP, "act") as invocation:
        await database.writer.drained()
        still_full = full_disk(database)
        await still_full.__aenter__()
        invocation.add_log("x" * 60_000)
    await database.writer.drained()
    with pytest.raises(Unavailable, match="disk is full"):
        await kernel.close()
    await asyncio.to_thread(database.writer.close)
    assert "are lost: The disk is full" in caplog.text
    with pytest.raises(Unavailable, match="closing"):
        await still_full.__aexit__(None, None, None)


async def test_what_a_guest_says_keeps_no_other_from_being_written(kernel: Kernel, database: Database) -> None:
    ids: list[str] = []

    async def run(log: str, tokens: int) -> None:
        async with kernel.invocation(ME, APP, "act") as invocation:
            invocation.add_log(log)
            invocation.usage.prompt_tokens = tokens
            ids.append(invocation.id)

    await asyncio.gather(run("fine", 1), run("\ud800", 1 << 80), run("fine", -1))
    rows = [row_of(database, id_) for id_ in ids]
    assert [(row.status, row.log, row.prompt_tokens) for row in rows] == [
        ("succeeded", "fine", 1),
        ("succeeded", "?", 1 << 62),
        ("succeeded", "fine", 0),
    ]
