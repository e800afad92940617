"""Runs native apps: one confined runner per installation, warm while it is used.

A runner sees its app's environment and the standard library, and can use only its socket. If this system
cannot confine it, a native app is not started, unless an operator trusts it by name.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
import uuid
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final, Self

from llmasos.errors import NotFound, ResourceLimit, RunnerDied, TimedOut, Unavailable
from llmasos.i18n import _
from llmasos.kernel.invocation import Invocation, InvocationLimits
from llmasos.runtimes.compute import ComputeMeter, process_clock
from llmasos.runtimes.confinement import confinement, refusal
from llmasos.runtimes.environments import Environment, Environments
from llmasos.runtimes.results import limits_message, outcome_of
from llmasos.runtimes.runner import CallHandler, Runner
from llmasos.runtimes.runtime import (
    CallOutcome,
    Inspection,
    Program,
    RuntimeContext,
    StillInstalled,
    SyscallHandler,
)
from llmasos.runtimes.slots import Slot, Slots
from llmasos_runner.protocol import FUEL_PER_CPU_SECOND, Call, Start
from llmasos_sdk.host import BASELINE_CAPABILITIES

# The memory of an interpreter and a scientific stack before the app's own first value: numpy alone maps 40 MiB.
_IMPORTS_BYTES: Final = 96 << 20
# Invocations at once in one runner; the others wait in the host.
THREADS: Final = 16
_STACK_BYTES: Final = 2 << 20
# An import of a large stack from a cold disk.
_START_SECONDS: Final = 60.0
# How often compute is checked: an app may exceed its limit by this much, on every core.
_LOOK_SECONDS: Final = 0.2
# How often uninstalls by other processes are checked.
_INSTALLED_SECONDS: Final = 1.0
_DESCRIBE: Final = InvocationLimits(wall_seconds=30.0)

logger = logging.getLogger(__name__)


class NativeRuntime:
    """The runtime of `kind = "python"`.

    Args:
        root: The folder of environments.
        handler: The kernel's handler of host calls.
        idle_seconds: How long an unused runner stays.
        most_runners: The largest number of warm runners; beyond it, the least recently used one ends.
        trusted: Ids of apps that run without confinement if this system has none.
        bubblewrap: Whether confined runners are also started behind bubblewrap.
        installed: Reports uninstalls by other processes; without it, only `retire` does.
    """

    def __init__(
        self,
        root: Path,
        handler: SyscallHandler,
        *,
        idle_seconds: float = 300.0,
        most_runners: int = 50,
        trusted: frozenset[str] = frozenset(),
        bubblewrap: bool = False,
        installed: StillInstalled | None = None,
    ) -> None:
        self._environments = Environments(root, bubblewrap=bubblewrap)
        self._handler = handler
        self._trusted = trusted
        self._bubblewrap = bubblewrap
        self._installed = installed
        self._slots = Slots(idle_seconds, most_runners, THREADS)
        self._looking: asyncio.Task[None] | None = None
        self._asking: asyncio.Task[None] | None = None
        self._asked = 0.0

    @classmethod
    def from_context(cls, context: RuntimeContext) -> Self:
        """Create the runtime as the operator configured it."""
        settings = context.settings
        return cls(
            settings.home / "environments",
            context.handler,
            idle_seconds=settings.native_idle_seconds,
            most_runners=settings.native_runners,
            trusted=frozenset(settings.trusted_apps),
            bubblewrap=settings.bubblewrap == "on",
            installed=context.installed,
        )

    async def inspect(self, code: Path) -> Inspection:
        """Return nothing: confinement limits what machine code can reach, and no list of imports describes that."""
        if not await asyncio.to_thread(code.exists):
            raise NotFound(_("there is no {code}", code=code))
        return Inspection(imports=(), exports=())

    async def is_ready(self, program: Program) -> bool:
        """Whether its environment is built, for this Python and this runner."""
        return self._environments.find(program.digest) is not None

    async def prepare(self, program: Program, code: Path) -> None:
        """Build the app's environment; `code` is a folder with the wheel and `requirements.txt`."""
        await self._environments.prepare(program.digest, code)

    async def describe(self, program: Program) -> str:
        """Return the actions that it exports, as JSON."""
        call = _call(uuid.uuid4().hex, program, None, "", _DESCRIBE)
        until = time.monotonic() + _DESCRIBE.wall_seconds
        return (await self._run(program, program.installation_id, call, until, _no_host)).output_or_raise()

    async def call(self, program: Program, invocation: Invocation, action: str, input_json: str) -> CallOutcome:
        """Run one action. Cancelling the task interrupts it."""
        app_id = invocation.app.id if invocation.app else program.installation_id
        call = _call(invocation.id, program, action, input_json, invocation.limits)
        handler = partial(self._handler, invocation)
        return await self._run(program, app_id, call, invocation.deadline_monotonic, handler)

    async def retire(self, installation_id: str) -> None:
        """End an installation's runners, each once its last call has ended."""
        self._slots.retire(lambda key: key[0] == installation_id)
        await self._slots.ended()

    async def close(self) -> None:
        """End every runner."""
        for task in (self._looking, self._asking):
            if task is not None:
                task.cancel()
                await asyncio.wait({task})
        await self._slots.close()

    def confinement(self, installation_id: str) -> tuple[str, ...]:
        """The mechanisms that confine an installation's runner now; empty if none runs, or it is trusted."""
        return next((runner.confinement for key, runner in self._slots.runners if key[0] == installation_id), ())

    async def _run(
        self,
        program: Program,
        app_id: str,
        call: Call,
        until: float,
        handler: CallHandler,
    ) -> CallOutcome:
        """Run a call in the runner of its slot until the deadline, in seconds on the monotonic clock."""
        memory_bytes = call["limits"]["memory_bytes"]
        # Another memory limit needs another process, since a process can only lower its own.
        with self._slots.use((program.installation_id, program.digest, memory_bytes)) as slot:
            try:
                async with asyncio.timeout(until - time.monotonic()):
                    await slot.room.acquire()
            except TimeoutError as error:
                raise TimedOut(
                    _("The app was busy with other calls for as long as this one may take."),
                ) from error
            try:
                async with slot.lock:
                    runner = await self._running(slot, program, app_id, memory_bytes)
                call["limits"]["wall_seconds"] = max(until - time.monotonic(), 0.0)
                return await _metered(slot, runner, call, handler)
            finally:
                slot.room.release()

    async def _running(self, slot: Slot, program: Program, app_id: str, memory_bytes: int) -> Runner:
        """Return the slot's runner, and start it if there is none. The caller holds the slot's lock."""
        if slot.runner is not None and slot.runner.is_alive:
            return slot.runner
        self._slots.end(slot)
        environment = self._environments.find(program.digest)
        try:
            hold = environment.hold() if environment is not None else None
        except FileNotFoundError:
            hold = None
        if environment is None or hold is None:
            raise Unavailable(
                _("The environment of {app} was removed while the app started: run it again.", app=app_id),
            )
        with ExitStack() as given_up:
            given_up.callback(os.close, hold)
            confine = await self._profile(app_id, program, environment, memory_bytes)
            self._slots.make_room()
            slot.breaker.check()
            await asyncio.sleep(slot.breaker.delay_seconds)
            try:
                runner = await Runner.start(
                    _start(environment, confine),
                    script=environment.runner / "llmasos_runner" / "main.py",
                    start_seconds=_START_SECONDS,
                    bubblewrap=self._bubblewrap and bool(confine),
                )
            except RunnerDied as error:
                slot.breaker.failed(error.message)
                raise
            given_up.pop_all()
        slot.started(runner, ComputeMeter(process_clock(runner.process.pid)), partial(os.close, hold))
        if self._looking is None:
            self._looking = asyncio.create_task(self._look_after())
        return runner

    async def _profile(
        self, app_id: str, program: Program, environment: Environment, memory_bytes: int
    ) -> dict[str, Any]:
        offered = await asyncio.to_thread(confinement, bubblewrap=self._bubblewrap)
        if offered.missing is not None:
            if app_id in self._trusted:
                return {}
            raise refusal(app_id, offered.missing)
        return {
            "profile": "native",
            "identity": program.installation_id,
            "read": [str(environment.packages), str(environment.runner)],
            "memory_bytes": _process_memory_bytes(memory_bytes),
            "threads": 4 * THREADS,
        }

    async def _look_after(self) -> None:
        """Enforce compute, and end idle and uninstalled runners. It never waits for a runner."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            try:
                for slot in self._slots.occupied:
                    _enforce_compute(slot)
                self._slots.end_idle()
                due = time.monotonic() - self._asked >= _INSTALLED_SECONDS
                if due and (self._asking is None or self._asking.done()):
                    self._asked = time.monotonic()
                    self._asking = asyncio.create_task(self._end_uninstalled())
            except Exception:
                logger.exception("could not look after the native runners; trying again")

    async def _end_uninstalled(self) -> None:
        known = frozenset(key[0] for key, _ in self._slots.runners)
        if self._installed is None or not known:
            return
        try:
            there = await asyncio.to_thread(self._installed, known)
        except Exception:
            logger.exception("could not look for uninstalled apps; trying again")
            return
        self._slots.retire(lambda key: key[0] in known - there)


async def _metered(slot: Slot, runner: Runner, call: Call, handler: CallHandler) -> CallOutcome:
    """Run a call under the host's own meter, which is authoritative for its compute."""
    meter, identifier = slot.meter, call["id"]
    meter.began(identifier, call["limits"]["fuel"] / FUEL_PER_CPU_SECOND)
    reported: float | None = None
    try:
        end = await runner.call(call, handler)
        if end.report is not None:
            reported = end.report.fuel / FUEL_PER_CPU_SECOND
    finally:
        seconds = meter.ended(identifier, reported)
    if isinstance(end.error, RunnerDied):
        slot.crashed(runner, end.error.message)
    elif end.report is not None:
        slot.breaker.worked()
    outcome = outcome_of(end, call["limits"]["output_bytes"])
    # What the app's process reports of its memory is believed as far as the system would let it grow.
    memory_bytes = min(outcome.memory_bytes, _process_memory_bytes(call["limits"]["memory_bytes"]))
    return replace(outcome, fuel=int(seconds * FUEL_PER_CPU_SECOND), memory_bytes=memory_bytes)


