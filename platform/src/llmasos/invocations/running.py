"""The invocations that run in this process, and their cancellation from any process."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import Final

from llmasos.database.engine import Database
from llmasos.invocations import records
from llmasos.invocations.journals import RunningJournal
from llmasos.kernel.calls import InvocationCalls
from llmasos.kernel.invocation import Invocation
from llmasos.quotas.ledger import Reservation

logger = logging.getLogger(__name__)

# How often a process looks for requests to cancel its invocations.
CANCEL_POLL_SECONDS: Final = 1.0


@dataclass(slots=True, eq=False)
class RunningInvocation:
    """An invocation from its admission to its end."""

    invocation: Invocation
    calls: InvocationCalls
    task: asyncio.Task[object] | None
    """The task that entered it: cancelling it ends the invocation."""
    reservation: Reservation
    journal: RunningJournal
    cancel_requested: bool = False

    def cancel(self) -> None:
        """Request its end as cancelled. Idempotent."""
        if not self.cancel_requested and self.task is not None:
            self.cancel_requested = True
            self.task.cancel()


class RunningInvocations:
    """The invocations of this process, by id. It polls for cancellation requests of other processes while any run."""

    def __init__(self, database: Database, lease_id: str) -> None:
        self._database = database
        self._lease_id = lease_id
        self._by_id: dict[str, RunningInvocation] = {}
        self._poller: asyncio.Task[None] | None = None

    def add(self, running: RunningInvocation) -> None:
        """Add an invocation that began."""
        self._by_id[running.invocation.id] = running
        if self._poller is None or self._poller.done():
            self._poller = asyncio.create_task(self._poll_for_cancels(), name="llmasos-cancel-poll")

    def remove(self, id_: str) -> None:
        """Remove an invocation that ended."""
        self._by_id.pop(id_, None)

    def find(self, id_: str) -> RunningInvocation | None:
        """Find one by its id."""
        return self._by_id.get(id_)

    def cancel_of_installation(self, installation_id: str) -> None:
        """Cancel those of an installation, except the caller's own."""
        for each in list(self._by_id.values()):
            app = each.invocation.app
            if app is not None and app.installation_id == installation_id and each.task is not asyncio.current_task():
                each.cancel()

    async def end_all(self, within_seconds: float) -> None:
        """Cancel all except the caller's own, and wait until they are settled."""
        ending = [each for each in self._by_id.values() if each.task is not asyncio.current_task()]
        for each in ending:
            each.cancel()
        tasks = {each.task for each in ending if each.task is not None}
        if tasks:
            await asyncio.wait(tasks, timeout=within_seconds)
        if self._poller is not None:
            self._poller.cancel()
            self._poller = None

    async def _poll_for_cancels(self) -> None:
        while self._by_id:
            await asyncio.sleep(CANCEL_POLL_SECONDS)
            try:
                with self._database.read() as session:
                    wanted = records.to_cancel(session, self._lease_id)
            except Exception:
                logger.exception("could not look for invocations to cancel; retrying")
                continue
            for id_ in wanted:
                if (running := self._by_id.get(id_)) is not None:
                    running.cancel()
