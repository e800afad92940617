"""A new quota starts with the use of its current window."""

import pytest

from llmasos import tables  # noqa: F401
from llmasos.database.engine import Database, utc_now
from llmasos.errors import QuotaExceeded
from llmasos.kernel import audit
from llmasos.kernel.invocation import InstalledApp, Principal
from llmasos.quotas import service
from llmasos.quotas.ledger import Ledger
from llmasos.quotas.meters import Demand, Meter, Scope, Subject, Used, Window
from llmasos.quotas.service import QuotaName
from llmasos.testing import small_host

ME = Principal("w", "u")
APP = InstalledApp("acme/one", "1", "i", {}, frozenset())
IDS = {Scope.WORKSPACE: "w", Scope.USER: "u", Scope.APP: "acme/one", Scope.MODEL: "m"}


async def use(database: Database, user: str = "u", app: InstalledApp = APP) -> None:
    """An invocation that calls a model, and two requests."""
    async with small_host(database) as host, host.invocations.open(Principal("w", user), app, "act") as invocation:
        subject = invocation.subject("m")
        ledger = host.kernel._ledger
        held = await ledger.reserve(subject, Demand({Meter.TOKENS: 50, Meter.COST: 9}, model="m"))
        await ledger.settle(held, Used(20, 10, cost_micro_usd=7, model="m"))
        invocation.usage.prompt_tokens, invocation.usage.completion_tokens = 20, 10
        invocation.usage.cost_micro_usd, invocation.usage.model, invocation.usage.fuel = 7, "m", 1000
    for outcome in ("ok", "ok", "permission-not-granted"):
        line = audit.Line("w", user, "http.request", outcome, app.id)
        await database.write_queue.submit(lambda it, line=line: audit.append(it, line))


def set_quota(database: Database, limit: int, scope: Scope, meter: Meter, window: Window) -> int:
    """Set a quota, and return what it already counts."""
    name = QuotaName("w", scope, IDS[scope], meter, window)
    with database.write() as session:
        service.set_quota(session, lambda event, detail: None, name, limit)
    with database.read() as session:
        return next(each.used for each in service.list_quotas(session, "w") if each.name == name)


async def test_what_was_used_counts_whatever_the_quota_is_for(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """11-27: a new quota counted from 0, not from what was used in its window."""
    began = utc_now()
    monkeypatch.setattr(service, "utc_now", lambda: began)  # so that no window ends during the test
    await use(database)
    await use(database, user="v")
    await use(database, app=InstalledApp("acme/two", "1", "j", {}, frozenset()))
    once = {Meter.TOKENS: 30, Meter.COST: 7, Meter.INVOCATIONS: 1, Meter.COMPUTE: 1000, Meter.REQUESTS: 2}
    times = {Scope.WORKSPACE: 3, Scope.USER: 2, Scope.APP: 2, Scope.MODEL: 3}
    for scope in Scope:
        for window in (Window.MINUTE, Window.HOUR, Window.DAY, Window.MONTH):
            for meter in Meter:
                if scope is Scope.MODEL and (meter not in {Meter.TOKENS, Meter.COST}):
                    continue
                found = set_quota(database, 1 << 40, scope, meter, window)
                assert found == once[meter] * times[scope], (scope, meter, window)


async def test_a_quota_below_what_was_used_refuses_the_next_call(database: Database) -> None:
    await use(database)
    assert set_quota(database, 20, Scope.APP, Meter.TOKENS, Window.DAY) == 30
    with pytest.raises(QuotaExceeded, match="30 used"):
        await Ledger(database).reserve(Subject("w", "u", "acme/one", "m"), Demand({Meter.TOKENS: 1}))
    assert set_quota(database, 40, Scope.APP, Meter.TOKENS, Window.DAY) == 30
    await Ledger(database).reserve(Subject("w", "u", "acme/one", "m"), Demand({Meter.TOKENS: 10}))


async def test_what_was_used_before_the_window_does_not_count(database: Database) -> None:
    await use(database)
    with database.write() as session:
        session.connection().exec_driver_sql("UPDATE usage_day SET day = '2020-01-01'")
    assert set_quota(database, 100, Scope.APP, Meter.TOKENS, Window.MONTH) == 0
    assert set_quota(database, 100, Scope.APP, Meter.TOKENS, Window.RUN) == 0
