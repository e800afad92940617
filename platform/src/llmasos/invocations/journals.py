"""The journals of a process: of what it runs, written down as they grow, and of what others run or ran, read back.

An event is shown before it is written down; the end of an invocation is committed before anybody is told of it.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Final
from weakref import WeakValueDictionary

from sqlmodel import Session, col, func, select

from llmasos.database.dialect import SqlValue
from llmasos.database.engine import Database
from llmasos.database.text import storable
from llmasos.database.transaction import Transaction
from llmasos.database.write_queue import WriteKind
from llmasos.errors import Unavailable, error_with_code
from llmasos.i18n import from_text
from llmasos.invocations import content
from llmasos.invocations.content import Retention
from llmasos.invocations.journal import Ending, EventJournal
from llmasos.invocations.records import HostDied
from llmasos.invocations.tables import InvocationEventsRow, InvocationRow
from llmasos.kernel.invocation import Event, EventSink, InvocationUsage
from llmasos.secrets import Sealer

logger = logging.getLogger(__name__)

# How often events are written down, and how often those of other processes are read: what a reader elsewhere waits.
FLUSH_SECONDS: Final = 1.0
FOLLOW_SECONDS: Final = 0.5
# Parameters of one statement.
_IDS_AT_ONCE: Final = 500


class _Batches:
    """Batches of events. A buffer of `Transaction`."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, tuple[SqlValue, ...], int]] = []

    def write(self, transaction: Transaction) -> None:
        """Write those of workspaces that keep them."""
        retention = transaction.buffer(Retention)
        kept = [each for each in self.rows if retention.keeps(transaction, each[0])]
        if kept:
            transaction.run_many(
                'INSERT INTO invocation_events (invocation_id, "first", "last", sealed) VALUES (?, ?, ?, ?)'
                ' ON CONFLICT (invocation_id, "first") DO UPDATE'
                ' SET "last" = excluded."last", sealed = excluded.sealed',
                [row for _workspace, row, _oldest in kept],
            )
        cut = [(row[0], oldest) for _workspace, row, oldest in kept if oldest > 1]
        if cut:
            transaction.run_many('DELETE FROM invocation_events WHERE invocation_id = ? AND "last" < ?', cut)

    def discard(self) -> None:
        """Nothing but the database was changed."""


@dataclass(slots=True, eq=False)
class RunningJournal:
    """The journal of an invocation that runs in this process, and how far it is written down."""

    invocation_id: str
    workspace: str
    journal: EventJournal
    written: int = 0

    def recording(self, emit: EventSink) -> EventSink:
        """A sink that keeps each event before `emit` gets it."""

        async def record(event: Event) -> None:
            self.record(event)
            await emit(event)

        return record

    def record(self, event: Event) -> None:
        """Keep an event."""
        self.journal.append(replace(event, text=storable(event.text)))

    def batch(self, sealer: Sealer) -> tuple[int, tuple[SqlValue, ...]] | None:
        """What is not written down yet, as a row, and the number of its last event; None if there is nothing.

        Raises:
            Unavailable: The home's key cannot be used.
        """
        journal = self.journal
        first = max(self.written + 1, journal.first)
        events = journal.after(first - 1, journal.last - first + 1)
        if not events:
            return None
        encoded = json.dumps([(each.kind, each.text, each.fraction) for each in events], ensure_ascii=False)
        sealed = sealer.seal(encoded.encode(), _about(self.invocation_id, first))
        return journal.last, (self.invocation_id, first, journal.last, sealed)

    def write(self, transaction: Transaction, row: tuple[SqlValue, ...]) -> None:
        """Write a batch down, and forget what fell out of the journal."""
        transaction.buffer(_Batches).rows.append((self.workspace, row, self.journal.first))


def _about(invocation_id: str, first: int) -> str:
    return f"invocation {invocation_id} events {first}"


@dataclass(frozen=True, slots=True)
class _Change:
    """What is new of an invocation that is followed."""

    first: int
    events: Sequence[Event]
    ending: Ending | None


