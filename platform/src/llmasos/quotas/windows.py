"""When a window begins and ends. Calendar windows are in UTC; everything is in seconds since the epoch."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import assert_never

from llmasos.quotas.meters import Window


def window_start(window: Window, at: int) -> int:
    """The first second of the window that contains `at`; 0 for a run, which has no calendar window."""
    match window:
        case Window.RUN:
            return 0
        case Window.MINUTE:
            return at - at % 60
        case Window.HOUR:
            return at - at % 3600
        case Window.DAY:
            # POSIX time has no leap seconds: a day is always 86,400 of its seconds.
            return at - at % 86_400
        case Window.MONTH:
            first = datetime.fromtimestamp(at, UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
            return int(first.timestamp())
        case _:
            assert_never(window)


def window_end(window: Window, at: int) -> int | None:
    """The first second after the window that contains `at`; None for a run, which has no fixed end."""
    start = window_start(window, at)
    match window:
        case Window.RUN:
            return None
        case Window.MINUTE:
            return start + 60
        case Window.HOUR:
            return start + 3600
        case Window.DAY:
            return start + 86_400
        case Window.MONTH:
            # Every month has 28 days at least and 31 at most: 32 days after its first is in the next.
            return window_start(Window.MONTH, start + 32 * 86_400)
        case _:
            assert_never(window)
