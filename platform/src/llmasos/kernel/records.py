"""Every query of invocations."""

from __future__ import annotations

from sqlmodel import Session, col, select

from llmasos.db import utc_now
from llmasos.kernel.invocation import Invocation
from llmasos.kernel.tables import InvocationRow
from llmasos.writer import Transaction

# The message of an error is for the person who ran the app; a guest's may be long.
MAX_MESSAGE = 2000


def insert(transaction: Transaction, invocation: Invocation, lease_id: str) -> None:
    """Write down that it runs."""
    app = invocation.app
    transaction.run(
        "INSERT INTO invocation (id, workspace_id, user_id, app_id, version, installation_id, action, parent_id,"
        " status, started_at, lease_id, cancel_requested, duration_ms, prompt_tokens, completion_tokens,"
        " cost_micro_usd, fuel, memory_bytes, log)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, 'running', ?, ?, ?, 0, 0, 0, 0, 0, 0, '')",
        *(invocation.id, invocation.principal.workspace, invocation.principal.user),
        *((app.id, app.version, app.installation_id) if app else (None, None, None)),
        *(invocation.action, invocation.parent.id if invocation.parent else None),
        *(transaction.moment(utc_now()), lease_id, False),
    )


def finish(
    transaction: Transaction, invocation: Invocation, status: str, code: str | None, message: str | None
) -> None:
    """Write down how it ended."""
    usage = invocation.usage
    transaction.run(
        "UPDATE invocation SET status = ?, error_code = ?, error_message = ?, ended_at = ?, duration_ms = ?, model = ?,"
        " prompt_tokens = ?, completion_tokens = ?, cost_micro_usd = ?, fuel = ?, memory_bytes = ?, log = ?"
        " WHERE id = ?",
        *(status, code, message[:MAX_MESSAGE] if message else None, transaction.moment(utc_now()), usage.duration_ms),
        *(usage.model, usage.prompt_tokens, usage.completion_tokens, usage.cost_micro_usd, usage.fuel),
        *(usage.memory_bytes, invocation.log, invocation.id),
    )


def lose(transaction: Transaction, lease_id: str) -> int:
    """The process that ran them died: they failed."""
    return transaction.run(
        "UPDATE invocation SET status = 'failed', error_code = 'host-died',"
        " error_message = 'The host process that ran it ended; what it held was freed. Run it again.', ended_at = ?"
        " WHERE status = 'running' AND lease_id = ?",
        *(transaction.moment(utc_now()), lease_id),
    )


def request_cancel(transaction: Transaction, id_: str) -> int:
    """Ask the process that runs it; 0 where it does not run any more."""
    return transaction.run("UPDATE invocation SET cancel_requested = ? WHERE id = ? AND status = 'running'", True, id_)


def to_cancel(session: Session, lease_id: str) -> list[str]:
    """Which of a process's invocations others asked it to cancel."""
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
    """One of a user of the workspace; of anybody there where `user` is None."""
    row = session.get(InvocationRow, id_)
    return row if row and row.workspace_id == workspace and user in (None, row.user_id) else None


def listing(
    session: Session, workspace: str, user: str | None, limit: int, before: InvocationRow | None
) -> list[InvocationRow]:
    """Those of a user, or of the whole workspace where `user` is None; newest first, and older than `before`."""
    query = select(InvocationRow).where(InvocationRow.workspace_id == workspace)
    if user is not None:
        query = query.where(InvocationRow.user_id == user)
    if before is not None:
        started = col(InvocationRow.started_at)
        query = query.where(
            (started < before.started_at) | ((started == before.started_at) & (col(InvocationRow.id) < before.id))
        )
    return list(
        session.exec(query.order_by(col(InvocationRow.started_at).desc(), col(InvocationRow.id).desc()).limit(limit))
    )
