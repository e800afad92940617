"""`PUT` and `DELETE /api/v1/quotas`: sets and removes quotas of a workspace."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any, Literal, TypeAlias

from fastapi import Query, Request
from pydantic import Field

from llmasos.database.engine import WriteSession
from llmasos.errors import Invalid, NotFound, Unauthenticated
from llmasos.i18n import _
from llmasos.kernel.audit import Line, record
from llmasos.kernel.invocation import Principal
from llmasos.quotas import service
from llmasos.quotas.meters import Meter, Scope, Window
from llmasos.quotas.service import MAX_LIMIT, QuotaName
from llmasos_server.rest.bodies import BODY_ERRORS, Document, documents_router
from llmasos_server.rest.context import host_of
from llmasos_server.rest.identity import Caller, MayAdminister
from llmasos_server.rest.problems import ScopeMissing, responses
from llmasos_server.rest.schemas import ApiModel

router = documents_router("usage")

ScopeName: TypeAlias = Literal["workspace", "user", "app", "model"]
MeterName: TypeAlias = Literal["tokens", "cost_micro_usd", "invocations", "fuel", "http_requests"]
WindowName: TypeAlias = Literal["run", "minute", "hour", "day", "month"]


class NewQuota(Document):
    """A quota to set, in place of the one for the same subject, meter and window."""

    scope: ScopeName = Field(default="workspace", description="For whom it counts.", examples=["app"])
    scope_id: str | None = Field(
        default=None,
        max_length=255,
        description="Which user, app or model; null for the workspace.",
        examples=["acme/translator"],
    )
    meter: MeterName = Field(description="What is counted.", examples=["tokens"])
    window: WindowName = Field(description="Over what; calendar windows are in UTC.", examples=["day"])
    limit: int = Field(ge=0, le=MAX_LIMIT, description="The most that may be used.", examples=[50_000])


class QuotaLimit(ApiModel):
    """A quota, without what is used of it."""

    scope: str
    scope_id: str
    meter: str
    window: str
    limit: int | None = Field(description="Null once it is removed.", examples=[50_000])


@router.put(
    "/quotas",
    operation_id="set_quota",
    summary="Set a quota",
    responses=responses(Unauthenticated, ScopeMissing, NotFound, Invalid, *BODY_ERRORS),
)
def set_quota(request: Request, caller: MayAdminister, new: NewQuota) -> QuotaLimit:
    """Set a quota of the workspace, or change its limit. What its window has used already counts."""
    host, name = host_of(request), _name(caller, new.scope, new.scope_id, new.meter, new.window)
    if name.scope is Scope.MODEL:
        host.gateway.registry.get(name.scope_id)  # a quota for a model that is not there would limit nothing
    with host.database.write() as session:
        service.check_subject(session, name)
        service.set_quota(session, _recorder(session, caller.principal), name, new.limit)
    return _view(name, new.limit)


@router.delete(
    "/quotas",
    operation_id="remove_quota",
    summary="Remove a quota",
    responses=responses(Unauthenticated, ScopeMissing, NotFound, Invalid),
)
def remove_quota(
    request: Request,
    caller: MayAdminister,
    *,
    meter: Annotated[MeterName, Query(description="What is counted.")],
    window: Annotated[WindowName, Query(description="Over what.")],
    scope: Annotated[ScopeName, Query(description="For whom it counts.")] = "workspace",
    scope_id: Annotated[
        str | None, Query(max_length=255, description="Which user, app or model; left out for the workspace.")
    ] = None,
) -> QuotaLimit:
    """Remove a quota that an administrator set, and what was counted for it."""
    name = _name(caller, scope, scope_id, meter, window)
    with host_of(request).database.write() as session:
        service.remove_quota(session, _recorder(session, caller.principal), name)
    return _view(name, None)


def _name(caller: Caller, scope: ScopeName, scope_id: str | None, meter: MeterName, window: WindowName) -> QuotaName:
    workspace = caller.principal.workspace
    if scope == "workspace" and scope_id not in (None, workspace):
        raise NotFound
    if scope != "workspace" and not scope_id:
        raise Invalid(_("Name the {scope}.", scope=scope))
    return QuotaName(workspace, Scope(scope), scope_id or workspace, Meter(meter), Window(window))


def _recorder(session: WriteSession, by: Principal) -> service.Recorder:
    return partial(_record, session, by)


def _record(session: WriteSession, by: Principal, event: str, detail: Mapping[str, Any]) -> None:
    record(session, Line(by.workspace, by.user, event, detail=detail))


def _view(name: QuotaName, limit: int | None) -> QuotaLimit:
    return QuotaLimit(scope=name.scope, scope_id=name.scope_id, meter=name.meter, window=name.window, limit=limit)
