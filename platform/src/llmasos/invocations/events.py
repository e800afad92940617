"""An invocation that a request started: a short queue of its events, its end, and its cancellation."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Final, Generic, TypeAlias, TypeVar

from llmasos.errors import LlmasosError
from llmasos.kernel.invocation import Invocation, InvocationUsage

logger = logging.getLogger(__name__)

# How many events a slow reader may lag behind before the app has to wait.
QUEUED_EVENTS: Final = 64

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")
Sink: TypeAlias = Callable[[ItemT], Awaitable[None]]
Start: TypeAlias = Callable[[Sink[ItemT], Callable[[Invocation], None]], Awaitable[ResultT]]
"""Runs it to its result: gets the sink of what it shows, and a function to call once it is admitted."""


class _Queue(Generic[ItemT]):
    """Items from one writer to one reader. The writer waits while it is full; once closed, it ends."""

    def __init__(self) -> None:
        self._items: deque[ItemT] = deque()
        self._changed = asyncio.Event()
        self._closed = False

    async def put(self, item: ItemT) -> None:
        while len(self._items) >= QUEUED_EVENTS:
            await self._change()
        self._items.append(item)
        self._changed.set()

    async def get(self) -> ItemT | None:
        while not self._items:
            if self._closed:
                return None
            await self._change()
        item = self._items.popleft()
        self._changed.set()
        return item

    def close(self) -> None:
        self._closed = True
        self._changed.set()

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()


class FollowedInvocation(Generic[ItemT, ResultT]):
    """Starts an invocation immediately; `begun` waits for its admission, which decides a response's status."""

    def __init__(self, start: Start[ItemT, ResultT], *, streamed: bool) -> None:
        """Run `start`; keep its events only if they are `streamed`."""
        self.ended_for: LlmasosError | None = None
        """What `end_for` ended it with."""
        self._events: _Queue[ItemT] = _Queue()
        self._invocation: asyncio.Future[Invocation] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._run(start, self._events.put if streamed else _drop))

    @property
    def id(self) -> str:
        """The invocation's id. Only once it has begun."""
        return self._invocation.result().id

    @property
    def usage(self) -> InvocationUsage:
        """What was used so far. Only once it has begun."""
        return self._invocation.result().usage

    @property
    def locale(self) -> str:
        """The caller's language. Only once it has begun."""
        return self._invocation.result().principal.locale

    @property
    def has_begun(self) -> bool:
        """Whether it was admitted."""
        return self._invocation.done() and not self._invocation.cancelled()

    async def begun(self) -> None:
        """Wait until it is admitted.

        Raises:
            LlmasosError: Why it could not start.
        """
        either: set[asyncio.Future[Any]] = {self._task, self._invocation}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if not self._invocation.done():
            await self._task

    @property
    def was_cancelled(self) -> bool:
        """Whether `cancel` or `end` ended it because its caller left."""
        return self.ended_for is None and (self._task.cancelling() > 0 or self._task.cancelled())

    async def next_event(self) -> ItemT | None:
        """The next event; None once it has ended and all events were read."""
        return await self._events.get()

    async def result(self) -> ResultT:
        """Return its result.

        Raises:
            LlmasosError: How it failed.
        """
        try:
            return await asyncio.shield(self._task)
        except asyncio.CancelledError:
            if self.ended_for is not None and self._task.cancelled():
                raise self.ended_for from None
            raise

    def when_ended(self, callback: Callable[[], object]) -> None:
        """Call `callback` once it has ended in any way."""
        self._task.add_done_callback(lambda _: callback())

    def end_for(self, error: LlmasosError) -> None:
        """End it with an error that its caller receives. Does nothing once it has ended."""
        if self.ended_for is None and not self._task.done():
            self.ended_for = error
            self._task.cancel()

    def cancel(self) -> None:
        """Request its end. Does nothing once it has ended."""
        self._task.cancel()

    def detach(self) -> None:
        """Let it run on without its caller: nobody asks for its result here."""
        self._task.add_done_callback(lambda task: task.cancelled() or task.exception())

    async def settled(self) -> None:
        """Wait until it has ended in any way and its reservations are settled."""
        await asyncio.wait({self._task})

    async def end(self) -> None:
        """End it and wait until its reservations are settled. Idempotent."""
        self._task.cancel()
        await asyncio.wait({self._task})
        if not self._task.cancelled():
            self._task.exception()  # retrieved, so that asyncio does not log it: the caller has left

    async def _run(self, start: Start[ItemT, ResultT], emit: Sink[ItemT]) -> ResultT:
        try:
            return await start(emit, self._began)
        except LlmasosError:
            raise
        except Exception:
            logger.exception("an invocation failed with an unforeseen error")
            raise
        finally:
            self._events.close()

    def _began(self, invocation: Invocation) -> None:
        if not self._invocation.done():
            self._invocation.set_result(invocation)


async def _drop(_item: object) -> None:
    """The sink of a caller that ignores events."""
