"""An event loop for a component, which has no sockets: `asyncio.run` works for what waits for time or for itself."""

from __future__ import annotations

import asyncio
import time
from typing import Any


class SleepingLoop(asyncio.BaseEventLoop):
    """Runs what is ready, and sleeps until the next timer."""

    def __init__(self) -> None:
        super().__init__()
        self._selector = self  # what `BaseEventLoop` waits with

    def select(self, timeout: float | None) -> list[Any]:
        """Sleep.

        Raises:
            RuntimeError: Nothing will ever wake it up.
        """
        if timeout is None:
            raise RuntimeError("every task waits for another, and a component has no threads or sockets to wait for")
        time.sleep(timeout)
        return []

    def _process_events(self, event_list: list[Any]) -> None:
        pass

    def _write_to_self(self) -> None:
        pass


def install() -> None:
    """Let `asyncio.run` and `asyncio.new_event_loop` make such loops."""
    for module in (asyncio, asyncio.events):
        setattr(module, "new_event_loop", SleepingLoop)  # noqa: B010 (a type checker does not accept the assignment)
