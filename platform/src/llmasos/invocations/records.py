"""Every query of invocations."""

from __future__ import annotations

from datetime import datetime
from typing import Any, cast

from sqlalchemy.orm import defer
from sqlmodel import Session, col, select

from llmasos.database.dialect import SqlValue
from llmasos.database.engine import utc_now
from llmasos.database.text import storable
from llmasos.database.transaction import Transaction
from llmasos.errors import Unavailable
from llmasos.i18n import Message, to_text, verbatim
from llmasos.invocations.tables import InvocationRow
from llmasos.kernel.invocation import Invocation

# An error message is for the person who ran the app; a guest's may be long.
MAX_MESSAGE = 4000
# Names of actions and models are short; a guest may invent others.
MAX_NAME = 255
# Far more than any run can use, and within the column's range.
MOST = 1 << 62


class _Records:
    """Invocations that began or ended in a batch of writes, as a `Buffer`."""

    def __init__(self) -> None:
        self.begun: dict[str, tuple[SqlValue, ...]] = {}
        self.ended: dict[str, tuple[SqlValue, ...]] = {}

    def write(self, transaction: Transaction) -> None:
        """Write all of them; one that began and ended in the same batch needs one statement."""
        if self.begun:
            running = ("running", *(None,) * 3, 0, None, *(0,) * 5, "", 0)
            rows = [(*begun, *(self.ended.pop(id_, running)), id_) for id_, begun in self.begun.items()]
            transaction.run_many(_BEGIN, rows)
        if self.ended:
            transaction.run_many(_END, [(*ended, id_) for id_, ended in self.ended.items()])

    def discard(self) -> None:
        """Do nothing: only the database was changed."""


_BEGIN = """
INSERT INTO invocation (workspace_id, user_id, app_id, version, installation_id, action, parent_id, started_at,
lease_id, cancel_requested, status, error_code, error_message, ended_at, duration_ms, model,
prompt_tokens, completion_tokens, cost_micro_usd, fuel, memory_bytes, log, events, id)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_END = """
UPDATE invocation SET status = ?, error_code = ?, error_message = ?, ended_at = ?,
duration_ms = ?, model = ?, prompt_tokens = ?, completion_tokens = ?, cost_micro_usd = ?, fuel = ?, memory_bytes = ?,
log = ?, events = ? WHERE id = ?
"""


def insert(transaction: Transaction, invocation: Invocation, lease_id: str) -> None:
    """Record that it runs."""
    app, parent = invocation.app, invocation.parent
    whose = invocation.principal.workspace, invocation.principal.user
    release = (app.id, app.version, app.installation_id) if app else (None, None, None)
    what = storable(invocation.action, MAX_NAME), parent.id if parent else None
    row = (*whose, *release, *what, transaction.instant(utc_now()), lease_id, False)
    transaction.buffer(_Records).begun[invocation.id] = row


def finish(
    transaction: Transaction,
    invocation: Invocation,
    status: str,
    code: str | None,
    message: Message | None,
    *,
    events: int,
) -> None:
    """Record how it ended, and how many events it showed."""
    usage = invocation.usage
    counts = [None if amount is None else max(0, min(amount, MOST)) for amount in usage.amounts]
    outcome = status, code, storable(_bounded(message)) if message else None
    model = storable(usage.model, MAX_NAME) if usage.model else None
    measured = usage.duration_ms, model, *counts, storable(invocation.log), events
    row = (*outcome, transaction.instant(utc_now()), *measured)
    transaction.buffer(_Records).ended[invocation.id] = row


def _bounded(message: Message) -> str:
    text = to_text(message)
    return text if len(text) <= MAX_MESSAGE else to_text(verbatim(message[: MAX_MESSAGE // 2]))


class HostDied(Unavailable):
    """The host process that ran it ended, and its reservations were released. Run it again."""

    code = "host-died"


def lose(transaction: Transaction, lease_id: str) -> int:
    """Mark them as failed: the process that ran them died."""
    return transaction.run(
        "UPDATE invocation SET status = 'failed', error_code = ?, error_message = ?, ended_at = ?"
        " WHERE status = 'running' AND lease_id = ?",
        *(HostDied.code, to_text(HostDied.default()), transaction.instant(utc_now()), lease_id),
    )


def request_cancel(transaction: Transaction, id_: str) -> int:
    """Ask the process that runs it to cancel it; returns 0 if it no longer runs."""
    return transaction.run("UPDATE invocation SET cancel_requested = ? WHERE id = ? AND status = 'running'", True, id_)


def request_cancel_of_installation(transaction: Transaction, installation_id: str) -> int:
    """Ask the processes that run invocations of an installation to cancel them."""
    return transaction.run(
        "UPDATE invocation SET cancel_requested = ? WHERE installation_id = ? AND status = 'running'",
        *(True, installation_id),
    )


def is_running(session: Session, installation_id: str) -> bool:
    """Whether any process runs an invocation of an installation."""
    query = select(InvocationRow.id).where(
        InvocationRow.status == "running", InvocationRow.installation_id == installation_id
    )
    return session.exec(query.limit(1)).first() is not None


def to_cancel(session: Session, lease_id: str) -> list[str]:
    """A process's invocations that others asked it to cancel."""
    return list(
        session.exec(
            select(InvocationRow.id).where(
                InvocationRow.status == "running",
                InvocationRow.lease_id == lease_id,
                col(InvocationRow.cancel_requested),
            )
        )
    )


def find(session: Session, id_: str, workspace: str, user: str | None) -> InvocationRow | None:
    """Find an invocation of a user of the workspace; of anybody there if `user` is None."""
    row = session.get(InvocationRow, id_)
    return row if row and row.workspace_id == workspace and user in (None, row.user_id) else None


def starting_with(session: Session, workspace: str, start: str, limit: int) -> list[InvocationRow]:
    """The invocations of a workspace whose ids start with this prefix."""
    named = col(InvocationRow.id).startswith(start, autoescape=True)
    query = select(InvocationRow).where(InvocationRow.workspace_id == workspace, named)
    return list(session.exec(query.order_by(col(InvocationRow.id)).limit(limit)))


def listing(
    session: Session,
    workspace: str,
    user: str | None,
    limit: int,
    *,
    before: InvocationRow | None = None,
    app_id: str | None = None,
    status: str | None = None,
    started: tuple[datetime, datetime] | None = None,
) -> list[InvocationRow]:
    """List those of a user, an app and a status, or of all where one is None; newest first, older than `before`.

    Logs are not included, as each may be 64 KiB.

    Args:
        session: Where to read.
        workspace: Whose invocations.
        user: Who ran them.
        limit: How many at most.
        before: The last one of the page before.
        app_id: Their app.
        status: `running`, `succeeded`, `failed` or `cancelled`.
        started: When they began: from the first instant on, and before the second.
    """
    without_log = defer(cast("Any", InvocationRow.log), raiseload=True)
    query = select(InvocationRow).options(without_log).where(InvocationRow.workspace_id == workspace)
    if user is not None:
        query = query.where(InvocationRow.user_id == user)
    if app_id is not None:
        query = query.where(InvocationRow.app_id == app_id)
    if status is not None:
        query = query.where(InvocationRow.status == status)
    at = col(InvocationRow.started_at)
    if started is not None:
        query = query.where(at >= started[0], at < started[1])
    if before is not None:
        query = query.where(
            (at < before.started_at) | ((at == before.started_at) & (col(InvocationRow.id) < before.id))
        )
    return list(session.exec(query.order_by(at.desc(), col(InvocationRow.id).desc()).limit(limit)))
