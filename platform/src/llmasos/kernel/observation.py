"""What observers are told: calls as they are settled, and lines of the audit log once they are committed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from sqlmodel import col, func, select

from llmasos.database.engine import Database
from llmasos.kernel.invocation import Json
from llmasos.kernel.tables import AuditEntry
from llmasos.quotas.meters import Used

logger = logging.getLogger(__name__)

# An observer of the log is told within a second; a shorter wait would read the database for nothing.
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
    """Tells an observer each line that any process adds to the log after the follower began.

    It reads what is committed, rather than being called while a transaction is open: a line that was rolled back
    never was.
    """

    def __init__(self, database: Database, observer: AuditObserver) -> None:
        self._database = database
        self._observer = observer
        self._task: asyncio.Task[None] | None = None
        with database.read() as session:
            self._seq = session.exec(select(func.max(AuditEntry.seq))).one() or 0

    def start(self) -> None:
        """Follow, in the background, until `stop`."""
        self._task = asyncio.create_task(self._follow())

    async def stop(self) -> None:
        """Tell what is still untold, and end."""
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
        while True:
            with self._database.read() as session:
                after = select(AuditEntry).where(col(AuditEntry.seq) > self._seq).order_by(col(AuditEntry.seq))
                rows = session.exec(after.limit(LINES_AT_ONCE)).all()
            for row in rows:
                self._seq = row.seq or self._seq
                who = (row.workspace_id, row.user_id, row.app_id, row.invocation_id)
                self._observer(AuditRecord(*who, row.event, row.outcome, row.detail))
            if len(rows) < LINES_AT_ONCE:
                return
