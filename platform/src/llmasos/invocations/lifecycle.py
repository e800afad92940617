"""The lifecycle of an invocation: its row, its reservation, and its end on every path."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, Self

from llmasos.database.engine import Database
from llmasos.database.transaction import Transaction
from llmasos.database.write_queue import WriteKind
from llmasos.errors import Cancelled, LlmasosError, NotFound, Unavailable
from llmasos.i18n import Message
from llmasos.invocations import content, idempotency, records
from llmasos.invocations.content import InvocationContent
from llmasos.invocations.idempotency import IdempotencyKeys
from llmasos.invocations.journal import Ending, EventJournal
from llmasos.invocations.journals import Journals, RunningJournal
from llmasos.invocations.running import RunningInvocation, RunningInvocations
from llmasos.invocations.tables import InvocationRow
from llmasos.kernel import audit
from llmasos.kernel.calls import audit_line, code_of
from llmasos.kernel.invocation import Event, EventSink, InstalledApp, Invocation, InvocationLimits, Principal, discard
from llmasos.kernel.syscall import Kernel
from llmasos.quotas.ledger import Ledger, Reservation
from llmasos.quotas.meters import Demand, Meter, Shrink, Used
from llmasos.quotas.run_limits import RunAccount
from llmasos.secrets import Sealer

logger = logging.getLogger(__name__)

# Below this much compute an app cannot finish importing, so it is refused instead of started.
FUEL_FLOOR: Final = 500_000_000
# How long `close` waits for what it cancelled.
CLOSE_SECONDS: Final = 10.0
# How often another process's invocations are polled for their end.
END_POLL_SECONDS: Final = 0.1
# How often what was kept for long enough is deleted, besides at each start.
HOUSEKEEPING_SECONDS: Final = 3600.0
_ONE_INVOCATION: Final = Demand({Meter.INVOCATIONS: 1})


class Invocations:
    """Begins, ends and finds invocations. An async context manager, which cancels what still runs when it exits."""

    def __init__(self, database: Database, ledger: Ledger, kernel: Kernel, sealer: Sealer) -> None:
        """Begin and end them through `kernel`, and keep what they are given and return encrypted by `sealer`."""
        self._database = database
        self._ledger = ledger
        self._kernel = kernel
        self._sealer = sealer
        self._running = RunningInvocations(database, ledger.lease.id)
        self._journals = Journals(database, sealer)
        self.keys = IdempotencyKeys(database, ledger.lease.id)
        self._end_housekeeping: Callable[[], None] | None = None
        ledger.lease.on_release(records.lose)

    async def __aenter__(self) -> Self:
        self._ledger.lease.start()
        if self._end_housekeeping is None:
            queue = self._database.write_queue
            queue.submit(_forget_old, WriteKind.HOUSEKEEPING)
            self._end_housekeeping = queue.every(HOUSEKEEPING_SECONDS, _forget_old)
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Cancel what runs, settle it, and release the process's lease. Safe to call twice."""
        if self._end_housekeeping is not None:
            self._end_housekeeping()
            self._end_housekeeping = None
        await self._running.end_all(CLOSE_SECONDS)
        self.end_readers()
        await self._ledger.close()

    def end_readers(self) -> None:
        """End those who follow what other processes run."""
        self._journals.close()

    def open(
        self,
        principal: Principal,
        app: InstalledApp | None,
        action: str,
        limits: InvocationLimits | None = None,
        *,
        emit: EventSink = discard,
        parent: Invocation | None = None,
    ) -> AbstractAsyncContextManager[Invocation]:
        """`begin` an invocation of these parts."""
        return self.begin(Invocation(principal, app, action, limits or InvocationLimits(), parent, emit))

    @asynccontextmanager
    async def begin(self, invocation: Invocation, shown: Sequence[Event] = ()) -> AsyncGenerator[Invocation]:
        """One invocation: its row, its reservation of a run and of compute, and at its end what it used.

        Enter and leave it in one task: that is what `cancel` cancels, and the block then ends with `Cancelled`. When
        the block was left, the end, its usage, its content and its audit line are committed. Hand what the runtime
        measured to `Invocation.measured` before that.

        Args:
            invocation: As it is asked for. What it emits is kept for those who follow it.
            shown: What its caller was shown before it began.

        Raises:
            QuotaExceeded: A quota of invocations or compute has no room. Nothing was started.
            Unavailable: The database does not take writes.
        """
        running = await self._begin(invocation, shown)
        error: BaseException | None = None
        try:
            yield running.invocation
        except asyncio.CancelledError as cancelled:
            error = cancelled
            if running.cancel_requested and running.task is not None:
                running.task.uncancel()
                error = Cancelled()
                raise error from None
            raise
        except BaseException as raised:
            error = running.calls.origin_of(raised)
            if error is raised:
                raise
            raise error from raised
        finally:
            self._running.remove(running.invocation.id)
            try:
                await _uninterrupted(self._end(running, error))
            finally:
                self._journals.remove(running.invocation.id)

    async def _begin(self, invocation: Invocation, shown: Sequence[Event]) -> RunningInvocation:
        limits = invocation.limits
        above = self._running.find(invocation.parent.id) if invocation.parent else None
        account = RunAccount(
            {Meter.TOKENS: limits.tokens} if limits.tokens else {}, above.calls.account if above else None
        )
        if invocation.app is None:
            demand = _ONE_INVOCATION
        else:
            cut = Shrink(limits.fuel, min(FUEL_FLOOR, limits.fuel), meter=Meter.COMPUTE)
            demand = Demand({Meter.INVOCATIONS: 1, Meter.COMPUTE: limits.fuel}, shrink=cut)
        subject = invocation.subject()
        insert = partial(records.insert, invocation=invocation, lease_id=self._ledger.lease.id)
        try:
            reservation = await self._ledger.reserve(subject, demand, account, insert)
        except asyncio.CancelledError:
            # It may have begun by now, or begin soon; the ledger releases what it reserved.
            nothing = Reservation("", subject, Demand())
            await _uninterrupted(self._write_end(invocation, nothing, _Outcome("cancelled", Cancelled())))
            raise
        except LlmasosError as error:
            line = audit_line(invocation, "invocation", error.code, {"action": invocation.action})
            with suppress(Unavailable):
                await self._database.write_queue.submit(partial(audit.append, line=line), WriteKind.FINAL)
            raise
        if reservation.granted.shrink is not None and reservation.granted is not demand:
            invocation.limits = replace(limits, fuel=reservation.granted.shrink.tokens)
        calls = self._kernel.admit(invocation, account)
        journal = RunningJournal(invocation.id, invocation.principal.workspace, EventJournal())
        for event in shown:
            journal.record(event)
        invocation.emit = journal.recording(invocation.emit)
        running = RunningInvocation(invocation, calls, asyncio.current_task(), reservation, journal)
        self._running.add(running)
        self._journals.add(journal)
        return running

    async def _end(self, running: RunningInvocation, error: BaseException | None) -> None:
        """Settle open streams, then the invocation itself, even if the streams fail."""
        invocation = running.invocation
        try:
            await self._kernel.dismiss(running.calls, "ok" if error is None else code_of(error))
        finally:
            # The time of its host calls counts as its own compute, up to its reservation.
            usage = invocation.usage
            usage.fuel = max(usage.fuel, min(usage.fuel + invocation.host_fuel, invocation.limits.fuel))
            invocation.usage.duration_ms = int((time.monotonic() - invocation.started_monotonic) * 1000)
            status = "succeeded" if error is None else "failed"
            if isinstance(error, asyncio.CancelledError | GeneratorExit | Cancelled):
                status, error = "cancelled", Cancelled()
            outcome = _Outcome(status, error, running.calls.failures_left_out)
            told: BaseException | None = error
            try:
                await self._write_end(invocation, running.reservation, outcome, running.journal)
            except BaseException as failure:
                told = failure
                raise
            finally:
                # Readers are told once it is committed, as the caller is.
                journal = running.journal.journal
                failed = None if told is None else told if isinstance(told, LlmasosError) else Unavailable()
                output = None if failed else invocation.output_json
                journal.end(Ending(journal.last, invocation.usage, failed, output))

    async def _write_end(
        self,
        invocation: Invocation,
        reservation: Reservation,
        outcome: _Outcome,
        journal: RunningJournal | None = None,
    ) -> None:
        """Write an end, settlement, row, content and audit line together, and wait until it is committed."""
        usage, error = invocation.usage, outcome.error
        code = None if error is None else code_of(error)
        message = None if error is None else _message_of(error)
        used = Used(amounts={Meter.INVOCATIONS: 1, Meter.COMPUTE: usage.fuel})
        detail = {"action": invocation.action, "duration_ms": usage.duration_ms, "tokens": usage.tokens}
        if outcome.failures_left_out:
            detail["failures_left_out"] = outcome.failures_left_out
        line = audit_line(invocation, "invocation", code or "ok", detail)
        events = journal.journal.last if journal else 0
        keep = self._keep(invocation, journal, succeeded=error is None)

        def end(transaction: Transaction) -> None:
            self._ledger.settle_in(transaction, reservation, used)
            records.finish(transaction, invocation, outcome.status, code, message, events=events)
            keep(transaction)
            audit.append(transaction, line)

        try:
            await self._ledger.settle_with(reservation, end)
        except Unavailable:
            # A success is reported only once it is written; a failure's own error says more than this one.
            if error is None:
                raise

    def _keep(
        self, invocation: Invocation, journal: RunningJournal | None, *, succeeded: bool
    ) -> Callable[[Transaction], None]:
        """A batched write of what it was given and returned, and of the events that are not written down yet."""
        shown = "" if succeeded or journal is None else journal.journal.shown
        try:
            sealed = InvocationContent(invocation.input_json, invocation.output_json, shown).seal(
                self._sealer, invocation.id
            )
            batch = journal.batch(self._sealer) if journal else None
        except Unavailable:  # the run is worth more than its record
            logger.exception("what invocation %s was given and returned is not kept", invocation.id)
            return lambda _: None

        def keep(transaction: Transaction) -> None:
            if sealed is not None:
                content.keep(transaction, invocation.id, invocation.principal.workspace, sealed)
            if journal is not None and batch is not None:
                journal.write(transaction, batch[1])

        return keep

    async def events(self, row: InvocationRow) -> EventJournal:
        """The events of an invocation, wherever it runs or ran. It is followed while the journal is held.

        Raises:
            KeyChanged: They were encrypted under another key than the home has now.
        """
        return await self._journals.of(row.id)

    async def content(self, row: InvocationRow) -> InvocationContent | None:
        """What an invocation was given and returned; None if that is not kept, or not yet.

        Raises:
            KeyChanged: It was encrypted under another key than the home has now.
        """

        def read() -> InvocationContent | None:
            with self._database.read() as session:
                return content.read(session, self._sealer, row.id)

        return await asyncio.to_thread(read)

    def running_input(self, id_: str) -> str | None:
        """What an invocation was given, as JSON, while it runs in this process."""
        running = self._running.find(id_)
        return running.invocation.input_json if running else None

    async def delete_content(self, row: InvocationRow, principal: Principal) -> None:
        """Delete what an invocation was given, showed, returned and logged.

        Raises:
            Conflict: It still runs.
        """

        def delete() -> None:
            with self._database.write() as session:
                content.delete(session, row, principal)

        await asyncio.to_thread(delete)
        self._journals.forget(row.id)

    async def cancel(self, id_: str, principal: Principal, *, of_anybody: bool = False) -> None:
        """Cancel an invocation, in whichever process it runs. Does nothing if it has ended.

        Raises:
            NotFound: As `find`.
        """
        await self.find(id_, principal, of_anybody=of_anybody)
        running = self._running.find(id_)
        if running is not None:
            running.cancel()
        else:
            await self._database.write_queue.submit(lambda transaction: records.request_cancel(transaction, id_))

    async def end_of_installation(self, installation_id: str) -> None:
        """Cancel an installation's invocations in every process, and wait until they are settled.

        Waits at most `CLOSE_SECONDS`: an invocation in a process that hangs is refused its next call in any case.
        """
        await self._database.write_queue.submit(
            lambda transaction: records.request_cancel_of_installation(transaction, installation_id)
        )
        self._running.cancel_of_installation(installation_id)
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                # Poll the rows, as other processes share no event with this one.
                while await asyncio.to_thread(self._is_running, installation_id):  # noqa: ASYNC110
                    await asyncio.sleep(END_POLL_SECONDS)

    def _is_running(self, installation_id: str) -> bool:
        with self._database.read() as session:
            return records.is_running(session, installation_id)

    async def find(self, id_: str, principal: Principal, *, of_anybody: bool = False) -> InvocationRow:
        """Find an invocation of the principal's own, or of anybody in the workspace.

        Raises:
            NotFound: There is none, or it is not the principal's to see.
        """
        with self._database.read() as session:
            row = records.find(session, id_, principal.workspace, None if of_anybody else principal.user)
        if row is None:
            raise NotFound
        return row

    async def list(
        self,
        principal: Principal,
        limit: int = 50,
        before: str | None = None,
        *,
        app_id: str | None = None,
        of_anybody: bool = False,
    ) -> list[InvocationRow]:
        """The principal's own invocations, or the workspace's, without logs; newest first, those before `before`.

        Raises:
            NotFound: There is no invocation `before` that the principal may see.
        """
        user = None if of_anybody else principal.user

        def read() -> list[InvocationRow]:
            with self._database.read() as session:
                mark = records.find(session, before, principal.workspace, user) if before else None
                if before and mark is None:
                    raise NotFound
                return records.listing(session, principal.workspace, user, limit, before=mark, app_id=app_id)

        return await asyncio.to_thread(read)


@dataclass(frozen=True, slots=True)
class _Outcome:
    """How an invocation ended."""

    status: str
    error: BaseException | None = None
    failures_left_out: int = 0


def _forget_old(transaction: Transaction) -> None:
    content.expire(transaction)
    idempotency.expire(transaction)


def _message_of(error: BaseException) -> Message:
    """The message for the person; it reveals nothing of the host's internals."""
    told = error if isinstance(error, LlmasosError) else Unavailable()
    return told.message


async def _uninterrupted(work: Coroutine[Any, Any, None]) -> None:
    """Finish the work however often the task is cancelled, then re-raise the cancellation."""
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
