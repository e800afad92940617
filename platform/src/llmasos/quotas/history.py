"""Past use of a meter, from before a quota counted it: a new quota starts with the use of its current window."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from sqlmodel import Session

from llmasos.database.dialect import SqlValue
from llmasos.database.transaction import Transaction
from llmasos.quotas.meters import Meter, Scope, Window
from llmasos.quotas.tables import Quota

# Days and months: the daily totals. Model calls are counted under the model's name, invocations under none.
_OF_DAYS: Final = {
    Meter.TOKENS: "SELECT SUM(prompt_tokens + completion_tokens) FROM usage_day WHERE workspace_id = ? AND day >= ?",
    Meter.COST: "SELECT SUM(cost_micro_usd) FROM usage_day WHERE workspace_id = ? AND day >= ?",
    Meter.COMPUTE: "SELECT SUM(fuel) FROM usage_day WHERE workspace_id = ? AND day >= ?",
    Meter.INVOCATIONS: "SELECT SUM(calls) FROM usage_day WHERE workspace_id = ? AND day >= ? AND model = ''",
}
# Minutes and hours: the invocations that ended in them. A caller's row also includes what its callees used.
_ENDED: Final = "FROM invocation WHERE workspace_id = ? AND ended_at >= ? AND parent_id IS NULL"
_OF_INVOCATIONS: Final = {
    Meter.TOKENS: f"SELECT SUM(prompt_tokens + completion_tokens) {_ENDED}",
    Meter.COST: f"SELECT SUM(cost_micro_usd) {_ENDED}",
    Meter.COMPUTE: f"SELECT SUM(fuel) {_ENDED}",
    Meter.INVOCATIONS: f"SELECT COUNT(*) {_ENDED}",
}
# HTTP requests are recorded in the audit log alone; a refused one was not sent.
_REQUESTS: Final = (
    "SELECT COUNT(*) FROM audit_entry WHERE workspace_id = ? AND at >= ? AND event = 'http.request' AND outcome NOT IN"
    " ('denied', 'permission-not-declared', 'permission-not-granted', 'quota-exceeded', 'invalid')"
)
_COLUMNS: Final = {Scope.USER: "user_id", Scope.APP: "app_id", Scope.MODEL: "model"}


def used_before(session: Session, quota: Quota, starts_at: int) -> int:
    """The use that a quota counts, since `starts_at` in seconds since the epoch."""
    meter, window, scope = Meter(quota.meter), Window(quota.window), Scope(quota.scope)
    if window is Window.RUN or (meter is Meter.REQUESTS and scope is Scope.MODEL):
        return 0
    transaction = Transaction.of(session)
    since = datetime.fromtimestamp(starts_at, UTC)
    at: SqlValue = transaction.instant(since)
    if meter is Meter.REQUESTS:
        query = _REQUESTS
    elif window in {Window.DAY, Window.MONTH}:
        query, at = _OF_DAYS[meter], transaction.day(since.date())
    else:
        query = _OF_INVOCATIONS[meter]
    whose: tuple[str, ...] = ()
    if (column := _COLUMNS.get(scope)) is not None:
        query, whose = f"{query} AND {column} = ?", (quota.scope_id,)
    row = transaction.one(query, quota.workspace_id, at, *whose)
    return int(row[0] or 0) if row else 0
