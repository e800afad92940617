"""`/api/v1/audit` and `/secrets`: the log for administrators, and the names of one's own secrets."""

from __future__ import annotations

from datetime import datetime
from typing import Any, cast

from fastapi import APIRouter, Request
from pydantic import Field
from sqlmodel import col, select

from llmasos.errors import Unauthenticated
from llmasos.i18n import render
from llmasos.kernel.audit import verify
from llmasos.kernel.tables import AuditEntry
from llmasos.secrets import Secrets
from llmasos_server.rest.context import PREFIX, host_of
from llmasos_server.rest.identity import MayAdminister, MayRead
from llmasos_server.rest.paging import (
    DEFAULT_LIMIT,
    Page,
    PageCursor,
    PageLimit,
    decode_cursor,
    encode_cursor,
    page_of,
)
from llmasos_server.rest.problems import InvalidCursor, ScopeMissing, responses
from llmasos_server.rest.schemas import ApiModel, utc

router = APIRouter(prefix=PREFIX)

_REFUSED = responses(Unauthenticated, ScopeMissing, InvalidCursor)


class AuditView(ApiModel):
    """One line of the audit log."""

    workspace_id: str
    seq: int
    at: datetime
    user_id: str
    app_id: str | None
    invocation_id: str | None
    event: str
    outcome: str
    detail: dict[str, Any]
    previous_hash: str
    hash: str

    @classmethod
    def of(cls, row: AuditEntry) -> AuditView:
        """As the log keeps it."""
        return cls.model_validate(row.model_dump() | {"at": utc(row.at)})


class AuditVerification(ApiModel):
    """Whether the audit log is as it was written."""

    intact: bool
    lines: int
    heads: dict[str, str]
    workspace: str
    seq: int | None
    reason: str


class SecretView(ApiModel):
    """A secret that is set. Its value is never shown."""

    name: str
    app: str | None = Field(description="The app whose requests carry it; null: the host's own.")


# Plain functions: they run in threads, since they read many rows.


@router.get("/audit", operation_id="list_audit", summary="Read the audit log", tags=["audit"], responses=_REFUSED)
def list_audit(
    request: Request, caller: MayAdminister, limit: PageLimit = DEFAULT_LIMIT, cursor: PageCursor = None
) -> Page[AuditView]:
    """The workspace's audit log, the newest line first."""
    query = select(AuditEntry).where(AuditEntry.workspace_id == caller.principal.workspace)
    if cursor is not None:
        query = query.where(col(AuditEntry.seq) < cast("int", decode_cursor(cursor, int)[0]))
    with host_of(request).database.read() as session:
        rows = session.exec(query.order_by(col(AuditEntry.seq).desc()).limit(limit + 1)).all()
        shown = [AuditView.of(row) for row in rows[:limit]]
    return Page(items=shown, next=encode_cursor(shown[-1].seq) if len(rows) > limit else None)


@router.get(
    "/audit/verification",
    operation_id="verify_audit",
    summary="Verify the audit log",
    tags=["audit"],
    responses=responses(Unauthenticated, ScopeMissing),
)
def verify_audit(request: Request, caller: MayAdminister) -> AuditVerification:
    """Compare every line of the workspace's audit log with its hash."""
    with host_of(request).database.read() as session:
        found = verify(session, caller.principal.workspace)
    return AuditVerification(
        intact=found.intact,
        lines=found.lines,
        heads=dict(found.heads),
        workspace=found.workspace,
        seq=found.seq,
        reason=render(found.reason, caller.principal.locale),
    )


@router.get("/secrets", operation_id="list_secrets", summary="List secrets", tags=["secrets"], responses=_REFUSED)
def list_secrets(
    request: Request, caller: MayRead, limit: PageLimit = DEFAULT_LIMIT, cursor: PageCursor = None
) -> Page[SecretView]:
    """The names of the caller's own secrets, by app."""
    host, me = host_of(request), caller.principal
    with host.database.read() as session:
        found = Secrets(host.settings.home).listed(session, me.workspace, me.user)
    reached = [pair for pair in found if caller.reaches(pair[0] or None)]
    shown, following = page_of(reached, lambda pair: pair, limit, cursor, str, str)
    return Page(items=[SecretView(name=name, app=app or None) for app, name in shown], next=following)
