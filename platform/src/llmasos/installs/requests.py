"""Installs that wait for an administrator's approval."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from sqlmodel import Session, col, select

from llmasos.database.engine import WriteSession, utc_now
from llmasos.errors import Conflict, NotFound
from llmasos.i18n import _, to_text
from llmasos.installs.plan import InstallPlan
from llmasos.installs.policy import ApprovalNeeded, Change
from llmasos.installs.repository import ensure_workspace
from llmasos.installs.service import ConsentAnswers
from llmasos.installs.tables import InstallRequest
from llmasos.kernel.audit import Line, record
from llmasos.kernel.invocation import Principal


def keep(session: WriteSession, change: Change, by: Principal, needed: ApprovalNeeded) -> InstallRequest:
    """Store a change as a request, in place of the user's earlier one for that app."""
    plan, answers = change.plan, change.answers
    ensure_workspace(session, by.workspace)
    for earlier in waiting(session, by.workspace, by.user):
        if earlier.app_id == plan.app_id:
            session.delete(earlier)
    session.flush()
    row = InstallRequest(
        id=uuid.uuid4().hex,
        workspace_id=by.workspace,
        user_id=by.user,
        app_id=plan.app_id,
        version=plan.version,
        upgrade=any(step.kind == "upgrade" and step.app_id == plan.app_id for step in plan.steps),
        plan_digest=plan.digest,
        declined={app: sorted(names) for app, names in answers.declined.items()},
        config={app: dict(values) for app, values in answers.config.items()},
        reason=to_text(needed.message),
        requested_at=utc_now(),
    )
    session.add(row)
    _audit(session, by, "install.request", row)
    return row


def waiting(session: Session, workspace: str, user: str | None = None) -> list[InstallRequest]:
    """The requests of a workspace that wait, the oldest first; only those of `user`, if one is named."""
    query = select(InstallRequest).where(InstallRequest.workspace_id == workspace)
    if user is not None:
        query = query.where(InstallRequest.user_id == user)
    return list(session.exec(query.order_by(col(InstallRequest.requested_at), col(InstallRequest.id))))


def find(session: Session, workspace: str, request_id: str) -> InstallRequest:
    """A request that waits.

    Raises:
        NotFound: The workspace has no such request.
    """
    row = session.get(InstallRequest, request_id)
    if row is None or row.workspace_id != workspace:
        raise NotFound(_("There is no such request; `llmasos policy requests` shows those that wait."))
    return row


def answers_of(row: InstallRequest) -> ConsentAnswers:
    """The decisions of the user who made a request."""
    declined: Mapping[str, list[str]] = row.declined
    config: Mapping[str, Mapping[str, Any]] = row.config
    return ConsentAnswers(True, {app: frozenset(names) for app, names in declined.items()}, config)


def check_unchanged(row: InstallRequest, plan: InstallPlan) -> None:
    """Refuse a plan that is not the one that was asked for.

    Raises:
        Conflict: It would do or ask for something else by now.
    """
    if plan.digest != row.plan_digest:
        raise Conflict(
            _(
                "{app} would be installed otherwise than the request says: refuse it, and have it made again.",
                app=row.app_id,
            )
        )


def settle(session: WriteSession, by: Principal, request_id: str, event: str) -> None:
    """Remove a request that was approved, refused or withdrawn. Its audit line stays.

    Raises:
        NotFound: The workspace has no such request.
    """
    row = find(session, by.workspace, request_id)
    _audit(session, by, event, row)
    session.delete(row)


def _audit(session: WriteSession, by: Principal, event: str, row: InstallRequest) -> None:
    detail = {"request": row.id, "version": row.version, "by": row.user_id, "plan": row.plan_digest}
    record(session, Line(by.workspace, by.user, event, app=row.app_id, detail=detail))
