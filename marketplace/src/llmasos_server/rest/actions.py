"""`POST /api/v1/apps/{publisher}/{name}/actions/{action}`: run an action, answered as JSON or as events."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Annotated, Any, Final

import msgspec
from fastapi import APIRouter, Path, Request, Response
from fastapi.responses import JSONResponse

from llmasos.errors import (
    Cancelled,
    Conflict,
    Denied,
    Invalid,
    LlmasosError,
    NotFound,
    QuotaExceeded,
    TimedOut,
    Unauthenticated,
    Unavailable,
)
from llmasos.i18n import _
from llmasos.invocations.events import FollowedInvocation
from llmasos.invocations.run import not_installed
from llmasos_server.rest import sse
from llmasos_server.rest.context import PREFIX, host_of
from llmasos_server.rest.identity import Runner, until_revoked
from llmasos_server.rest.problems import (
    BodyTooLarge,
    InvalidJson,
    NotAcceptable,
    RequestTimeout,
    ScopeMissing,
    UnsupportedMediaType,
    respond,
    responses,
)
from llmasos_server.rest.schemas import ActionView, RunView

router = APIRouter(prefix=PREFIX, tags=["invocations"])

# The body must be here by then: a caller who sends a byte a second holds a connection, and no more than that.
BODY_SECONDS: Final = 30.0

_EVENTS: Final = {
    "type": "string",
    "description": "Server-sent events: `chunk` {text}, `progress` {fraction, message}, `notice` {message}; at the end "
    "`usage` (as in the JSON answer), then one `end` {id, output} or one `error` (a problem document).",
}
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
    Conflict,
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
        200: {"description": "How it ended, or its events.", "content": {sse.MEDIA_TYPE: {"schema": _EVENTS}}},
        **_FAILURES,
    },
    openapi_extra={"requestBody": _BODY},
)
async def run_action(
    request: Request,
    caller: Runner,
    publisher: Annotated[str, Path(max_length=64)],
    name: Annotated[str, Path(max_length=64)],
    action: Annotated[str, Path(max_length=128)],
) -> Response:
    """Run an action of an installed app and answer with its output.

    With `accept: text/event-stream` the run is streamed. The header `location` names the invocation, which a DELETE
    cancels; so does closing the connection.
    """
    streamed = _wants_events(request)
    value = await _input_of(request)
    app_id = f"{publisher}/{name}"
    if not caller.reaches(app_id):
        raise not_installed(app_id)
    actions = host_of(request).actions
    followed = FollowedInvocation(
        lambda emit, on_start: actions.run(caller.principal, app_id, action, value, emit, on_start=on_start),
        streamed=streamed,
    )
    watch = asyncio.create_task(_end_when_revoked(request, caller, followed))
    followed.when_ended(watch.cancel)
    if streamed:
        return await _streamed(request, followed)
    return await _answered(request, followed)


async def _end_when_revoked(request: Request, caller: Runner, followed: FollowedInvocation) -> None:
    await until_revoked(request, caller)
    followed.end_for(Unauthenticated(_("The token was revoked or has expired while this ran.")))


@router.get(
    "/apps/{publisher}/{name}/actions/{action}",
    operation_id="read_action",
    summary="Read an action",
    responses=responses(Unauthenticated, ScopeMissing, NotFound),
)
async def read_action(
    request: Request,
    caller: Runner,
    publisher: Annotated[str, Path(max_length=64)],
    name: Annotated[str, Path(max_length=64)],
    action: Annotated[str, Path(max_length=128)],
) -> ActionView:
    """What an action of an installed app takes and answers."""
    app_id = f"{publisher}/{name}"
    if not caller.reaches(app_id):
        raise not_installed(app_id)
    found = host_of(request).actions.action(caller.principal.workspace, app_id, action)
    return ActionView.of(found, caller.principal.locale)


async def _streamed(request: Request, followed: FollowedInvocation) -> Response:
    try:
        here = await _unless_gone(request, followed, followed.begun())
    except BaseException:
        await followed.end()
        raise
    return sse.EventStream(followed) if here else _GONE


async def _answered(request: Request, followed: FollowedInvocation) -> Response:
    try:
        if not await _unless_gone(request, followed, followed.settled()):
            return _GONE
        result = await followed.result()
    except LlmasosError as error:
        return respond(error, request, invocation=followed.id if followed.has_begun else None)
    finally:
        await followed.end()
    view = RunView.of(result).model_dump(mode="json", exclude_unset=True)
    return JSONResponse(view, headers={"location": f"{PREFIX}/invocations/{result.id}"})


# What is sent to nobody: the caller has closed the connection.
_GONE: Final = Response(status_code=Cancelled.status)


async def _unless_gone(request: Request, followed: FollowedInvocation, wait: Coroutine[Any, Any, None]) -> bool:
    """Wait, while the caller is there; whether it still is. One who goes away ends the run."""
    waiting, gone = asyncio.create_task(wait), asyncio.create_task(sse.disconnect(request.receive))
    try:
        await asyncio.wait({waiting, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done():
            await followed.end()
            return False
        await waiting
        return True
    finally:
        waiting.cancel()
        gone.cancel()


def _wants_events(request: Request) -> bool:
    """Which of the two representations the caller prefers; of equals, the one it names first.

    Raises:
        NotAcceptable: Neither.
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


async def _input_of(request: Request) -> Any:
    """The body, one JSON value; an empty body is an empty object.

    Raises:
        RequestTimeout: It did not arrive in time.
        UnsupportedMediaType: It is said to be something else than JSON.
        InvalidJson: It is not JSON.
    """
    try:
        async with asyncio.timeout(BODY_SECONDS):
            body = await request.body()
    except TimeoutError as error:
        raise RequestTimeout from error
    if not body:
        return {}
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media != "application/json" and not media.endswith("+json"):
        raise UnsupportedMediaType
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidJson(_("The body is not JSON: {error}.", error=error)) from error
