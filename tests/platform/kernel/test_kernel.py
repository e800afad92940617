"""The one path: authorise, reserve, execute, settle, audit."""

import asyncio

import pytest
from sqlalchemy.orm.exc import DetachedInstanceError
from sqlmodel import select
from tests.platform.kernel.token_capability import APP, ME, audit_lines, limit, row_of, window

from llmasos.database.engine import Database
from llmasos.errors import (
    AppFailed,
    Invalid,
    NotFound,
    PermissionNotDeclared,
    PermissionNotGranted,
    QuotaExceeded,
    ResourceLimit,
    Unavailable,
)
from llmasos.i18n import render
from llmasos.kernel import audit, calls
from llmasos.kernel.invocation import InvocationLimits, Principal
from llmasos.kernel.tables import AuditEntry
from llmasos.quotas.tables import UsageDay
from llmasos.testing import SmallHost


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


async def test_what_is_declared_but_not_granted_is_denied(host: SmallHost) -> None:
    async with host.invocations.open(ME, APP, "act") as invocation:
        with pytest.raises(PermissionNotGranted, match="does not grant"):
            await host.guest(invocation, "http", "request", ["{}"])


async def test_a_refusal_that_an_app_passes_on_keeps_its_chinese(host: SmallHost) -> None:
    with pytest.raises(PermissionNotDeclared) as caught:
        async with host.invocations.open(Principal(), APP, "go") as invocation:
            with pytest.raises(PermissionNotDeclared) as refused:
                await host.guest(invocation, "storage", "get", ["k"])
            # As an app does: it knows only the English text, and adds words of its own.
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


async def test_an_unforeseen_error_shows_nothing_of_the_hosts_insides(host: SmallHost, database: Database) -> None:
    async with host.invocations.open(ME, APP, "act") as invocation:
        with pytest.raises(Unavailable) as caught:
            await host.guest(invocation, "model", "crash", [20])
    assert "secret" not in caught.value.message
    assert ("model.crash", "unavailable") in audit_lines(database)


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


async def test_a_list_of_invocations_leaves_their_logs_out(host: SmallHost) -> None:
    """10-22: a page of invocations read up to 201 logs of 64 KiB on the event loop."""
    async with host.invocations.open(ME, APP, "act") as invocation:
        invocation.add_log("long")
    [row] = await host.invocations.list(ME)
    with pytest.raises(DetachedInstanceError, match="log"):
        _ = row.log
    assert (await host.invocations.find(invocation.id, ME)).log == "long"


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
    real_sleep = calls.asyncio.sleep

    async def sleep(seconds: float) -> None:
        if seconds < 100:  # of a part of the host that polls: without a pause it would hold the loop for ever
            await real_sleep(seconds)
        else:
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
