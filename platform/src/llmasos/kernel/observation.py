"""Notifies observers of calls as they are settled, and of lines of the audit log once they are committed."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from sqlmodel import Session, col, select

from llmasos.database.engine import Database
from llmasos.kernel.invocation import Json
from llmasos.kernel.tables import AuditEntry, AuditHead
from llmasos.quotas.meters import Used

logger = logging.getLogger(__name__)

# Observers see a line within a second; polling more often would only read the database for nothing.
POLL_SECONDS: Final = 1.0
LINES_AT_ONCE: Final = 500


@dataclass(frozen=True, slots=True)
class UsageRecord:
    """What one call used, and for whom."""

    workspace: str
    user: str
    app: str | None
    invocation: str
    capability: str
    function: str
    used: Used
    duration_seconds: float
    outcome: str
    """ok, or the code of the error."""


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """One line of the audit log, as it was written."""

    workspace: str
    user: str
    app: str | None
    invocation: str | None
    event: str
    outcome: str
    detail: Mapping[str, Json]


UsageObserver: TypeAlias = Callable[[UsageRecord], None]
AuditObserver: TypeAlias = Callable[[AuditRecord], None]


class AuditFollower:
    """Passes an observer each line that any process adds to the log after the follower started.

    It reads committed lines instead of being called inside the transaction: a line that was rolled back
    is never seen. Each workspace's lines come in order.
    """

    def __init__(self, database: Database, observer: AuditObserver) -> None:
        self._database = database
        self._observer = observer
        self._task: asyncio.Task[None] | None = None
        # Two threads may notify at once: the one that `stop` interrupted, and its own.
        self._telling = threading.Lock()
        with database.read() as session:
            self._told = _counts(session)

    def start(self) -> None:
        """Follow, in the background, until `stop`."""
        self._task = asyncio.create_task(self._follow())

    async def stop(self) -> None:
        """Pass on the remaining lines, and end."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        await asyncio.to_thread(self._tell)

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(POLL_SECONDS)
            try:
                await asyncio.to_thread(self._tell)
            except Exception:  # the database may be busy or away for a while
                logger.exception("the audit log could not be followed")

    def _tell(self) -> None:
        with self._telling:
            with self._database.read() as session:
                counts = _counts(session)
            for workspace, count in sorted(counts.items()):
                while (told := self._told.get(workspace, counts.get("", 0))) < count:
                    self._told[workspace] = self._tell_some(workspace, told, count)

    def _tell_some(self, workspace: str, after: int, until: int) -> int:
        """Pass on the next lines of a workspace, and return the number of the last one."""
        query = select(AuditEntry).where(AuditEntry.workspace_id == workspace, col(AuditEntry.seq) > after)
        with self._database.read() as session:
            rows = session.exec(query.order_by(col(AuditEntry.seq)).limit(LINES_AT_ONCE)).all()
        for row in rows:
            who = (row.workspace_id, row.user_id, row.app_id, row.invocation_id)
            self._observer(AuditRecord(*who, row.event, row.outcome, row.detail))
        return rows[-1].seq if rows else until


def _counts(session: Session) -> dict[str, int]:
    """The number of the last line of each workspace's chain; under the empty name, of the sealed one."""
    return {head.workspace_id: head.count for head in session.exec(select(AuditHead))}
