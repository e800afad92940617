"""The reader of a stream, who may leave before its end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llmasos.kernel.invocation import Event, EventSink


@asynccontextmanager
async def stopping_with_the_reader(show: Callable[[Event], None]) -> AsyncGenerator[EventSink]:
    """A sink that shows the events of an invocation; once nobody reads them, what runs in the block is cancelled.

    Args:
        show: Prints an event.

    Raises:
        BrokenPipeError: The reader left.
    """
    task = asyncio.current_task()
    left = False

    async def sink(event: Event) -> None:
        nonlocal left
        if left:
            await asyncio.sleep(0)  # raises the cancellation, if the app awaits nothing else
            return
        try:
            show(event)
        except BrokenPipeError:
            # Raised here, it would count as a failure of the host within the app's own call.
            left = True
            if task is not None:
                task.cancel()

    try:
        yield sink
        await asyncio.sleep(0)  # raises a cancellation that arrived with the last event
    except asyncio.CancelledError:
        if left and task is not None and task.uncancel() == 0:
            raise BrokenPipeError from None
        raise
