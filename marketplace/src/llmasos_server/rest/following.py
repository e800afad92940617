"""A request that begins an invocation: its body, and what ends it before its time."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Final

import msgspec
from fastapi import Request, Response

from llmasos.errors import Cancelled, Unauthenticated
from llmasos.i18n import _
from llmasos.invocations.events import FollowedInvocation
from llmasos_server.rest import sse
from llmasos_server.rest.identity import Caller, until_revoked
from llmasos_server.rest.problems import InvalidJson, RequestTimeout, UnsupportedMediaType

# The body must be here by then: a caller who sends a byte a second holds a connection, and no more than that.
BODY_SECONDS: Final = 30.0
# What is sent to nobody: the caller has closed the connection.
GONE: Final = Response(status_code=Cancelled.status)


async def unless_gone(
    request: Request, followed: FollowedInvocation[Any, Any], wait: Coroutine[Any, Any, None]
) -> bool:
    """Wait while the caller is there; whether it still is. A caller who goes away ends the invocation."""
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


def end_when_revoked(request: Request, caller: Caller, followed: FollowedInvocation[Any, Any]) -> None:
    """End an invocation, from here on, once its caller's token is good no more."""

    async def watch() -> None:
        await until_revoked(request, caller)
        followed.end_for(Unauthenticated(_("The token was revoked or has expired while this ran.")))

    followed.when_ended(asyncio.create_task(watch()).cancel)


async def json_body(request: Request) -> Any:
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
