"""`POST /api/v1/apps/{publisher}/{name}/actions/{action}`: run an action; the response is JSON or events."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, Final

from fastapi import APIRouter, Header, Path, Request, Response
from fastapi.responses import JSONResponse

from llmasos.errors import (
    Cancelled,
    Denied,
    Invalid,
    LlmasosError,
    NotFound,
    QuotaExceeded,
    TimedOut,
    Unauthenticated,
    Unavailable,
)
from llmasos.invocations.events import FollowedInvocation
from llmasos.invocations.idempotency import Claim, IdempotencyKeyReused, IdempotencyKeys, KeyedRequest
from llmasos.invocations.result import InvocationResult
from llmasos.invocations.run import not_installed
from llmasos.kernel.invocation import Event, new_id
from llmasos_server.rest import sse
from llmasos_server.rest.context import PREFIX, host_of
from llmasos_server.rest.following import GONE, end_when_revoked, json_body, unless_gone
from llmasos_server.rest.identity import MayRun
from llmasos_server.rest.problems import (
    BodyTooLarge,
    InvalidJson,
    NotAcceptable,
    OutputNotKept,
    RequestTimeout,
    ScopeMissing,
    UnsupportedMediaType,
    respond,
    responses,
)
from llmasos_server.rest.repeated import accepted, repeated
from llmasos_server.rest.schemas import ActionView, InvocationStatus, RunView

router = APIRouter(prefix=PREFIX, tags=["invocations"])

_BODY: Final = {
    "required": True,
    "description": "The action's input, one JSON object, as the action's input schema says.",
    "content": {"application/json": {"schema": {"type": "object", "additionalProperties": True}}},
}
_FAILURES: Final = responses(
    InvalidJson,
    Unauthenticated,
    Denied,
    ScopeMissing,
    NotFound,
    NotAcceptable,
    RequestTimeout,
    IdempotencyKeyReused,
    OutputNotKept,
    BodyTooLarge,
    UnsupportedMediaType,
    Invalid,
    QuotaExceeded,
    Cancelled,
    LlmasosError,
    Unavailable,
    TimedOut,
)


@router.post(
    "/apps/{publisher}/{name}/actions/{action}",
    operation_id="run_action",
    summary="Run an action",
    response_model=RunView,
    responses={
        202: {"description": "It runs, as `prefer: respond-async` asked.", "model": InvocationStatus},
        200: {"description": "How it ended, or its events.", "content": {sse.MEDIA_TYPE: {"schema": sse.EVENTS}}},
        **_FAILURES,
    },
    openapi_extra={"requestBody": _BODY},
)
async def run_action(
    request: Request,
    caller: MayRun,
    *,
    publisher: Annotated[str, Path(max_length=64)],
    name: Annotated[str, Path(max_length=64)],
    action: Annotated[str, Path(max_length=128)],
    prefer: Annotated[
        str, Header(max_length=255, description="`respond-async` returns at once; the run goes on by itself.")
    ] = "",
    idempotency_key: Annotated[
        str | None,
        Header(description="For a day, the same request under the same key returns the same invocation."),
    ] = None,
) -> Response:
    """Run an action of an installed app and return its output.

    With `accept: text/event-stream` the run is streamed. The header `location` names the invocation, which a DELETE
    cancels; so does closing the connection. With `prefer: respond-async` the answer is 202 once the run has begun, and
    nothing but a DELETE cancels it; `/invocations/{id}/events` follows it.
    """
    streamed, later = _wants_events(request), _wants_to_return(prefer)
    value = await json_body(request)
    app_id = f"{publisher}/{name}"
    if not caller.reaches(app_id):
        raise not_installed(app_id)
    host, principal, id_ = host_of(request), caller.principal, new_id()
    keys, keyed, claim = host.invocations.keys, None, None
    if idempotency_key is not None:
        keyed = KeyedRequest.of(principal, idempotency_key, app_id, action, value)
        claim = await keys.claim(keyed)
        id_ = claim.invocation_id
        if not claim.is_new:
            return await repeated(request, caller, id_, streamed=streamed, later=later)
    followed = FollowedInvocation[Event, InvocationResult](
        lambda emit, on_start: host.actions.run(principal, app_id, action, value, emit, on_start=on_start, id_=id_),
        streamed=streamed and not later,
    )
    if keyed is not None and claim is not None:
        followed.when_ended(partial(_release_unless_begun, followed, keys, keyed, claim))
    end_when_revoked(request, caller, followed)
    if later:
        followed.detach()
        await followed.begun()
        return accepted(InvocationStatus(id=id_, status="running"))
    if streamed:
        return await _streamed(request, followed)
    return await _answered(request, followed)


def _release_unless_begun(
    followed: FollowedInvocation[Any, Any], keys: IdempotencyKeys, keyed: KeyedRequest, claim: Claim
) -> None:
    if not followed.has_begun:
        keys.release(keyed, claim)


def _wants_to_return(prefer: str) -> bool:
    """Whether the caller prefers an answer before the run has ended (RFC 7240)."""
    return any(part.partition(";")[0].strip().lower() == "respond-async" for part in prefer.split(","))


@router.get(
    "/apps/{publisher}/{name}/actions/{action}",
    operation_id="read_action",
    summary="Read an action",
    responses=responses(Unauthenticated, ScopeMissing, NotFound),
)
async def read_action(
    request: Request,
    caller: MayRun,
    publisher: Annotated[str, Path(max_length=64)],
    name: Annotated[str, Path(max_length=64)],
    action: Annotated[str, Path(max_length=128)],
) -> ActionView:
    """The inputs and the output of an installed app's action."""
    app_id = f"{publisher}/{name}"
    if not caller.reaches(app_id):
        raise not_installed(app_id)
    found = host_of(request).actions.action(caller.principal.workspace, app_id, action)
    return ActionView.of(found, caller.principal.locale)


async def _streamed(request: Request, followed: FollowedInvocation[Any, Any]) -> Response:
    try:
        here = await unless_gone(request, followed, followed.begun())
    except BaseException:
        await followed.end()
        raise
    return sse.EventStream(followed) if here else GONE


async def _answered(request: Request, followed: FollowedInvocation[Any, Any]) -> Response:
    try:
        if not await unless_gone(request, followed, followed.settled()):
            return GONE
        result = await followed.result()
    except LlmasosError as error:
        return respond(error, request, invocation=followed.id if followed.has_begun else None)
    finally:
        await followed.end()
    view = RunView.of(result).model_dump(mode="json", exclude_unset=True)
    return JSONResponse(view, headers={"location": f"{PREFIX}/invocations/{result.id}"})


def _wants_events(request: Request) -> bool:
    """Which of the two representations the caller prefers; if equal, the one that it names first.

    Raises:
        NotAcceptable: The caller accepts neither.
    """
    accept = request.headers.get("accept", "").strip()
    if not accept:
        return False
    best: tuple[float, bool] | None = None
    for part in accept.split(","):
        media, *parameters = (word.strip().lower() for word in part.split(";"))
        if media not in (sse.MEDIA_TYPE, "application/json", "application/*", "*/*"):
            continue
        quality = 1.0
        for parameter in parameters:
            if parameter.startswith("q="):
                try:
                    quality = float(parameter[2:])
                except ValueError:
                    quality = 0.0
        if quality > 0 and (best is None or quality > best[0]):
            best = quality, media == sse.MEDIA_TYPE
    if best is None:
        raise NotAcceptable
    return best[1]
