"""A run as server-sent events.

The framework's own support binds a route to one kind of response; this route answers JSON or events as its caller
asks, and must know of a disconnect at once. So only the wire format is taken from it (`fastapi.sse`), and the
response is an ASGI application of a page.

Every stream ends with one `end` or one `error`, with `usage` before it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final

from fastapi.sse import EventSourceResponse, format_sse_event
from pydantic import BaseModel
from starlette.types import Receive, Scope, Send
from typing_extensions import override

from llmasos.errors import LlmasosError
from llmasos.kernel.invocation import Event
from llmasos_server.rest.context import PREFIX
from llmasos_server.rest.live import LiveRun
from llmasos_server.rest.problems import problem_of
from llmasos_server.rest.schemas import ChunkEvent, EndEvent, NoticeEvent, ProgressEvent, UsageView

MEDIA_TYPE: Final = "text/event-stream"
# Proxies close a connection that is silent for 30 to 60 seconds.
HEARTBEAT_SECONDS: Final = 15.0
HEARTBEAT: Final = b": still running\n\n"


def encode(name: str, content: BaseModel) -> bytes:
    """One event on the wire. JSON has no raw line ends, so its data is one line."""
    return format_sse_event(event=name, data_str=content.model_dump_json(exclude_none=name == "error"))


def encode_event(event: Event) -> bytes:
    """Something that an invocation shows, on the wire."""
    match event.kind:
        case "chunk":
            return encode("chunk", ChunkEvent(text=event.text))
        case "progress":
            return encode("progress", ProgressEvent(fraction=event.fraction, message=event.text))
        case "notice":
            return encode("notice", NoticeEvent(message=event.text))


class RunStream(EventSourceResponse):
    """The response that streams a run which has begun. A caller who goes away cancels it."""

    def __init__(self, live: LiveRun) -> None:
        """Stream `live`."""
        headers = {
            "cache-control": "no-store",
            "x-accel-buffering": "no",  # nginx would hold the events back
            "location": f"{PREFIX}/invocations/{live.id}",
        }
        self._live = live
        super().__init__(self._parts(), headers=headers)

    @override
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the stream, as an ASGI application."""
        gone = asyncio.create_task(disconnect(receive))
        gone.add_done_callback(lambda _: self._live.cancel())
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            async for part in self._parts():
                await send({"type": "http.response.body", "body": part, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        except OSError:
            pass  # the caller went away while a part was sent
        finally:
            gone.cancel()
            await self._live.end()

    async def _parts(self) -> AsyncIterator[bytes]:
        while True:
            try:
                async with asyncio.timeout(HEARTBEAT_SECONDS):
                    event = await self._live.next_event()
            except TimeoutError:
                yield HEARTBEAT
                continue
            if event is None:
                break
            yield encode_event(event)
        if self._live.was_cancelled:
            return  # the caller has gone: there is nobody to tell
        try:
            result = await self._live.result()
        except LlmasosError as error:
            yield encode("usage", UsageView.of(self._live.usage))
            yield encode("error", problem_of(error, locale=self._live.locale, invocation=self._live.id))
        except Exception:
            # Logged where it was raised; a stream must not end without saying how.
            yield encode("usage", UsageView.of(self._live.usage))
            yield encode("error", problem_of(LlmasosError(), locale=self._live.locale, invocation=self._live.id))
        else:
            yield encode("usage", UsageView.of(result.usage))
            yield encode("end", EndEvent(id=result.id, output=result.output))


async def disconnect(receive: Receive) -> None:
    """Wait until the caller has gone."""
    with contextlib.suppress(OSError):
        while (await receive())["type"] != "http.disconnect":
            pass