def _process_memory_bytes(memory_bytes: int) -> int:
    """The memory that a runner may take beside its bare interpreter, for an app that may use `memory_bytes`."""
    return memory_bytes + _IMPORTS_BYTES + THREADS * _STACK_BYTES


def _enforce_compute(slot: Slot) -> None:
    runner, meter = slot.runner, slot.meter
    if runner is None or not runner.is_alive or not meter.is_exceeded():
        return
    if meter.calls == 0:
        runner.end(_("it computed while nobody called the app"))
        return
    allowed = f"{meter.allowed_seconds:.3g}"
    alone = _(
        "The app computed longer than the {allowed} s of cpu_seconds, and was ended: raise cpu_seconds under [limits].",
        allowed=allowed,
    )
    together = _(
        "The app computed longer than the {allowed} s of cpu_seconds that its running calls have together, and was "
        "ended: raise cpu_seconds under [limits].",
        allowed=allowed,
    )
    failure = ResourceLimit(together if meter.calls > 1 else alone)
    runner.end(_("it computed longer than its calls may"), failure)


async def _no_host(_capability: str, _function: str, _arguments: list[Any]) -> Any:
    raise Unavailable(_("an app that is being described has no host to call"))


def _start(environment: Environment, confine: Mapping[str, Any]) -> Start:
    return {
        "t": "start",
        "kind": "native",
        "search_path": [str(environment.runner)],
        "confine": dict(confine),
        "threads": THREADS,
        "native": {"paths": [str(environment.packages)]},
    }


def _call(identifier: str, program: Program, action: str | None, input_json: str, limits: InvocationLimits) -> Call:
    return {
        "t": "call",
        "id": identifier,
        "program": "",
        "action": action,
        "input": input_json,
        "capabilities": sorted(program.capabilities | BASELINE_CAPABILITIES),
        "limits": limits_message(limits, limits.wall_seconds),
    }
