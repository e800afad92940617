"""`/api/v1/invocations`: reads and cancels the caller's own invocations, or with the scope admin the workspace's."""

from __future__ import annotations

from typing import Annotated, cast

from fastapi import APIRouter, Path, Query, Request

from llmasos.errors import NotFound, Unauthenticated
from llmasos.invocations.tables import InvocationRow
from llmasos_server.rest.context import PREFIX, host_of
from llmasos_server.rest.identity import Caller, MayRead, MayRun
from llmasos_server.rest.paging import DEFAULT_LIMIT, Page, PageCursor, PageLimit, decode_cursor, encode_cursor
from llmasos_server.rest.problems import InvalidCursor, ScopeMissing, responses
from llmasos_server.rest.schemas import InvocationDetail, InvocationStatus, InvocationView

router = APIRouter(prefix=f"{PREFIX}/invocations", tags=["invocations"])

InvocationId = Annotated[str, Path(pattern=r"^[0-9a-f]{32}$")]


@router.get(
    "",
    operation_id="list_invocations",
    summary="List invocations",
    responses=responses(Unauthenticated, ScopeMissing, InvalidCursor),
)
async def list_invocations(
    request: Request,
    caller: MayRead,
    app: Annotated[str | None, Query(max_length=129, description="Only of this app.")] = None,
    limit: PageLimit = DEFAULT_LIMIT,
    cursor: PageCursor = None,
) -> Page[InvocationView]:
    """The caller's own invocations, or with the scope admin the workspace's; the newest first."""
    before = cast("str", decode_cursor(cursor, str)[0]) if cursor is not None else None
    try:
        invocations = host_of(request).invocations
        rows = await invocations.list(caller.principal, limit + 1, before, app_id=app, of_anybody=caller.is_admin)
    except NotFound as error:
        raise InvalidCursor from error
    shown, locale = rows[:limit], caller.principal.locale
    following = encode_cursor(shown[-1].id) if len(rows) > limit else None
    return Page(items=[InvocationView.of(row, locale) for row in shown if caller.reaches(row.app_id)], next=following)


@router.get(
    "/{invocation}",
    operation_id="read_invocation",
    summary="Read an invocation",
    responses=responses(Unauthenticated, ScopeMissing, NotFound),
)
async def read_invocation(request: Request, caller: MayRead, invocation: InvocationId) -> InvocationDetail:
    """One of the invocations that the caller may list, running or ended."""
    return InvocationDetail.of(await _found(request, caller, invocation), caller.principal.locale)


@router.delete(
    "/{invocation}",
    operation_id="cancel_invocation",
    summary="Cancel an invocation",
    status_code=202,
    responses=responses(Unauthenticated, ScopeMissing, NotFound),
)
async def cancel_invocation(request: Request, caller: MayRun, invocation: InvocationId) -> InvocationStatus:
    """End one of the caller's own invocations, or with the scope admin one of the workspace's, wherever it runs.

    One that has ended stays unchanged. Reading its details needs the scope read.
    """
    await _found(request, caller, invocation)
    await host_of(request).invocations.cancel(invocation, caller.principal, of_anybody=caller.is_admin)
    row = await _found(request, caller, invocation)
    return InvocationStatus.model_validate({"id": row.id, "status": row.status})


async def _found(request: Request, caller: Caller, invocation: str) -> InvocationRow:
    row = await host_of(request).invocations.find(invocation, caller.principal, of_anybody=caller.is_admin)
    if not caller.reaches(row.app_id):
        raise NotFound
    return row
