"""The host's side of one runner: many invocations on one connection, with an untrusted peer.

The host knows an invocation by this connection and by the id that it issued on it. A runner that breaks the protocol,
crashes or hangs affects only itself and what ran in it: each of its calls ends with `RunnerDied`, which says why.
No behaviour of a runner makes the host wait or buffer without a bound.

A call belongs to its runner, not to the task that waits for it. It leaves the table when the runner reports its end or
dies, and never because its caller gave up; so a report of a cancelled call is expected, however late it comes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from copy import copy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, Self, TypeAlias, cast

from typing_extensions import override

from llmasos.errors import Invalid, LlmasosError, RunnerDied, TimedOut
from llmasos.i18n import _
from llmasos.runtimes import process
from llmasos.runtimes.bubblewrap import MECHANISM
from llmasos.runtimes.frames import DoneFrame, FrameReader, Incoming, ProtocolFault, ReadyFrame, SyscallFrame, encode
from llmasos_runner.protocol import Call, FrameError, Start

_log = logging.getLogger(__name__)

# A cold interpreter on a busy machine was seen to take four seconds.
START_SECONDS: Final = 30.0
# How long a runner may take to report a due end. A guest ends within a tick of 10 ms; the rest is for a
# machine so busy that the runner's threads get no turn.
GRACE_SECONDS: Final = 3.0
# How long a runner without a connection may take to end by itself, so that its exit code tells the cause.
END_SECONDS: Final = 2.0
_CONNECTION_CLOSED: Final = _("its connection closed")

# Handles the host calls of one invocation: (capability, function, arguments) to a JSON value, or a LlmasosError.
# If it returns a future that is done, the runner has its reply at once.
CallHandler: TypeAlias = Callable[[str, str, list[Any]], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class CallEnd:
    """How a call ended: by the runner's own report, or by an error of the host's.

    A cancelled call has the `CancelledError` that ended it, and the report too if the runner made one.
    """

    report: DoneFrame | None = None
    error: LlmasosError | asyncio.CancelledError | None = None


def _died(cause: str) -> RunnerDied:
    return RunnerDied(_("The app's runner died: {cause}.", cause=cause))


def _reply(call: SyscallFrame, value: Any) -> bytes:
    return encode({"t": "reply", "id": call.id, "seq": call.seq, "value": value})


def _refusal(call: SyscallFrame, error: Exception) -> bytes:
    match error:
        case LlmasosError():
            failure = {"tag": error.tag, "message": str(error)}
        case FrameError():
            failure = {"tag": "invalid", "message": f"The answer cannot be sent to the app: {error}."}
        case _:
            about = {"capability": call.capability, "function": call.function}
            _log.error("a capability failed", extra=about, exc_info=error)
            failure = {"tag": "unavailable", "message": f"{call.capability} failed; the host's log has the reason."}
    return encode({"t": "reply", "id": call.id, "seq": call.seq, "error": failure})


class _RunningCall:
    """A call from its frame until its end is known and the host call that it made, if any, has ended too."""

    __slots__ = ("_loop", "_timer", "cancelled", "end", "handler", "received", "seq", "serving", "waiter")

    def __init__(self, handler: CallHandler) -> None:
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self.handler = handler
        self.waiter: asyncio.Future[None] = self._loop.create_future()
        self.end: CallEnd | None = None
        self.cancelled: asyncio.CancelledError | None = None
        self.seq = 0
        # The number of the received piece of data that contained its last host call.
        self.received = 0
        self.serving: asyncio.Future[Any] | None = None

    @property
    def is_over(self) -> bool:
        return self.end is not None and self.serving is None

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        """Set its one timer, replacing any earlier one."""
        self.stop_timer()
        self._timer = self._loop.call_later(seconds, action)

    def stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def finish(self, end: CallEnd) -> None:
        """Record how it ended, and cancel its pending host call."""
        if self.end is not None:
            return
        self.end = end
        self.stop_timer()
        if self.serving is not None:
            if self.cancelled is None:  # a host call is cancelled only once: a second time would interrupt its clean-up
                self.serving.cancel()
            self.after(GRACE_SECONDS, self._abandon)
        self.wake()

    def wake(self) -> None:
        if self.is_over:
            self.stop_timer()
            if not self.waiter.done():
                self.waiter.set_result(None)

    def _abandon(self) -> None:
        _log.error("a host call did not end within %g s of its cancellation", GRACE_SECONDS)
        self.serving = None
        self.wake()


class Runner(asyncio.Protocol):
    """One runner process, started by `Runner.start`."""

    def __init__(self, started: process.Process) -> None:
        self.process = started
        self.confinement: tuple[str, ...] = ()
        """The mechanisms that confine it."""
        self._frames = FrameReader()
        self._received = 0
        self._calls: dict[str, _RunningCall] = {}
        self._transport: asyncio.Transport | None = None
        loop = asyncio.get_running_loop()
        self._ready: asyncio.Future[ReadyFrame] = loop.create_future()
        self._lost: asyncio.Future[None] = loop.create_future()
        self._cause: str | None = None
        self._failure: LlmasosError | None = None
        self._closing = False

    @classmethod
    async def start(
        cls,
        message: Start,
        *,
        script: Path = process.MAIN,
        start_seconds: float = START_SECONDS,
        bubblewrap: bool = False,
    ) -> Self:
        """Start a runner and wait until it is confined and ready.

        Args:
            message: Its first frame.
            script: The script that it runs; tests give another than `main.py`.
            start_seconds: How long it may take.
            bubblewrap: Whether to start it behind bubblewrap.

        Raises:
            RunnerDied: It ended, or was not ready in time.
            CannotConfine: bubblewrap is required but cannot be used here.
        """
        started = await process.start(message, script=script, bubblewrap=bubblewrap)
        runner = cls(started)
        loop = asyncio.get_running_loop()
        try:
            await loop.create_connection(lambda: runner, sock=started.connection)
            async with asyncio.timeout(start_seconds):
                ready = await runner._ready
            started.find_runner()
        except TimeoutError as error:
            runner._fault(_("it was not ready after {seconds} seconds", seconds=f"{start_seconds:g}"))
            await runner.close()
            raise RunnerDied(
                _("A runner died: it was not ready after {start_seconds} seconds.", start_seconds=f"{start_seconds:g}"),
            ) from error
        except BaseException:
            runner._fault(_("its start was given up"))
            await runner.close()
            raise
        runner.confinement = (*ready.confinement, *([MECHANISM] if bubblewrap else []))
        return runner

    @property
    def load(self) -> int:
        """The number of running invocations."""
        return len(self._calls)

    @property
    def is_alive(self) -> bool:
        """Whether it accepts calls."""
        return self._cause is None and not self._closing

    async def call(self, message: Call, handler: CallHandler) -> CallEnd:
        """Run one invocation to its end.

        Cancelling the task ends the guest. The call then still returns, once the guest and its host call have ended,
        with the cancellation in the result; another cancellation during that changes nothing.

        Raises:
            RunnerDied: The process had ended before.
            Invalid: The input cannot be sent.
        """
        if not self.is_alive:
            raise _died(self._cause or _("it is closing"))
        try:
            frame = encode(message)
        except FrameError as error:
            raise Invalid(_("The input cannot be sent to the app: {error}.", error=error)) from error
        identifier, seconds = message["id"], message["limits"]["wall_seconds"]
        call = self._calls[identifier] = _RunningCall(handler)
        # One timer and a bare future: `asyncio.timeout` and `shield` would take the event loop twice around, which
        # takes as long as a short call does in the runner.
        call.after(seconds + GRACE_SECONDS, partial(self._overdue, call, seconds))
        self._write(frame)
        while not call.is_over:
            try:
                await call.waiter
            except asyncio.CancelledError as error:
                # Cancelling the task cancelled the future that it waited on.
                call.waiter = asyncio.get_running_loop().create_future()
                self._cancel(identifier, call, error)
        end = call.end or CallEnd()
        return CallEnd(end.report, call.cancelled) if call.cancelled is not None else end

    def _cancel(self, identifier: str, call: _RunningCall, error: asyncio.CancelledError) -> None:
        if call.cancelled is not None:
            return
        call.cancelled = error
        if call.end is not None:
            return
        if call.serving is not None:
            call.serving.cancel()
        call.after(GRACE_SECONDS, partial(self._fault, "it did not end an invocation that was cancelled"))
        self._write(encode({"t": "cancel", "id": identifier, "reason": "cancelled"}))

    def _overdue(self, call: _RunningCall, seconds: float) -> None:
        call.finish(
            CallEnd(
                error=TimedOut(
                    _("The app took longer than {seconds} seconds, and was killed.", seconds=f"{seconds:g}"),
                )
            )
        )
        self._fault(_("it did not end an invocation that was due after {seconds} seconds", seconds=f"{seconds:g}"))

    def end(self, cause: str, failure: LlmasosError | None = None) -> None:
        """Kill it and what runs in it. Its calls end with `failure`, or else with its death by `cause`."""
        self._failure = failure
        self._fault(cause)

    async def close(self) -> None:
        """End it: its calls fail, and the process ends by itself or is killed. Takes no longer than a few seconds."""
        self._closing = True
        if self._transport is not None:
            self._transport.close()
            # The transport first sends its buffer, which a runner that reads nothing would block forever.
            await asyncio.wait({self._lost}, timeout=END_SECONDS)
            if not self._lost.done():
                self._fault(_("it did not read what the host sent"))
                await asyncio.wait({self._lost}, timeout=END_SECONDS)
        await self.process.close()

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Every event loop's socket transport is one, but not every loop's class declares it.
        self._transport = cast("asyncio.Transport", transport)

    @override
    def pause_writing(self) -> None:
        # A runner that does not read its replies is not read either, so that it cannot ask for more of them.
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    @override
    def resume_writing(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    @override
    def data_received(self, data: bytes) -> None:
        self._received += 1
        try:
            for message in self._frames.feed(data):
                self._on(message)
        except ProtocolFault as fault:
            self._fault(str(fault))

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        if self._cause is None and not self._closing:
            self._cause = _CONNECTION_CLOSED
        self._ending = asyncio.ensure_future(self._fail_all())

    def _on(self, message: Incoming) -> None:
        match message:
            case ReadyFrame():
                if self._ready.done():
                    raise ProtocolFault("it said twice that it was ready")
                self._ready.set_result(message)
            case SyscallFrame():
                self._on_syscall(message)
            case DoneFrame():
                call = self._calls.pop(message.id, None)
                if call is None:
                    raise ProtocolFault("it ended an invocation that it does not run")
                call.finish(CallEnd(report=message))
            case _:
                raise ProtocolFault(f"it sent {type(message).__struct_config__.tag!r}, which it may not send")

    def _on_syscall(self, message: SyscallFrame) -> None:
        call = self._calls.get(message.id)
        if call is None:
            raise ProtocolFault("it called the host for an invocation that it does not run")
        if message.seq <= call.seq:
            raise ProtocolFault("it numbered its calls out of order")
        # An app waits for each reply, so that no two calls of an invocation come in one piece.
        if call.received == self._received or (call.serving is not None and call.cancelled is None):
            raise ProtocolFault("it made more calls at once than an app can")
        call.seq, call.received = message.seq, self._received
        if call.cancelled is not None:
            return  # the guest made it before it learned of its cancellation, and waits for no reply
        try:
            answer = asyncio.ensure_future(call.handler(message.capability, message.function, message.arguments))
        except Exception as error:
            self._write(_refusal(message, error))
            return
        if answer.done():
            self._reply_to(message, answer)
        else:
            call.serving = answer
            answer.add_done_callback(partial(self._served, message, call))

    def _served(self, message: SyscallFrame, call: _RunningCall, answer: asyncio.Future[Any]) -> None:
        if call.serving is answer:
            call.serving = None
        if call.end is None and call.cancelled is None:
            self._reply_to(message, answer)
        elif not answer.cancelled():
            answer.exception()  # its caller has left, and the kernel has settled and recorded it
        call.wake()

    def _reply_to(self, message: SyscallFrame, answer: asyncio.Future[Any]) -> None:
        if answer.cancelled():
            return
        try:
            frame = _reply(message, answer.result())
        except Exception as error:
            frame = _refusal(message, error)
        self._write(frame)

    def _write(self, frame: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(frame)

    def _fault(self, cause: str) -> None:
        """Abandon it: from now on it counts as dead."""
        if self._cause is None:
            self._cause = cause
        self.process.kill()
        if self._transport is not None:
            self._transport.abort()

    async def _fail_all(self) -> None:
        ended = await self.process.ended(within_seconds=END_SECONDS)
        if self._cause == _CONNECTION_CLOSED:
            self._cause = ended
        cause = self._cause or _("it was closed")
        if not self._closing:
            _log.warning(
                "a runner died", extra={"pid": self.process.pid, "cause": cause, "invocations": len(self._calls)}
            )
        for call in self._calls.values():
            call.finish(CallEnd(error=copy(self._failure) if self._failure else _died(cause)))
        self._calls.clear()
        if not self._ready.done():
            self._ready.set_exception(_died(cause))
            self._ready.exception()  # retrieved, since there may be no waiter left
        if not self._lost.done():
            self._lost.set_result(None)
