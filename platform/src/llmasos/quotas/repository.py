"""Every query of quotas and the ledger, except what a batch of writes changes: that is in `ledger_batch`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from sqlalchemy import func
from sqlalchemy import select as select_columns
from sqlmodel import Session, SQLModel, col, select

from llmasos.database.transaction import Row, Transaction
from llmasos.quotas.meters import Meter, Scope, Subject, Window
from llmasos.quotas.tables import LedgerWindow, Quota
from llmasos.quotas.windows import window_start


@dataclass(frozen=True, slots=True)
class Applying:
    """A quota that applies to a subject, with its current window; `window_id` is None if that has no row yet."""

    quota_id: int
    scope: Scope
    scope_id: str
    meter: Meter
    window: Window
    limit: int
    source: str
    starts_at: int
    window_id: int | None

    @property
    def window_key(self) -> tuple[int, int]:
        """What identifies the window."""
        return self.quota_id, self.starts_at


_APPLYING = """
SELECT q.id, q.scope, q.scope_id, q.meter, q."window", q."limit", q.source, w.id
FROM quota q LEFT JOIN ledger_window w ON w.quota_id = q.id AND w.starts_at =
    CASE q."window" WHEN 'minute' THEN ? WHEN 'hour' THEN ? WHEN 'day' THEN ? WHEN 'month' THEN ? END
WHERE q.workspace_id = ? AND ((q.scope = 'workspace' AND q.scope_id = ?) OR (q.scope = 'user' AND q.scope_id = ?)
    OR (q.scope = 'app' AND q.scope_id = ?) OR (q.scope = 'model' AND q.scope_id = ?))
ORDER BY q.id
"""
_WINDOWS = 'SELECT id, used, reserved, overrun, "limit" FROM ledger_window'


def applying(transaction: Transaction, subject: Subject, now: int) -> list[Applying]:
    """The quotas that apply to a subject, with their windows at `now`, in seconds since the epoch."""
    starts = {window: window_start(window, now) for window in Window}
    rows = transaction.all(
        _APPLYING,
        *(starts[Window.MINUTE], starts[Window.HOUR], starts[Window.DAY], starts[Window.MONTH]),
        *(subject.workspace, subject.workspace, subject.user, subject.app, subject.model),
    )
    return [
        Applying(id_, Scope(scope), scope_id, Meter(meter), Window(window), limit, source, starts[Window(window)], row)
        for id_, scope, scope_id, meter, window, limit, source, row in rows
    ]


def open_window(transaction: Transaction, quota: Applying) -> int:
    """The row of a quota's window, created if missing."""
    transaction.run(
        'INSERT INTO ledger_window (quota_id, starts_at, "limit", used, reserved, overrun)'
        " VALUES (?, ?, ?, 0, 0, 0) ON CONFLICT (quota_id, starts_at) DO NOTHING",
        *(quota.quota_id, quota.starts_at, quota.limit),
    )
    row = transaction.one(
        "SELECT id FROM ledger_window WHERE quota_id = ? AND starts_at = ?", quota.quota_id, quota.starts_at
    )
    assert row is not None  # noqa: S101 - it was inserted one statement above
    return int(row[0])


def lock_windows(transaction: Transaction, ids: Sequence[int]) -> list[Row]:
    """Lock windows in the order of their ids; returns id, used, reserved, overrun and limit of those that exist."""
    if not ids:
        return []
    query = f"{_WINDOWS} WHERE id IN ({_marks(ids)}) ORDER BY id{transaction.for_update}"
    return transaction.all(query, *ids)


def end_reservations(transaction: Transaction, ids: Sequence[str]) -> list[Row]:
    """Delete reservations; returns id and window of each amount that was still reserved."""
    query = f"DELETE FROM reservation WHERE id IN ({_marks(ids)}) RETURNING id, window_id"  # noqa: S608 - marks alone
    return transaction.all(query, *ids)


def _marks(values: Sequence[object]) -> str:
    return ", ".join("?" * len(values))


def release_lease(transaction: Transaction, lease_id: str) -> int:
    """Free everything that a process reserved; returns how many reservations."""
    held = transaction.all(
        "SELECT window_id, SUM(amount) FROM reservation WHERE lease_id = ? GROUP BY window_id", lease_id
    )
    # Windows are locked before reservations, and in the order of their ids, as a batch of the ledger does.
    lock_windows(transaction, sorted(window_id for window_id, _amount in held))
    freed = transaction.all("DELETE FROM reservation WHERE lease_id = ? RETURNING window_id, amount", lease_id)
    transaction.run_many(
        "UPDATE ledger_window SET reserved = reserved - ? WHERE id = ?",
        [(amount, window_id) for window_id, amount in freed],
    )
    return len(freed)


def quotas_of(session: Session, workspace_id: str) -> list[Quota]:
    """Every quota of a workspace, ordered by scope, subject, meter and window."""
    order = (col(Quota.scope), col(Quota.scope_id), col(Quota.meter), col(Quota.window), col(Quota.source))
    return list(session.exec(select(Quota).where(Quota.workspace_id == workspace_id).order_by(*order)))


def find_quota(session: Session, wanted: Quota) -> Quota | None:
    """The quota of the same source, subject, meter and window."""
    return session.exec(
        select(Quota).where(
            Quota.workspace_id == wanted.workspace_id,
            Quota.scope == wanted.scope,
            Quota.scope_id == wanted.scope_id,
            Quota.meter == wanted.meter,
            Quota.window == wanted.window,
            Quota.source == wanted.source,
        )
    ).first()


def installed_apps(session: Session, workspace_id: str) -> list[str]:
    """The apps that are installed in a workspace."""
    rows = Transaction.of(session).all("SELECT app_id FROM installation WHERE workspace_id = ?", workspace_id)
    return [str(app) for (app,) in rows]


def windows_of(session: Session, quota_id: int, starts_at: int) -> LedgerWindow | None:
    """A quota's window by its start; None if nothing was ever reserved in it."""
    return session.exec(
        select(LedgerWindow).where(LedgerWindow.quota_id == quota_id, LedgerWindow.starts_at == starts_at)
    ).first()


@dataclass(frozen=True, slots=True)
class UsageTotal:
    """What was used of a model by an app on a day, or over several days if `day` is None."""

    day: date | None
    app_id: str
    model: str
    calls: int
    prompt_tokens: int
    completion_tokens: int
    cost_micro_usd: int
    unpriced_calls: int
    fuel: int


def usage_totals(
    session: Session, workspace_id: str, since: date, user_id: str | None = None, app_id: str | None = None
) -> list[UsageTotal]:
    """Totals by day, app and model, newest day first."""
    amounts = ("calls", "prompt_tokens", "completion_tokens", "cost_micro_usd", "unpriced_calls", "fuel")
    table = SQLModel.metadata.tables["usage_day"].c
    groups = (table.day, table.app_id, table.model)
    query = (
        select_columns(*groups, *(func.sum(table[amount]) for amount in amounts))
        .where(table.workspace_id == workspace_id, table.day >= since)
        .group_by(*groups)
        .order_by(table.day.desc(), table.app_id, table.model)
    )
    if user_id is not None:
        query = query.where(table.user_id == user_id)
    if app_id is not None:
        query = query.where(table.app_id == app_id)
    return [UsageTotal(*row) for row in session.connection().execute(query)]
