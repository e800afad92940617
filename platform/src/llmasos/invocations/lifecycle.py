"""The life of an invocation: its row, its reservation, its end, however it ends, and cancelling it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any, Self

from llmasos.database.engine import Database
from llmasos.database.writer import Transaction
from llmasos.errors import Cancelled, LlmasosError, NotFound
from llmasos.invocations import records
from llmasos.invocations.run import OpenStream, Run, audit_line, code_of, message_of
from llmasos.kernel import audit
from llmasos.kernel.invocation import EventSink, InstalledApp, Invocation, InvocationLimits, Principal, discard
from llmasos.kernel.tables import InvocationRow
from llmasos.quotas.ledger import Held, Ledger
from llmasos.quotas.meters import Demand, Meter, Shrink, Used
from llmasos.quotas.runs import RunAccount

logger = logging.getLogger(__name__)

# An app with less compute than this does not come past its imports: refused rather than started to fail.
FUEL_FLOOR = 500_000_000
# How often a process looks for invocations that another one was asked to cancel.
CANCEL_POLL_SECONDS = 1.0
# How long the kernel waits at its close for what it cancelled.
CLOSE_SECONDS = 10.0
_ONE_RUN = Demand({Meter.INVOCATIONS: 1})


class Lifecycle:
    """Begins and ends invocations; the half of the kernel that stands around host calls."""

    def __init__(self, database: Database, ledger: Ledger) -> None:
        self._database = database
        self._ledger = ledger
        self._runs: dict[str, Run] = {}
        self._poller: asyncio.Task[None] | None = None
        ledger.lease.on_release(records.lose)

    async def __aenter__(self) -> Self:
        self._ledger.lease.start()
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Cancel what runs, settle it, and give back the process's lease. Safe to call twice."""
        running = [run for run in self._runs.values() if run.task is not asyncio.current_task()]
        for run in running:
            self._cancel(run)
        tasks = {run.task for run in running if run.task is not None}
        if tasks:
            await asyncio.wait(tasks, timeout=CLOSE_SECONDS)
        if self._poller is not None:
            self._poller.cancel()
            self._poller = None
        await self._ledger.close()

    async def _end_stream(self, run: Run, opened: OpenStream, code: str) -> None:
        """End a stream of a host call and settle it."""
        raise NotImplementedError

    @asynccontextmanager
    async def invocation(
        self,
        principal: Principal,
        app: InstalledApp | None,
        action: str,
        limits: InvocationLimits | None = None,
        *,
        emit: EventSink = discard,
        parent: Invocation | None = None,
    ) -> AsyncGenerator[Invocation]:
        """One run: its row, its reservation of a run and of compute, and at its end, however it ends, what it used.

        Enter and leave it in one task: that is what `cancel` cancels, and the block then ends with `Cancelled`.
        Hand fuel, memory and log of the runtime's outcome to `Invocation.measured` before the block ends.

        Raises:
            QuotaExceeded: A quota of runs or compute has no room. Nothing was started.
        """
        run = await self._begin(Invocation(principal, app, action, limits or InvocationLimits(), parent, emit))
        invocation = run.invocation
        error: BaseException | None = None
        try:
            yield invocation
        except asyncio.CancelledError as cancelled:
            error = cancelled
            if run.cancel_requested and run.task is not None:
                run.task.uncancel()
                error = Cancelled()
                raise error from None
            raise
        except BaseException as raised:
            error = raised
            run.speak(raised)
            raise
        finally:
            await self._end(run, error)

    async def _begin(self, invocation: Invocation) -> Run:
        limits = invocation.limits
        above = self._runs.get(invocation.parent.id) if invocation.parent else None
        account = RunAccount({Meter.TOKENS: limits.tokens} if limits.tokens else {}, above.account if above else None)
        if invocation.app is None:
            demand = _ONE_RUN
        else:
            cut = Shrink(limits.fuel, min(FUEL_FLOOR, limits.fuel), meter=Meter.COMPUTE)
            demand = Demand({Meter.INVOCATIONS: 1, Meter.COMPUTE: limits.fuel}, shrink=cut)
        subject = invocation.subject()
        task = asyncio.current_task()
        try:
            held = await self._ledger.reserve(
                subject, demand, account, partial(records.insert, invocation=invocation, lease_id=self._ledger.lease.id)
            )
        except asyncio.CancelledError:
            # It may have begun by now, or begin in a moment; the ledger gives back what it held.
            self._write_end(Run(invocation, account, task, Held("", subject, Demand())), "cancelled", Cancelled())
            raise
        except LlmasosError as error:
            line = audit_line(invocation, "invocation", error.code, {"action": invocation.action})
            self._database.writer.post(lambda transaction: audit.append(transaction, line), hot=True, buffered=True)
            raise
        if held.granted.shrink is not None and held.granted is not demand:
            invocation.limits = replace(limits, fuel=held.granted.shrink.tokens)
        run = Run(invocation, account, task, held)
        self._runs[invocation.id] = run
        if self._poller is None or self._poller.done():
            self._poller = asyncio.create_task(self._poll_for_cancels(), name="llmasos-cancel-poll")
        return run

    async def _end(self, run: Run, error: BaseException | None) -> None:
        """Close streams, settle, write the row: whatever one of them fails at, the next is done.

        Nobody waits for the commit: it is made in the loop's next turn, and who reads in this process sees it.
        """
        self._runs.pop(run.invocation.id, None)
        run.deadline.stop()
        try:
            if run.streams:
                await _uninterrupted(self._end_streams(run, "ok" if error is None else code_of(error)))
        finally:
            self._end_row(run, error)

    async def _end_streams(self, run: Run, code: str) -> None:
        for opened in list(run.streams.values()):
            await self._end_stream(run, opened, code)

    def _end_row(self, run: Run, error: BaseException | None) -> None:
        invocation = run.invocation
        invocation.usage.duration_ms = int((time.monotonic() - invocation.started_monotonic) * 1000)
        status = "succeeded" if error is None else "failed"
        if isinstance(error, asyncio.CancelledError | Cancelled):
            status, error = "cancelled", Cancelled()
        self._write_end(run, status, error)

    def _write_end(self, run: Run, status: str, error: BaseException | None) -> None:
        invocation, usage = run.invocation, run.invocation.usage
        code = None if error is None else code_of(error)
        message = None if error is None else message_of(error)
        used = Used(amounts={Meter.INVOCATIONS: 1, Meter.COMPUTE: usage.fuel})
        detail = {"action": invocation.action, "duration_ms": usage.duration_ms, "tokens": usage.tokens}
        if run.left_out:
            detail["failures_left_out"] = run.left_out
        line = audit_line(invocation, "invocation", code or "ok", detail)

        def end(transaction: Transaction) -> None:
            self._ledger.settle_in(transaction, run.held, used)
            records.finish(transaction, invocation, status, code, message)
            audit.append(transaction, line)

        self._database.writer.post_soon(end)

    async def written(self) -> None:
        """Wait until what ended before is committed, or has failed to be."""
        await self._database.writer.drained()

    async def cancel(self, id_: str, principal: Principal, *, of_anybody: bool = False) -> None:
        """Cancel an invocation, in whichever process it runs. Of one that ended: nothing.

        Raises:
            NotFound: As `find`.
        """
        await self.find(id_, principal, of_anybody=of_anybody)
        run = self._runs.get(id_)
        if run is not None:
            self._cancel(run)
        else:
            await self._database.writer.submit(lambda transaction: records.request_cancel(transaction, id_))

    async def find(self, id_: str, principal: Principal, *, of_anybody: bool = False) -> InvocationRow:
        """An invocation of the principal's own, or of anybody in the workspace.

        Raises:
            NotFound: There is none, or it is not the principal's to see.
        """
        await self.written()
        with self._database.read() as session:
            row = records.find(session, id_, principal.workspace, None if of_anybody else principal.user)
        if row is None:
            raise NotFound
        return row

    def list(
        self, principal: Principal, limit: int = 50, before: str | None = None, *, of_anybody: bool = False
    ) -> list[InvocationRow]:
        """The principal's own invocations, or the workspace's; newest first, older than the one with the id `before`.

        Raises:
            NotFound: There is no invocation `before` that the principal may see.
        """
        user = None if of_anybody else principal.user
        with self._database.read() as session:
            mark = records.find(session, before, principal.workspace, user) if before else None
            if before and mark is None:
                raise NotFound
            return records.listing(session, principal.workspace, user, limit, mark)

    @staticmethod
    def _cancel(run: Run) -> None:
        if not run.cancel_requested and run.task is not None:
            run.cancel_requested = True
            run.task.cancel()

    async def _poll_for_cancels(self) -> None:
        while self._runs:
            await asyncio.sleep(CANCEL_POLL_SECONDS)
            try:
                with self._database.read() as session:
                    wanted = records.to_cancel(session, self._ledger.lease.id)
            except Exception:
                logger.exception("could not look for invocations to cancel; trying again")
                continue
            for id_ in wanted:
                if (run := self._runs.get(id_)) is not None:
                    self._cancel(run)


async def _uninterrupted(work: Coroutine[Any, Any, None]) -> None:
    """Do it to its end, however often the task is cancelled meanwhile; then be cancelled."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            if task.cancelled():
                raise
            cancelled = error
    task.result()
    if cancelled is not None:
        raise cancelled
