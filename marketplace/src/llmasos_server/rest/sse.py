"""An invocation as server-sent events.

The framework's own support binds a route to one kind of response; this route returns JSON or events as its caller
asks, and must detect a disconnect immediately. So only the wire format is taken from it (`fastapi.sse`), and the
response is a small ASGI application.

Every stream ends with one `end` or one `error`, with `usage` before it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final, Generic, TypeAlias

from fastapi import Response
from fastapi.sse import format_sse_event
from pydantic import BaseModel
from starlette.types import Receive, Scope, Send
from typing_extensions import override

from llmasos.errors import LlmasosError
from llmasos.invocations.events import FollowedInvocation, ItemT, ResultT
from llmasos.invocations.journal import Ending, EventJournal
from llmasos.invocations.result import InvocationResult
from llmasos.kernel.invocation import Event
from llmasos_server.rest.context import PREFIX
from llmasos_server.rest.problems import problem_of
from llmasos_server.rest.schemas import ChunkEvent, EndEvent, GapEvent, NoticeEvent, ProgressEvent, UsageView

MEDIA_TYPE: Final = "text/event-stream"
# Proxies close a connection that is silent for 30 to 60 seconds.
HEARTBEAT_SECONDS: Final = 15.0
HEARTBEAT: Final = b": still running\n\n"
EVENTS: Final = {
    "type": "string",
    "description": "Server-sent events, each with an id: `chunk` {text}, `progress` {fraction, message}, `notice` "
    "{message}, `gap` {first, last} for events that are not kept any more; at the end `usage` (as in the JSON answer), "
    "then one `end` {id, output} or one `error` (a problem document).",
}
STREAM_HEADERS: Final = {"cache-control": "no-store", "x-accel-buffering": "no"}  # nginx would buffer the events


class FollowedStream(Response, Generic[ItemT, ResultT]):
    """A response that streams a started invocation. A caller that disconnects cancels it."""

    media_type = MEDIA_TYPE

    def __init__(self, followed: FollowedInvocation[ItemT, ResultT]) -> None:
        """Stream the events of `followed`."""
        super().__init__(headers={**STREAM_HEADERS, "location": f"{PREFIX}/invocations/{followed.id}"})
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
        return encoded(self._sent, name, content)


Until: TypeAlias = Callable[[], Awaitable[object]]


class JournalStream(Response):
    """The events of an invocation behind one that its reader knows; a reader who goes away ends nothing."""

    media_type = MEDIA_TYPE

    def __init__(self, id_: str, journal: EventJournal, after: int, locale: str, until: Until) -> None:
        """Stream a journal.

        Args:
            id_: The invocation's id.
            journal: Its events.
            after: The number of the last event that the reader has; 0 for none.
            locale: The reader's language.
            until: Waits until the reader may see no more, which ends the stream.
        """
        super().__init__(headers=STREAM_HEADERS)
        del self.headers["content-length"]
        self._id, self._journal, self._at, self._locale, self._until = id_, journal, after, locale, until

    @override
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the stream, as an ASGI application."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        sending = asyncio.ensure_future(self._send(send))
        ends = [asyncio.ensure_future(disconnect(receive)), asyncio.ensure_future(self._until())]
        try:
            await asyncio.wait([sending, *ends], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (sending, *ends):
                task.cancel()
            await asyncio.gather(sending, *ends, return_exceptions=True)
        with contextlib.suppress(OSError):
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send(self, send: Send) -> None:
        with contextlib.suppress(OSError):  # the reader went away while a part was sent
            async for part in self._parts():
                await send({"type": "http.response.body", "body": part, "more_body": True})

    async def _parts(self) -> AsyncIterator[bytes]:
        journal = self._journal
        while journal.last > self._at or (journal.ending is None and not journal.closed):
            try:
                async with asyncio.timeout(HEARTBEAT_SECONDS):
                    await journal.beyond(self._at)
            except TimeoutError:
                yield HEARTBEAT
                continue
            if part := self._new_events():
                yield part
        if journal.ending is not None:
            yield self._ending(journal.ending)

    def _new_events(self) -> bytes:
        """The events that the reader does not have, some at a time."""
        parts: list[bytes] = []
        first = self._journal.first
        if self._at < first - 1:
            parts.append(encoded(first - 1, "gap", GapEvent(first=self._at + 1, last=first - 1)))
            self._at = first - 1
        for event in self._journal.after(self._at):
            self._at += 1
            parts.append(encoded(self._at, event.kind, content_of(event)))
        return b"".join(parts)

    def _ending(self, ending: Ending) -> bytes:
        """The usage and the end, numbered behind all events that the reader has."""
        parts: list[bytes] = []
        last = ending.events if ending.is_complete else max(ending.events, self._at)
        if self._at <= last:
            parts.append(encoded(last + 1, "usage", UsageView.of(ending.usage)))
        if ending.error is not None:
            problem = problem_of(ending.error, locale=self._locale, invocation=self._id)
            parts.append(encoded(last + 2, "error", problem))
        elif ending.output_json is None:
            parts.append(encoded(last + 2, "end", EndEvent(id=self._id, output=None, kept=False)))
        else:
            output = json.loads(ending.output_json)
            parts.append(encoded(last + 2, "end", EndEvent(id=self._id, output=output)))
        return b"".join(parts)


def has_all(journal: EventJournal, after: int) -> bool:
    """Whether the reader of the event numbered `after` has the end already."""
    ending = journal.ending
    return ending is not None and ending.is_complete and after >= ending.events + 2


def encoded(number: int, name: str, content: BaseModel) -> bytes:
    """One event on the wire."""
    # An output or a usage has its nulls; what else is null is left out.
    data = content.model_dump_json(exclude_none=name == "error", exclude_unset=name == "end")
    return format_sse_event(event=name, data_str=data, id=str(number))


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
