"""The host's side of one runner: many invocations on one connection, and nothing believed.

An invocation is known by this connection and the id that the host gave it here. A runner that breaks the protocol,
crashes or hangs costs itself and what ran in it: every call fails with `RunnerDied`, which says why, and nothing else
is touched.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from copy import copy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, Self, TypeAlias, cast

from typing_extensions import override

from llmasos.errors import Invalid, LlmasosError, RunnerDied, TimedOut
from llmasos.runtimes import process
from llmasos.runtimes.bubblewrap import WALL
from llmasos.runtimes.frames import Done, FrameReader, Incoming, ProtocolFault, Ready, Syscall, encode
from llmasos.runtimes.results import measured
from llmasos_runner.protocol import Call, FrameError, Start

_log = logging.getLogger(__name__)

# A cold interpreter on a machine that is busy with something else has been seen to take four seconds.
START_SECONDS: Final = 30.0
# How long a runner may take to report an end that was due. A guest ends within a tick of 10 ms; the rest is for a
# machine so busy that the runner's threads don't get their turn.
GRACE_SECONDS: Final = 3.0

# After its connection is gone: time to end by itself, so that the cause can be told.
END_SECONDS: Final = 2.0
_GONE: Final = "its connection closed"

# The door as one invocation sees it: (capability, function, arguments) to a JSON value, or a LlmasosError. Where it
# answers with a future that is done, the runner has its answer at once.
Door: TypeAlias = Callable[[str, str, list[Any]], Awaitable[Any]]


def _died(cause: str) -> RunnerDied:
    return RunnerDied(f"The app's runner died: {cause}.", zh=f"运行此应用的进程已退出：{cause}。")


def _reply(call: Syscall, value: Any) -> bytes:
    return encode({"t": "reply", "id": call.id, "seq": call.seq, "value": value})


def _refusal(call: Syscall, error: Exception) -> bytes:
    match error:
        case LlmasosError():
            failure = {"tag": error.tag, "message": error.message}
        case FrameError():
            failure = {"tag": "invalid", "message": f"The answer cannot be sent to the app: {error}."}
        case _:
            about = {"capability": call.capability, "function": call.function}
            _log.error("a capability failed", extra=about, exc_info=error)
            failure = {"tag": "unavailable", "message": f"{call.capability} failed; the host's log has the reason."}
    return encode({"t": "reply", "id": call.id, "seq": call.seq, "error": failure})


@dataclass(slots=True, eq=False)
class _Pending:
    """A call that the runner has not ended yet."""

    done: asyncio.Future[Done]
    door: Door
    ended: Done | None = None
    seq: int = 0
    # In which piece of what the runner sent its last call came, and what serves that call.
    reading: int = 0
    serving: asyncio.Future[Any] | None = None


class Runner(asyncio.Protocol):
    """One runner process, started by `Runner.start`."""

    def __init__(self, started: process.Process) -> None:
        self.process = started
        self.walls: tuple[str, ...] = ()
        self._frames = FrameReader()
        self._reading = 0
        self._calls: dict[str, _Pending] = {}
        self._transport: asyncio.Transport | None = None
        loop = asyncio.get_running_loop()
        self._ready: asyncio.Future[Ready] = loop.create_future()
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
        """Start one and wait until it is confined and ready.

        Args:
            message: Its first frame.
            script: What it runs; another than `main.py` only in tests.
            start_seconds: How long it may take.
            bubblewrap: Whether it is started behind bubblewrap.

        Raises:
            RunnerDied: It ended, or was not ready in time.
            CannotConfine: It should be behind bubblewrap, which cannot be used here.
        """
        started = await process.start(message, script=script, bubblewrap=bubblewrap)
        runner = cls(started)
        loop = asyncio.get_running_loop()
        await loop.create_connection(lambda: runner, sock=started.connection)
        try:
            async with asyncio.timeout(start_seconds):
                ready = await runner._ready
            started.find_runner()
        except TimeoutError as error:
            runner._fault(f"it was not ready after {start_seconds:g} seconds")
            await runner.close()
            raise RunnerDied(
                f"A runner died: it was not ready after {start_seconds:g} seconds.",
                zh=f"运行器已退出：{start_seconds:g} 秒内未就绪。",
            ) from error
        except BaseException:
            runner._fault("nobody waits for it")
            await runner.close()
            raise
        runner.walls = (*ready.walls, *([WALL] if bubblewrap else []))
        return runner

    @property
    def load(self) -> int:
        """How many invocations run in it."""
        return len(self._calls)

    @property
    def is_alive(self) -> bool:
        """Whether it takes calls."""
        return self._cause is None and not self._closing

    async def call(self, message: Call, door: Door) -> Done:
        """Run one invocation to its end. Cancelling the task ends the guest, and waits for that.

        Raises:
            RunnerDied: The process ended first.
            TimedOut: It did not end at its deadline, and the process was killed for it.
        """
        if not self.is_alive:
            raise _died(self._cause or "it is closing")
        try:
            frame = encode(message)
        except FrameError as error:
            raise Invalid(
                f"The input cannot be sent to the app: {error}.", zh=f"无法把输入交给应用：{error}。"
            ) from error
        loop = asyncio.get_running_loop()
        identifier, seconds = message["id"], message["limits"]["wall_seconds"]
        pending = _Pending(loop.create_future(), door)
        self._calls[identifier] = pending
        # A timer and the bare future: `asyncio.timeout` and `shield` would take the loop twice around, as long as a
        # short call takes in the runner.
        timer = loop.call_later(seconds + GRACE_SECONDS, self._overdue, pending, seconds)
        self._write(frame)
        try:
            return await pending.done
        except asyncio.CancelledError as error:
            told = await self._cancel(identifier, pending)
            error.result = measured(told) if told else None  # type: ignore[attr-defined] # for whoever settles
            raise
        finally:
            timer.cancel()
            self._forget(identifier, pending)

    def _overdue(self, pending: _Pending, seconds: float) -> None:
        if not pending.done.done():
            pending.done.set_exception(
                TimedOut(
                    f"The app took longer than {seconds:g} seconds, and was killed.",
                    zh=f"应用用时超过 {seconds:g} 秒，已被终止。",
                )
            )
        self._fault(f"it did not end an invocation that was due after {seconds:g} seconds")

    def end(self, cause: str, failure: LlmasosError | None = None) -> None:
        """Kill it, with what ran in it, for a reason that the callers are told: by `failure`, else as its death."""
        self._failure = failure
        self._fault(cause)

    async def close(self) -> None:
        """End it in order: its calls fail, the connection closes, and the process ends by itself or is killed."""
        self._closing = True
        if self._transport is not None:
            self._transport.close()
            await self._lost
        await self.process.close()

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A socket's is one in every event loop, but not every loop's class says so.
        self._transport = cast("asyncio.Transport", transport)

    @override
    def data_received(self, data: bytes) -> None:
        self._reading += 1
        try:
            for message in self._frames.feed(data):
                self._on(message)
        except ProtocolFault as fault:
            self._fault(str(fault))

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        if self._cause is None and not self._closing:
            self._cause = _GONE
        if not self._lost.done():
            self._lost.set_result(None)
        self._ending = asyncio.ensure_future(self._fail_all())

    def _on(self, message: Incoming) -> None:
        match message:
            case Ready():
                if self._ready.done():
                    raise ProtocolFault("it said twice that it was ready")
                self._ready.set_result(message)
            case Syscall():
                self._on_syscall(message)
            case Done():
                pending = self._calls.pop(message.id, None)
                if pending is None:
                    raise ProtocolFault("it ended an invocation that it does not run")
                self._forget(message.id, pending)
                pending.ended = message
                if not pending.done.done():
                    pending.done.set_result(message)
            case _:
                raise ProtocolFault(f"it sent {type(message).__name__}, which is not its to send")

    def _on_syscall(self, message: Syscall) -> None:
        pending = self._calls.get(message.id)
        if pending is None:
            raise ProtocolFault("it called the host for an invocation that it does not run")
        if message.seq <= pending.seq:
            raise ProtocolFault("it numbered its calls out of order")
        # An app waits for each answer, so that no two calls of an invocation come in one piece.
        if pending.serving is not None or pending.reading == self._reading:
            raise ProtocolFault("it made more calls at once than an app can")
        pending.seq, pending.reading = message.seq, self._reading
        try:
            answer = asyncio.ensure_future(pending.door(message.capability, message.function, message.arguments))
        except Exception as error:
            self._write(_refusal(message, error))
            return
        if answer.done():
            self._served(message, pending, answer)
        else:
            pending.serving = answer
            answer.add_done_callback(partial(self._served, message, pending))

    def _served(self, call: Syscall, pending: _Pending, answer: asyncio.Future[Any]) -> None:
        pending.serving = None
        if answer.cancelled():
            return
        try:
            frame = _reply(call, answer.result())
        except Exception as error:
            frame = _refusal(call, error)
        self._write(frame)

    async def _cancel(self, invocation_id: str, pending: _Pending) -> Done | None:
        if pending.serving is not None:
            pending.serving.cancel()
        # Cancelling the task cancelled the future that it waited on.
        if invocation_id in self._calls:
            pending.done = asyncio.get_running_loop().create_future()
            self._write(encode({"t": "cancel", "id": invocation_id, "reason": "cancelled"}))
            await asyncio.wait({pending.done}, timeout=GRACE_SECONDS)
            if not pending.done.done():
                self._fault("it did not end an invocation that was cancelled")
        return pending.ended

    def _forget(self, invocation_id: str, pending: _Pending) -> None:
        self._calls.pop(invocation_id, None)
        if pending.serving is not None:
            pending.serving.cancel()

    def _write(self, frame: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(frame)

    def _fault(self, cause: str) -> None:
        """Give up on it: from here on it is dead, whatever it does."""
        if self._cause is None:
            self._cause = cause
        self.process.kill()
        if self._transport is not None:
            self._transport.abort()

    async def _fail_all(self) -> None:
        ended = await self.process.ended(within_seconds=END_SECONDS)
        if self._cause == _GONE:
            self._cause = ended
        cause = self._cause or "it was closed"
        if not self._closing:
            _log.warning(
                "a runner died", extra={"pid": self.process.pid, "cause": cause, "invocations": len(self._calls)}
            )
        for pending in list(self._calls.values()):
            if pending.serving is not None:
                pending.serving.cancel()
            if not pending.done.done():
                pending.done.set_exception(copy(self._failure) if self._failure else _died(cause))
                pending.done.exception()  # whoever waits raises it; nobody may, after a cancellation
        self._calls.clear()
        if not self._ready.done():
            self._ready.set_exception(_died(cause))
            with suppress(RunnerDied):
                self._ready.exception()
