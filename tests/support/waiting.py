"""Waiting for what happens in another process or thread, which sets no event here."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


async def until(condition: Callable[[], object], seconds: float = 20) -> None:
    """Return as soon as the condition is true.

    Raises:
        TimeoutError: It is not after so many seconds.
    """
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - no event here is set by another process
            await asyncio.sleep(0.01)
