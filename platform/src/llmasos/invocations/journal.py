"""The events of one invocation, numbered from 1, as any number of readers follow them; and its end."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from llmasos.errors import LlmasosError
from llmasos.kernel.invocation import Event, InvocationUsage

# What a run may show, 1 MiB, with room for what each event costs besides. Past it the oldest events are left out.
MAX_JOURNAL_BYTES: Final = 4 << 20
_EVENT_BYTES: Final = 100
# At the limit so much goes at once: leaving out one by one would move the rest of the list each time.
_LEFT_OUT_AT_ONCE: Final = MAX_JOURNAL_BYTES // 4
# What a reader takes at a time.
READ_AT_ONCE: Final = 256


@dataclass(frozen=True, slots=True)
class Ending:
    """How an invocation ended. `usage` is numbered behind the last event, `end` or `error` behind that."""

    events: int
    """The number of the last event before it."""
    usage: InvocationUsage
    error: LlmasosError | None
    """Why it failed; None if it succeeded."""
    output_json: str | None = None
    """What it returned; None if that is not kept."""
    is_complete: bool = True
    """Whether its events are numbered as every reader saw them; not so if its host died before it wrote them down."""


class EventJournal:
    """The newest events of an invocation, up to `MAX_JOURNAL_BYTES`.

    Belongs to one event loop. Whoever appends waits for no reader.
    """

    def __init__(self, first: int = 1) -> None:
        """Begin with the event numbered `first`."""
        self.first = first
        """The number of the oldest event that is still here."""
        self.ending: Ending | None = None
        self.closed = False
        """Whether readers shall end although the invocation has not: the host stops."""
        self._events: list[Event] = []
        self._size_bytes = 0
        self._changed = asyncio.Event()

    @property
    def last(self) -> int:
        """The number of the newest event; one below `first` if there is none."""
        return self.first + len(self._events) - 1

    def append(self, event: Event) -> None:
        """Add the next event."""
        self._events.append(event)
        self._size_bytes += _size(event)
        if self._size_bytes > MAX_JOURNAL_BYTES:
            self._leave_out(self._size_bytes - MAX_JOURNAL_BYTES + _LEFT_OUT_AT_ONCE)
        self._wake()

    def restart(self, first: int) -> None:
        """Leave out all there is, and go on with the event numbered `first`."""
        self.first, self._events, self._size_bytes = first, [], 0

    def end(self, ending: Ending) -> None:
        """Nothing follows."""
        self.ending = ending
        self._wake()

    def close(self) -> None:
        """End the readers; the invocation may go on elsewhere."""
        self.closed = True
        self._wake()

    def after(self, number: int, limit: int = READ_AT_ONCE) -> Sequence[Event]:
        """The events that follow the one numbered `number`, as far as they are here."""
        start = max(0, number + 1 - self.first)
        return self._events[start : start + limit]

    async def beyond(self, number: int) -> None:
        """Wait until there is an event behind the one numbered `number`, or the end."""
        while self.last <= number and self.ending is None and not self.closed:
            await self._changed.wait()

    async def ended(self) -> None:
        """Wait for the end."""
        while self.ending is None and not self.closed:
            await self._changed.wait()

    @property
    def shown(self) -> str:
        """The text of its chunks, as far as they are here."""
        return "".join(event.text for event in self._events if event.kind == "chunk")

    def _leave_out(self, size_bytes: int) -> None:
        count = 0
        while size_bytes > 0 and count < len(self._events):
            size_bytes -= _size(self._events[count])
            count += 1
        self._size_bytes -= sum(map(_size, self._events[:count]))
        del self._events[:count]
        self.first += count

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


def _size(event: Event) -> int:
    return len(event.text) + _EVENT_BYTES
