"""`/api/v1/audit` and `/retention`: the log of a workspace, and how long it keeps what was run."""

from __future__ import annotations

from datetime import datetime
from typing import Any, cast

from fastapi import Request
from pydantic import Field
from sqlmodel import col, select

from llmasos.errors import Invalid, Unauthenticated
from llmasos.i18n import render
from llmasos.invocations import content
from llmasos.kernel.audit import verify
from llmasos.kernel.tables import AuditEntry
from llmasos_server.rest.bodies import BODY_ERRORS, Document, documents_router
from llmasos_server.rest.context import host_of
from llmasos_server.rest.identity import MayAdminister, MayRead
from llmasos_server.rest.paging import (
    DEFAULT_LIMIT,
    Page,
    PageCursor,
    PageLimit,
    decode_cursor,
    encode_cursor,
)
from llmasos_server.rest.problems import InvalidCursor, ScopeMissing, responses
from llmasos_server.rest.schemas import ApiModel, utc

router = documents_router()

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


class RetentionView(ApiModel):
    """How long the workspace keeps inputs and outputs of invocations."""

    days: int = Field(description="0: they are not kept.", examples=[30])


class NewRetention(Document):
    """How long the workspace is to keep inputs and outputs."""

    days: int = Field(
        ge=0, le=content.MAX_DAYS, description="0 keeps nothing, and deletes what there is.", examples=[30]
    )


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


@router.get(
    "/retention",
    operation_id="read_retention",
    summary="Read how long contents are kept",
    tags=["invocations"],
    responses=responses(Unauthenticated, ScopeMissing),
)
def read_retention(request: Request, caller: MayRead) -> RetentionView:
    """For how many days the workspace keeps inputs and outputs of invocations."""
    with host_of(request).database.read() as session:
        return RetentionView(days=content.retention_days(session, caller.principal.workspace))


@router.put(
    "/retention",
    operation_id="set_retention",
    summary="Choose how long contents are kept",
    tags=["invocations"],
    responses=responses(Unauthenticated, ScopeMissing, Invalid, *BODY_ERRORS),
)
def set_retention(request: Request, caller: MayAdminister, new: NewRetention) -> RetentionView:
    """Choose for how many days the workspace keeps inputs and outputs. What is older is deleted at once."""
    with host_of(request).database.write() as session:
        content.set_retention_days(session, caller.principal, new.days)
    return RetentionView(days=new.days)
