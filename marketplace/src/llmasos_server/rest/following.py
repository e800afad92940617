"""A request that starts an invocation: its body, and what ends the invocation early."""

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

# The body must have arrived by then: a caller that sends a byte a second must not occupy a connection for longer.
BODY_SECONDS: Final = 30.0
# A response that nobody receives: the caller has closed the connection.
GONE: Final = Response(status_code=Cancelled.status)


async def unless_gone(
    request: Request, followed: FollowedInvocation[Any, Any], wait: Coroutine[Any, Any, None]
) -> bool:
    """Wait, and return whether the caller is still connected. A caller that disconnects ends the invocation."""
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
    """End an invocation once its caller's token is no longer valid."""

    async def watch() -> None:
        await until_revoked(request, caller)
        followed.end_for(Unauthenticated(_("The token was revoked or has expired while this ran.")))

    followed.when_ended(asyncio.create_task(watch()).cancel)


async def json_body(request: Request) -> Any:
    """Read the body, one JSON value; an empty body is an empty object.

    Raises:
        RequestTimeout: It did not arrive in time.
        UnsupportedMediaType: Its media type is not JSON.
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