class Journals:
    """Those of this process. They belong to one event loop."""

    def __init__(self, database: Database, sealer: Sealer) -> None:
        self._database = database
        self._sealer = sealer
        self._running: dict[str, RunningJournal] = {}
        self._followed: WeakValueDictionary[str, EventJournal] = WeakValueDictionary()
        self._loading: dict[str, asyncio.Task[EventJournal]] = {}
        self._flusher: asyncio.Task[None] | None = None
        self._follower: asyncio.Task[None] | None = None
        self._closed = False

    def add(self, running: RunningJournal) -> None:
        """Keep the journal of an invocation that began."""
        self._running[running.invocation_id] = running
        if self._flusher is None or self._flusher.done():
            self._flusher = asyncio.create_task(self._flush_while_any_runs(), name="llmasos-events")

    def remove(self, invocation_id: str) -> None:
        """Forget one that ended; its readers read it to its end."""
        self._running.pop(invocation_id, None)

    def forget(self, invocation_id: str) -> None:
        """Keep a deleted one from new readers."""
        self._followed.pop(invocation_id, None)

    def close(self) -> None:
        """End the readers of what other processes run."""
        self._closed = True
        for task in (self._flusher, self._follower):
            if task is not None:
                task.cancel()
        for journal in list(self._followed.values()):
            journal.close()

    async def of(self, invocation_id: str) -> EventJournal:
        """The events of an invocation, wherever it runs or ran. It is followed while the journal is held.

        Raises:
            KeyChanged: They were encrypted under another key.
        """
        if (running := self._running.get(invocation_id)) is not None:
            return running.journal
        if (followed := self._followed.get(invocation_id)) is not None:
            return followed
        loading = self._loading.get(invocation_id)
        if loading is None:
            loading = self._loading[invocation_id] = asyncio.create_task(self._load(invocation_id))
            loading.add_done_callback(lambda _: self._loading.pop(invocation_id, None))
        return await asyncio.shield(loading)

    async def _load(self, invocation_id: str) -> EventJournal:
        found = await asyncio.to_thread(self._changes, {invocation_id: 0})
        journal = EventJournal()
        if (change := found.get(invocation_id)) is not None:
            _apply(journal, change)
        if self._closed:
            journal.close()
        self._followed[invocation_id] = journal
        if journal.ending is None and (self._follower is None or self._follower.done()):
            self._follower = asyncio.create_task(self._follow_while_anybody_reads(), name="llmasos-follow")
        return journal

    async def _flush_while_any_runs(self) -> None:
        while self._running:
            await asyncio.sleep(FLUSH_SECONDS)
            for running in list(self._running.values()):
                # A database that takes no writes now gets them the next time, or with the end.
                with suppress(Unavailable):
                    await self.flush(running)

    async def flush(self, running: RunningJournal) -> None:
        """Write down what one of them showed since the last time.

        Raises:
            Unavailable: The key cannot be used, or the database takes no writes.
        """
        if (made := running.batch(self._sealer)) is not None:
            last, row = made
            await self._database.write_queue.submit(partial(running.write, row=row), WriteKind.BATCHED)
            running.written = max(running.written, last)

    async def _follow_while_anybody_reads(self) -> None:
        while True:
            wanted = {id_: each.last for id_, each in list(self._followed.items()) if each.ending is None}
            if not wanted:
                return
            await asyncio.sleep(FOLLOW_SECONDS)
            try:
                found = await asyncio.to_thread(self._changes, wanted)
            except Exception:  # the database may be away for a while
                logger.exception("the events of other processes could not be read; retrying")
                continue
            for id_, change in found.items():
                if (journal := self._followed.get(id_)) is not None:
                    _apply(journal, change)

    def _changes(self, wanted: Mapping[str, int]) -> dict[str, _Change]:
        """What is new behind the given numbers of events."""
        with self._database.read() as session:
            changed = list(_changed(session, wanted))
            return {id_: self._change(session, id_, wanted[id_]) for id_ in changed}

    def _change(self, session: Session, id_: str, after: int) -> _Change:
        batches = session.exec(
            select(InvocationEventsRow)
            .where(InvocationEventsRow.invocation_id == id_, col(InvocationEventsRow.last) > after)
            .order_by(col(InvocationEventsRow.first))
        ).all()
        first, events = after + 1, list[Event]()
        for batch in batches:
            decoded = json.loads(self._sealer.unseal(batch.sealed, _about(id_, batch.first)))
            if batch.first > first + len(events):  # what is between was left out
                first, events = batch.first, []
            events += [Event(*each) for each in decoded[first + len(events) - batch.first :]]
        row = session.get(InvocationRow, id_)
        if row is None or row.status == "running":
            return _Change(first, events, None)
        last = max(first + len(events) - 1, row.events)
        if not events:
            first = last + 1
        kept = None if row.status != "succeeded" else content.read(session, self._sealer, id_)
        return _Change(first, events, _ending(row, last, kept.output_json if kept else None))


def _changed(session: Session, wanted: Mapping[str, int]) -> Iterator[str]:
    """Those that ended, or have events behind the given numbers."""
    every = list(wanted)
    for start in range(0, len(every), _IDS_AT_ONCE):
        ids = every[start : start + _IDS_AT_ONCE]
        ended = select(InvocationRow.id).where(col(InvocationRow.id).in_(ids), InvocationRow.status != "running")
        newest = (
            select(InvocationEventsRow.invocation_id, func.max(InvocationEventsRow.last))
            .where(col(InvocationEventsRow.invocation_id).in_(ids))
            .group_by(InvocationEventsRow.invocation_id)
        )
        yield from {*session.exec(ended), *(id_ for id_, last in session.exec(newest) if last > wanted[id_])}


def _apply(journal: EventJournal, change: _Change) -> None:
    if journal.ending is not None:
        return
    if change.first > journal.last + 1:
        journal.restart(change.first)
    for event in change.events[journal.last + 1 - change.first :]:
        journal.append(event)
    if change.ending is not None:
        journal.end(change.ending)


def _ending(row: InvocationRow, last: int, output_json: str | None) -> Ending:
    message = from_text(row.error_message or "")
    error = None if row.error_code is None else error_with_code(row.error_code, message) or Unavailable(message)
    usage = InvocationUsage(
        *(row.prompt_tokens, row.completion_tokens, row.cost_micro_usd, row.fuel, row.memory_bytes),
        duration_ms=row.duration_ms,
        model=row.model,
    )
    return Ending(last, usage, error, output_json, is_complete=row.error_code != HostDied.code)
