"""`/api/v1/invocations`: reads, follows, cancels and deletes one's own, or with the scope admin the workspace's."""

from __future__ import annotations

from functools import partial
from typing import Annotated, cast

from fastapi import APIRouter, Header, Path, Query, Request, Response

from llmasos.errors import Conflict, Invalid, NotFound, Unauthenticated
from llmasos.invocations.tables import InvocationRow
from llmasos.secrets import KeyChanged
from llmasos_server.rest import sse
from llmasos_server.rest.context import PREFIX, host_of
from llmasos_server.rest.identity import Caller, MayRead, MayRun, until_revoked
from llmasos_server.rest.paging import DEFAULT_LIMIT, Page, PageCursor, PageLimit, decode_cursor, encode_cursor
from llmasos_server.rest.problems import InvalidCursor, ScopeMissing, responses
from llmasos_server.rest.schemas import InvocationContentView, InvocationDetail, InvocationStatus, InvocationView

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


@router.get(
    "/{invocation}/events",
    operation_id="follow_invocation",
    summary="Follow an invocation",
    response_class=Response,
    responses={
        200: {"description": "Its events.", "content": {sse.MEDIA_TYPE: {"schema": sse.EVENTS}}},
        204: {"description": "The reader has all of them, the end included."},
        **responses(Unauthenticated, ScopeMissing, NotFound, Invalid, KeyChanged),
    },
)
async def follow_invocation(
    request: Request,
    caller: MayRead,
    invocation: InvocationId,
    last_event_id: Annotated[
        int, Header(ge=0, le=1 << 53, description="The id of the last event that the reader has; the next one follows.")
    ] = 0,
) -> Response:
    """The events of one of the invocations that the caller may list, from the first or any later one.

    Any number of readers follow it, while it runs and for a day after. One who goes away ends nothing.
    """
    journal = await host_of(request).invocations.events(await _found(request, caller, invocation))
    if sse.has_all(journal, last_event_id):
        return Response(status_code=204)  # which keeps a browser from asking again
    return sse.JournalStream(
        invocation, journal, last_event_id, caller.principal.locale, partial(until_revoked, request, caller)
    )


@router.get(
    "/{invocation}/content",
    operation_id="read_invocation_content",
    summary="Read input and output",
    responses=responses(Unauthenticated, ScopeMissing, NotFound, KeyChanged),
)
async def read_content(request: Request, caller: MayRead, invocation: InvocationId) -> InvocationContentView:
    """What one of the invocations that the caller may list was given and returned, as far as it is kept."""
    row = await _found(request, caller, invocation)
    return InvocationContentView.of(row.id, await host_of(request).invocations.content(row))


@router.delete(
    "/{invocation}/content",
    operation_id="delete_invocation_content",
    summary="Delete input and output",
    responses=responses(Unauthenticated, ScopeMissing, NotFound, Conflict),
)
async def delete_content(request: Request, caller: MayRun, invocation: InvocationId) -> InvocationStatus:
    """Delete what one of the caller's own invocations, or with the scope admin one of the workspace's, was given,
    showed, returned and logged. That it ran, and what it used, stays.
    """
    row = await _found(request, caller, invocation)
    await host_of(request).invocations.delete_content(row, caller.principal)
    return InvocationStatus.model_validate({"id": row.id, "status": row.status})


async def _found(request: Request, caller: Caller, invocation: str) -> InvocationRow:
    row = await host_of(request).invocations.find(invocation, caller.principal, of_anybody=caller.is_admin)
    if not caller.reaches(row.app_id):
        raise NotFound
    return row
