"""An invocation as server-sent events.

The framework's own support binds a route to one kind of response; this route returns JSON or events as its caller
asks, and must detect a disconnect immediately. So only the wire format is taken from it (`fastapi.sse`), and the
response is a small ASGI application.

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
    """A response that streams a started invocation. A caller that disconnects cancels it."""

    media_type = MEDIA_TYPE

    def __init__(self, followed: FollowedInvocation[ItemT, ResultT]) -> None:
        """Stream the events of `followed`."""
        super().__init__(
            headers={
                "cache-control": "no-store",
                "x-accel-buffering": "no",  # nginx would buffer the events
                "location": f"{PREFIX}/invocations/{followed.id}",
            }
        )
        del self.headers["content-length"]
        self._followed = followed

    def item(self, item: ItemT) -> bytes:
        """Encode an event."""
        raise NotImplementedError

    def end(self, result: ResultT) -> bytes:
        """Encode its end."""
        raise NotImplementedError

    def failure(self, error: LlmasosError) -> bytes:
        """Encode its failure."""
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
            pass  # the caller disconnected while a part was sent
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
            return  # the caller has disconnected: there is nobody to send it to
        try:
            yield self.end(await self._followed.result())
        except LlmasosError as error:
            yield self.failure(error)
        except Exception:
            # It was logged when it was raised; the stream must still say how it ended.
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
    """An event's content as JSON."""
    match event.kind:
        case "chunk":
            return ChunkEvent(text=event.text)
        case "progress":
            return ProgressEvent(fraction=event.fraction, message=event.text)
        case "notice":
            return NoticeEvent(message=event.text)


async def disconnect(receive: Receive) -> None:
    """Wait until the caller has disconnected."""
    with contextlib.suppress(OSError):
        while (await receive())["type"] != "http.disconnect":
            pass
