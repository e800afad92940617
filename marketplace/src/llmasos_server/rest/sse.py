"""An invocation as server-sent events.

The framework's own support binds a route to one kind of response; this route answers JSON or events as its caller
asks, and must know of a disconnect at once. So only the wire format is taken from it (`fastapi.sse`), and the
response is an ASGI application of a page.

Every stream ends with one `end` or one `error`, with `usage` before it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final, Generic

from fastapi import Response
from fastapi.sse import format_sse_event
from pydantic import BaseModel
from starlette.types import Receive, Scope, Send
from typing_extensions import override

from llmasos.errors import LlmasosError
from llmasos.invocations.events import FollowedInvocation, ItemT, ResultT
from llmasos.invocations.result import InvocationResult
from llmasos.kernel.invocation import Event
from llmasos_server.rest.context import PREFIX
from llmasos_server.rest.problems import problem_of
from llmasos_server.rest.schemas import ChunkEvent, EndEvent, NoticeEvent, ProgressEvent, UsageView

MEDIA_TYPE: Final = "text/event-stream"
# Proxies close a connection that is silent for 30 to 60 seconds.
HEARTBEAT_SECONDS: Final = 15.0
HEARTBEAT: Final = b": still running\n\n"


class FollowedStream(Response, Generic[ItemT, ResultT]):
    """A response that streams an invocation which has begun. A caller who goes away cancels it."""

    media_type = MEDIA_TYPE

    def __init__(self, followed: FollowedInvocation[ItemT, ResultT]) -> None:
        """Stream what `followed` shows."""
        super().__init__(
            headers={
                "cache-control": "no-store",
                "x-accel-buffering": "no",  # nginx would hold the events back
                "location": f"{PREFIX}/invocations/{followed.id}",
            }
        )
        del self.headers["content-length"]
        self._followed = followed

    def item(self, item: ItemT) -> bytes:
        """Something that it shows, on the wire."""
        raise NotImplementedError

    def end(self, result: ResultT) -> bytes:
        """Its end, on the wire."""
        raise NotImplementedError

    def failure(self, error: LlmasosError) -> bytes:
        """Its failure, on the wire."""
        raise NotImplementedError

    @override
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the stream, as an ASGI application."""
        gone = asyncio.create_task(disconnect(receive))
        gone.add_done_callback(lambda _: self._followed.cancel())
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            async for part in self._parts():
                await send({"type": "http.response.body", "body": part, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        except OSError:
            pass  # the caller went away while a part was sent
        finally:
            gone.cancel()
            await self._followed.end()

    async def _parts(self) -> AsyncIterator[bytes]:
        while True:
            try:
                async with asyncio.timeout(HEARTBEAT_SECONDS):
                    item = await self._followed.next_event()
            except TimeoutError:
                yield HEARTBEAT
                continue
            if item is None:
                break
            yield self.item(item)
        if self._followed.was_cancelled:
            return  # the caller has gone: there is nobody to tell
        try:
            yield self.end(await self._followed.result())
        except LlmasosError as error:
            yield self.failure(error)
        except Exception:
            # Logged where it was raised; a stream must not end without saying how.
            yield self.failure(LlmasosError())


class EventStream(FollowedStream[Event, InvocationResult]):
    """The events of a run of an action, numbered from 1."""

    def __init__(self, followed: FollowedInvocation[Event, InvocationResult]) -> None:
        """Stream the events of `followed`."""
        super().__init__(followed)
        self._sent = 0

    @override
    def item(self, item: Event) -> bytes:
        return self._encoded(item.kind, content_of(item))

    @override
    def end(self, result: InvocationResult) -> bytes:
        usage = self._encoded("usage", UsageView.of(result.usage))
        return usage + self._encoded("end", EndEvent(id=result.id, output=result.output))

    @override
    def failure(self, error: LlmasosError) -> bytes:
        followed = self._followed
        usage = self._encoded("usage", UsageView.of(followed.usage))
        problem = problem_of(error, locale=followed.locale, invocation=followed.id)
        return usage + self._encoded("error", problem)

    def _encoded(self, name: str, content: BaseModel) -> bytes:
        self._sent += 1
        data = content.model_dump_json(exclude_none=name == "error")
        return format_sse_event(event=name, data_str=data, id=str(self._sent))


def content_of(event: Event) -> BaseModel:
    """What an event carries, as JSON."""
    match event.kind:
        case "chunk":
            return ChunkEvent(text=event.text)
        case "progress":
            return ProgressEvent(fraction=event.fraction, message=event.text)
        case "notice":
            return NoticeEvent(message=event.text)


async def disconnect(receive: Receive) -> None:
    """Wait until the caller has gone."""
    with contextlib.suppress(OSError):
        while (await receive())["type"] != "http.disconnect":
            pass
