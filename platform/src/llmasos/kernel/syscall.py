"""The one path from an app, or a program, to anything outside it: authorise, reserve, execute, settle, audit."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import TypeVar

from typing_extensions import override

from llmasos.database.engine import Database
from llmasos.database.writer import Transaction
from llmasos.errors import Cancelled, Denied, Invalid, LlmasosError, QuotaExceeded, TimedOut, Unavailable
from llmasos.invocations.lifecycle import Lifecycle
from llmasos.invocations.run import Call, OpenStream, Run, add_usage, audit_line, code_of, usage_record
from llmasos.kernel import audit
from llmasos.kernel.capability import Capability, Immediate, Json, Measurable, Metered, Operation
from llmasos.kernel.deadline import Expired
from llmasos.kernel.grants import denial
from llmasos.kernel.invocation import Invocation
from llmasos.kernel.limits import check_arguments
from llmasos.kernel.observation import UsageObserver
from llmasos.quotas.ledger import Held, Ledger
from llmasos.quotas.meters import NOTHING_USED, Demand, Used

logger = logging.getLogger(__name__)
T = TypeVar("T")

# How long the work behind a stream may take to stop, before the invocation goes on without it.
STREAM_CLOSE_SECONDS = 5.0


class Kernel(Lifecycle):
    """Runs host calls for invocations. Use it as an async context manager: its end ends what still runs.

    Args:
        database: The one database.
        ledger: Where quotas are held.
        capabilities: The families of host functions; `register` adds one later.
        observer: Is told each call as it is settled.
    """

    def __init__(
        self,
        database: Database,
        ledger: Ledger,
        capabilities: Iterable[Capability] = (),
        observer: UsageObserver | None = None,
    ) -> None:
        super().__init__(database, ledger)
        self._observer = observer
        self._capabilities = {capability.name: capability for capability in capabilities}

    def register(self, capability: Capability) -> None:
        """Add a capability that itself needs the kernel."""
        self._capabilities[capability.name] = capability

    def syscall(self, invocation: Invocation, capability: str, function: str, arguments: list[Json]) -> Awaitable[Json]:
        """One host call, for an invocation of this kernel.

        Args:
            invocation: Who calls: known by the connection, never by what a message says.
            capability: A family of host functions, by its WIT name.
            function: One of them, or `read` or `close` of a stream.
            arguments: Its WIT parameters, in order.

        Returns:
            The answer; a future that is done where there was nothing to wait for.

        Raises:
            LlmasosError: Denied, over quota, not valid, and so on; nothing else, and nothing of the host's insides.
                At once, or when it is awaited.
        """
        run = self._runs.get(invocation.id)
        if run is None or run.invocation is not invocation:
            raise Cancelled("The invocation has ended.", zh="调用已经结束。")
        event = f"{capability}.{function}"
        with _Telling(self, run, event):
            check_arguments(arguments)
            found = self._authorise(run, capability)
            if function in {"read", "close"} and function not in found.functions:
                return self._awaited(run, event, partial(self._stream_call, run, capability, function, arguments))
            operation = _prepared(invocation, found, function, arguments)
            if type(operation) is Immediate and not found.audited:
                return self._answered(run, event, operation)
            return self._awaited(run, event, partial(self._call, run, found, function, operation))

    def _answered(self, run: Run, event: str, operation: Immediate) -> asyncio.Future[Json]:
        """Answer a call that costs nothing and waits for nothing."""
        started, code = time.monotonic(), "ok"
        answer: asyncio.Future[Json] = asyncio.get_running_loop().create_future()
        try:
            answer.set_result(operation.work())
        except BaseException as error:
            code = code_of(error)
            raise
        finally:
            if self._observer is not None:
                self._observer(usage_record(run.invocation, event, started, NOTHING_USED, code))
        return answer

    async def _awaited(self, run: Run, event: str, call: Callable[[], Awaitable[Json]]) -> Json:
        with _Telling(self, run, event):
            return await call()

    def _authorise(self, run: Run, name: str) -> Capability:
        invocation = run.invocation
        refused = denial(invocation.app, name)
        if refused is not None:
            raise refused
        capability = self._capabilities.get(name)
        if capability is None:
            known = ", ".join(sorted(self._capabilities))
            raise Invalid(
                f"This host has no capability {name[:80]!r}; it has {known}.",
                zh=f"此主机没有能力 {name[:80]!r}；可用：{known}。",
            )
        return capability

    async def _call(self, run: Run, capability: Capability, function: str, operation: Operation) -> Json:
        """Reserve, execute, settle."""
        held = await self._reserve(run, operation)
        call = Call(f"{capability.name}.{function}", held, capability.audited, operation.detail)
        return await self._execute(run, capability, operation, call)

    async def _reserve(self, run: Run, operation: Operation) -> Held:
        """Hold what it may use at most; where that does not fit whole, what it needs exactly."""
        demand = operation.demand
        subject = run.invocation.subject(demand.model)
        try:
            held = await self._ledger.reserve(subject, demand, run.account)
            if held.granted.amounts == demand.amounts or (measure := _measure_of(operation)) is None:
                return held
            await self._ledger.settle(held, NOTHING_USED, counts=False)
        except QuotaExceeded:
            if (measure := _measure_of(operation)) is None:
                raise
        return await self._ledger.reserve(subject, await _until_deadline(run, measure()), run.account)

    async def _execute(self, run: Run, capability: Capability, operation: Operation, call: Call) -> Json:
        try:
            outcome = await _until_deadline(run, operation.execute(call.held.granted))
            if outcome.stream is not None:
                try:
                    return run.open(capability.name, outcome.stream, call).number
                except Invalid:
                    await outcome.stream.close()
                    raise
        except BaseException as error:
            self._settle(run, call, operation.used if isinstance(operation, Metered) else NOTHING_USED, code_of(error))
            raise
        self._settle(run, call, outcome.used, "ok")
        return outcome.value

    def _settle(self, run: Run, call: Call, used: Used, code: str) -> None:
        """Settle and audit in one write. It is queued when this returns: a cancelled caller cannot stop it.

        The app does not wait for the commit: until then the reservation stands, and the invocation's end comes
        after it in the writer's queue.
        """
        invocation, held = run.invocation, call.held
        add_usage(invocation, used)
        if self._observer is not None:
            self._observer(usage_record(invocation, call.event, call.started_monotonic, used, code))
        line = None
        if call.audited and (code == "ok" or run.worth_a_line(call.event, code)):
            detail = {**call.detail, "model": used.model or held.granted.model, "tokens": used.tokens}
            line = audit_line(invocation, call.event, code, {key: it for key, it in detail.items() if it is not None})
        holds = not held.granted.is_empty
        if not holds and line is None:
            return
        counts = bool(used.model or held.granted.model) and (code == "ok" or used.tokens > 0)

        def settle(transaction: Transaction) -> None:
            for overrun in self._ledger.settle_in(transaction, held, used, counts=counts) if holds or counts else ():
                meter = overrun.meter.value
                logger.warning("%s used %d %s, %d were reserved", call.event, overrun.used, meter, overrun.reserved)
                detail = {"meter": meter, "reserved": overrun.reserved, "used": overrun.used, "model": used.model}
                audit.append(transaction, audit_line(invocation, "quota.overrun", "ok", detail))
            if line is not None:
                audit.append(transaction, line)

        self._database.writer.post(settle, hot=True, buffered=True)

    def refused(self, run: Run, event: str, error: LlmasosError) -> None:
        """Write down what was refused before anything ran; what failed later was written down as it settled."""
        run.note(error)
        if isinstance(error, Denied) or error.tag == "quota":
            # The names are the guest's: nothing of any length goes into the log.
            event = event[:120]
            if run.worth_a_line(event, error.code):
                line = audit_line(run.invocation, event, error.code, {})
                self._database.writer.post(lambda transaction: audit.append(transaction, line), hot=True)

    async def _stream_call(self, run: Run, capability: str, function: str, arguments: list[Json]) -> Json:
        opened = run.stream(capability, arguments)
        if opened is None:
            return None
        if function == "close":
            await self._end_stream(run, opened, "ok")
            return None
        async with opened.lock:
            if opened.number not in run.streams:
                return None
            try:
                part = await _until_deadline(run, opened.stream.read())
            except asyncio.CancelledError:
                # The end of the invocation closes it; a guest that gave up one read may read on.
                raise
            except BaseException as error:
                await self._end_stream(run, opened, code_of(error))
                raise
            if part is None:
                await self._end_stream(run, opened, "ok")
            return part

    @override
    async def _end_stream(self, run: Run, opened: OpenStream, code: str) -> None:
        """Close a stream and settle what it used; once, whoever comes first."""
        if run.streams.pop(opened.number, None) is None:
            return
        try:
            async with asyncio.timeout(STREAM_CLOSE_SECONDS):
                await opened.stream.close()
        except Exception:
            logger.exception("a stream of %s did not close", opened.call.event)
        finally:
            self._settle(run, opened.call, opened.stream.used, code)


class _Telling:
    """Lets nothing out but a LlmasosError, and writes down what was refused."""

    __slots__ = ("_event", "_kernel", "_run")

    def __init__(self, kernel: Kernel, run: Run, event: str) -> None:
        self._kernel = kernel
        self._run = run
        self._event = event

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        if isinstance(error, LlmasosError):
            self._kernel.refused(self._run, self._event, error)
        elif isinstance(error, Exception):
            id_ = self._run.invocation.id
            logger.error("%s failed for invocation %s", self._event, id_, exc_info=error)
            raise Unavailable(
                f"The host could not do {self._event}; its log says why, under invocation {id_}.",
                zh=f"主机未能完成 {self._event}；原因见主机日志中的调用 {id_}。",
            ) from error


def _prepared(invocation: Invocation, capability: Capability, function: str, arguments: list[Json]) -> Operation:
    if function not in capability.functions:
        known = ", ".join(sorted(capability.functions))
        raise Invalid(
            f"{capability.name} has no function {function[:80]!r}; it has {known}.",
            zh=f"{capability.name} 没有函数 {function[:80]!r}；可用：{known}。",
        )
    return capability.prepare(invocation, function, arguments)


def _measure_of(operation: Operation) -> Callable[[], Awaitable[Demand]] | None:
    return operation.measure if isinstance(operation, Measurable) else None


async def _until_deadline(run: Run, work: Awaitable[T]) -> T:
    """Wait for it as long as the invocation may run."""
    try:
        return await run.deadline.bound(work)
    except Expired:
        seconds = run.invocation.limits.wall_seconds
        raise TimedOut(
            f"The run reached its limit of {seconds:g} seconds.", zh=f"运行达到了 {seconds:g} 秒的上限。"
        ) from None
