"""The one path from an app, or a program, to anything outside it: authorise, reserve, execute, settle, audit."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, TypeAlias, TypeVar, cast

from llmasos.bundles.manifest import Permission
from llmasos.database.engine import Database
from llmasos.database.transaction import Transaction
from llmasos.database.write_queue import WriteKind
from llmasos.errors import Cancelled, Denied, Invalid, LlmasosError, NotFound, QuotaExceeded, Unavailable
from llmasos.i18n import _
from llmasos.kernel import audit
from llmasos.kernel.calls import (
    InvocationCalls,
    OpenStream,
    ReservedCall,
    add_usage,
    audit_line,
    code_of,
    usage_record,
)
from llmasos.kernel.capability import Capability, Operation, PreparedCall, StreamSource
from llmasos.kernel.grants import denial, intersect_all, not_granted_any_more
from llmasos.kernel.invocation import Invocation
from llmasos.kernel.observation import UsageObserver
from llmasos.quotas.ledger import Ledger, Reservation
from llmasos.quotas.meters import NOTHING_USED, Used
from llmasos.quotas.run_limits import RunAccount
from llmasos_sdk.host import BASELINE_CAPABILITIES

logger = logging.getLogger(__name__)
AnswerT = TypeVar("AnswerT")
GrantNow: TypeAlias = Callable[[str, str], Permission | None]

# How long the work behind a stream may take to stop, before the invocation goes on without it.
STREAM_CLOSE_SECONDS = 5.0


class Kernel:
    """Makes host calls for the invocations that it admitted.

    Args:
        database: The one database.
        ledger: Where quotas are kept.
        capabilities: The families of operations.
        observer: Receives each call as it is settled.
        grant_now: Returns an installation's current grant of a capability. Without it, grants are those of the
            invocation's start.
    """

    def __init__(
        self,
        database: Database,
        ledger: Ledger,
        capabilities: Iterable[Capability] = (),
        observer: UsageObserver | None = None,
        grant_now: GrantNow | None = None,
    ) -> None:
        self._database = database
        self._ledger = ledger
        self._capabilities = {capability.name: capability for capability in capabilities}
        self._observer = observer
        self._grant_now = grant_now
        self._admitted: dict[str, InvocationCalls] = {}

    def admit(self, invocation: Invocation, account: RunAccount) -> InvocationCalls:
        """Accept calls of an invocation from now on, under the limits of its run."""
        calls = InvocationCalls(invocation, account)
        self._admitted[invocation.id] = calls
        return calls

    async def dismiss(self, calls: InvocationCalls, code: str) -> None:
        """Accept no more calls of an invocation, and settle its open streams as ended with `code`."""
        self._admitted.pop(calls.invocation.id, None)
        calls.deadline.stop()
        streams = list(calls.streams.values())
        # A settlement that fails must leave no other to the lease.
        ends = await asyncio.gather(
            *(self._end_stream(calls, opened, code) for opened in streams), return_exceptions=True
        )
        for failure in ends:
            if failure is not None:
                raise failure

    async def call(self, invocation: Invocation, operation: Operation[AnswerT]) -> AnswerT:
        """Make one call, for an invocation of this kernel.

        Returns:
            The operation's answer; an `OpenStream` if the operation opens a stream.

        Raises:
            LlmasosError: Denied, over quota, not valid, and so on. No other error leaves the kernel.
        """
        event = f"{operation.capability}.{operation.function}"
        with self.error_boundary(invocation, event):
            calls = self._calls_of(invocation)
            capability = self.authorise(invocation, operation.capability)
            prepared: PreparedCall[AnswerT] = capability.prepare(invocation, operation)
            reservation = await self._reserve(calls, prepared)
            call = ReservedCall(event, reservation, capability.audited, prepared.detail)
        with self.error_boundary(invocation, event, audited=True):
            return await self._execute(calls, prepared, call)

    async def pace(self, invocation: Invocation) -> None:
        """Count one call of an app, and delay it if calls come too fast; see `InvocationCalls.pace`."""
        await self._calls_of(invocation).pace()

    def authorise(self, invocation: Invocation, name: str) -> Capability:
        """Return a capability if the invocation may use it.

        Raises:
            Denied: Its app was not granted it.
            Invalid: This host has no such capability.
        """
        refused = denial(invocation.app, name)
        if refused is not None:
            raise refused
        if invocation.app is not None and name not in BASELINE_CAPABILITIES:
            self._refresh_grants(invocation)
            if name not in invocation.app.grants:
                raise not_granted_any_more(invocation.app, name)
        capability = self._capabilities.get(name)
        if capability is None:
            known = ", ".join(sorted(self._capabilities))
            raise Invalid(
                _("This host has no capability {name!r}; it has {known}.", name=name[:80], known=known),
            )
        return capability

    def _refresh_grants(self, invocation: Invocation) -> None:
        """Narrow an invocation's grants to the current grants of its app and of the apps that called it."""
        app = invocation.app
        if app is None or self._grant_now is None:
            return
        if invocation.parent is not None:
            self._refresh_grants(invocation.parent)
        grants = {name: self._grant_now(app.installation_id, name) for name in app.grants}
        still = {name: grant for name, grant in grants.items() if grant is not None}
        kept = app.grants if still == app.grants else intersect_all(app.grants, still)
        caller = invocation.parent.app if invocation.parent is not None else None
        if caller is not None:
            kept = intersect_all(kept, caller.grants)
        if kept != app.grants:
            invocation.app = replace(app, grants=kept)

    def stream(self, invocation: Invocation, capability: str, number: int) -> OpenStream[Any] | None:
        """Find a stream that an invocation opened, by its number; None if it has ended.

        Raises:
            NotFound: No stream of that capability had the number.
        """
        calls = self._calls_of(invocation)
        opened = calls.streams.get(number)
        if not 1 <= number <= calls.opened or (opened is not None and opened.capability != capability):
            raise NotFound(
                _("This invocation has no such stream; `open` returns the number."),
            )
        return opened

    @contextmanager
    def error_boundary(self, invocation: Invocation, event: str, *, audited: bool = False) -> Generator[None]:
        """Convert every exception into a `LlmasosError`, and audit refusals.

        Args:
            invocation: Who calls.
            event: What it calls, such as `model.generate`.
            audited: Whether the failing code inside writes its own line of the audit log.
        """
        try:
            yield
        except LlmasosError as error:
            calls = self._admitted.get(invocation.id)
            if calls is not None:
                calls.note(error)
                if not audited and isinstance(error, Denied | QuotaExceeded):
                    self._audit_refusal(calls, event, error)
            raise
        except (asyncio.CancelledError, KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:  # a plugin's capability may raise `SystemExit`, which would end the host
            logger.exception("%s failed for invocation %s", event, invocation.id)
            raise Unavailable(
                _(
                    "The host could not do {event}; host.log in its home says why, under invocation {invocation}.",
                    event=event,
                    invocation=invocation.id,
                ),
            ) from error

    def _calls_of(self, invocation: Invocation) -> InvocationCalls:
        calls = self._admitted.get(invocation.id)
        if calls is None or calls.invocation is not invocation:
            raise Cancelled(_("The invocation has ended."))
        return calls

    async def _reserve(self, calls: InvocationCalls, prepared: PreparedCall[Any]) -> Reservation:
        """Reserve the most that a call may use; if that does not fit, the exact amount that it needs."""
        demand, measure = prepared.demand, prepared.measure
        subject = calls.invocation.subject(demand.model)
        try:
            reservation = await self._ledger.reserve(subject, demand, calls.account)
            if measure is None or reservation.granted.amounts == demand.amounts:
                return reservation
            await self._ledger.settle(reservation, NOTHING_USED, counts=False)
        except QuotaExceeded:
            if measure is None:
                raise
        return await self._ledger.reserve(subject, await calls.until_deadline(measure()), calls.account)

    async def _execute(self, calls: InvocationCalls, prepared: PreparedCall[AnswerT], call: ReservedCall) -> AnswerT:
        granted = call.reservation.granted
        try:
            outcome = await calls.until_deadline(prepared.execute(granted))
            if outcome.stream is not None:
                return cast("AnswerT", await self._open_stream(calls, outcome.stream, call))
        except BaseException as error:
            await self._settle(calls, call, prepared.used(granted), code_of(error))
            raise
        await self._settle(calls, call, outcome.used, "ok")
        return cast("AnswerT", outcome.answer)

    async def _settle(self, calls: InvocationCalls, call: ReservedCall, used: Used, code: str) -> None:
        """Settle and audit a call in one write, and wait until it is committed.

        The write is queued before the first await, so that cancelling the caller does not stop it.
        """
        invocation, reservation = calls.invocation, call.reservation
        add_usage(invocation, used)
        if self._observer is not None:
            self._observer(usage_record(invocation, call, used, code))
        line = None
        if call.audited and (code == "ok" or calls.is_worth_a_line(call.event, code)):
            detail = {**call.detail, "model": used.model or reservation.granted.model, "tokens": used.tokens}
            line = audit_line(invocation, call.event, code, {key: it for key, it in detail.items() if it is not None})
        if reservation.granted.is_empty and line is None:
            return
        counts = bool(used.model or reservation.granted.model) and (code == "ok" or used.tokens > 0)

        def settle(transaction: Transaction) -> None:
            for overrun in self._ledger.settle_in(transaction, reservation, used, counts=counts):
                meter = overrun.meter.value
                logger.warning("%s used %d %s, %d were reserved", call.event, overrun.used, meter, overrun.reserved)
                detail = {"meter": meter, "reserved": overrun.reserved, "used": overrun.used, "model": used.model}
                audit.append(transaction, audit_line(invocation, "quota.overrun", "ok", detail))
            if line is not None:
                audit.append(transaction, line)

        try:
            await self._ledger.settle_with(reservation, settle)
        except Unavailable:
            # If the call failed, its own error says more.
            if code == "ok":
                raise

    def _audit_refusal(self, calls: InvocationCalls, event: str, error: LlmasosError) -> None:
        """Record a refusal that came before anything ran, without waiting for the write."""
        if calls.is_worth_a_line(event, error.code):
            line = audit_line(calls.invocation, event, error.code, {})
            self._database.write_queue.submit(partial(audit.append, line=line), WriteKind.FINAL)

    async def _open_stream(
        self, calls: InvocationCalls, source: StreamSource[Any], call: ReservedCall
    ) -> OpenStream[Any]:
        try:
            calls.check_room_for_stream()
        except Invalid:
            await source.close()
            raise
        calls.opened += 1

        async def read(opened: OpenStream[Any]) -> Any:
            with self.error_boundary(calls.invocation, call.event, audited=True):
                return await self._read_stream(calls, opened)

        async def close(opened: OpenStream[Any]) -> None:
            await self._end_stream(calls, opened, "ok")

        opened = OpenStream(calls.opened, call, source, read, close)
        calls.streams[opened.number] = opened
        return opened

    async def _read_stream(self, calls: InvocationCalls, opened: OpenStream[Any]) -> Any:
        async with opened.lock:
            if opened.number not in calls.streams:
                return None
            try:
                part = await calls.until_deadline(opened.source.read())
            except asyncio.CancelledError:
                # The end of the invocation closes the stream; a caller that cancelled one read may continue reading.
                raise
            except BaseException as error:
                await self._end_stream(calls, opened, code_of(error))
                raise
            if part is None:
                await self._end_stream(calls, opened, "ok")
            return part

    async def _end_stream(self, calls: InvocationCalls, opened: OpenStream[Any], code: str) -> None:
        """Close a stream and settle what it used, exactly once."""
        if calls.streams.pop(opened.number, None) is None:
            return
        try:
            async with asyncio.timeout(STREAM_CLOSE_SECONDS):
                await opened.source.close()
        except Exception:
            logger.exception("a stream of %s did not close", opened.call.event)
        finally:
            await self._settle(calls, opened.call, opened.source.used, code)
