"""Runs native apps: one confined runner an installation, warm while it is used.

A runner sees its app's environment and the standard library, and reaches nothing but its socket. Where this system
cannot confine it, a native app is not started, unless an operator trusts it by name.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final, Self, TypeAlias

from msgspec import structs

from llmasos.errors import LlmasosError, NotFound, ResourceLimit, RunnerDied, Unavailable
from llmasos.kernel.invocation import Invocation, InvocationLimits
from llmasos.runtimes.compute import ComputeMeter, Spent, process_clock
from llmasos.runtimes.confinement import confinement, refusal
from llmasos.runtimes.environments import Environment, Environments
from llmasos.runtimes.frames import Done
from llmasos.runtimes.pool import Breaker
from llmasos.runtimes.results import limits_message, result_of
from llmasos.runtimes.runner import Door, Runner
from llmasos.runtimes.runtime import CallResult, Inspection, Program, StillInstalled, SyscallDoor
from llmasos.settings import Settings
from llmasos_runner.protocol import FUEL_PER_CPU_SECOND, Call, Limits, Start
from llmasos_sdk.host import BASELINE_CAPABILITIES

# What an interpreter and a scientific stack hold before the app's own first value: numpy alone maps 40 MiB.
_IMPORTS_BYTES: Final = 96 << 20
# Invocations at once in one runner; what is beyond waits.
_THREADS: Final = 16
_STACK_BYTES: Final = 2 << 20
# An import of a large stack from a cold disk.
_START_SECONDS: Final = 60.0
# How far past its compute an app comes, on every core.
_LOOK_SECONDS: Final = 0.2
# An uninstall in another process takes effect here within a moment.
_INSTALLED_SECONDS: Final = 1.0
_DESCRIBE: Final = InvocationLimits(wall_seconds=30.0)

Key: TypeAlias = tuple[str, str, int]
logger = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Slot:
    """An installation's runner, and how it fared."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    runner: Runner | None = None
    meter: ComputeMeter = field(default_factory=lambda: ComputeMeter(lambda: 0.0))
    users: int = 0
    last_used: float = 0.0
    retired: bool = False
    breaker: Breaker = field(default_factory=Breaker)


class NativeRuntime:
    """The runtime of `kind = "python"`.

    Args:
        root: The folder for environments.
        door: The kernel's.
        idle_seconds: How long a runner that nobody uses stays.
        most_runners: How many stay at once; past it the one not used for longest ends.
        trusted: Apps, by id, that run without confinement where this system has none.
        bubblewrap: Whether confined runners are started behind bubblewrap besides.
        installed: Tells what other processes uninstalled; without it, only `retire` does.
    """

    def __init__(
        self,
        root: Path,
        door: SyscallDoor,
        *,
        idle_seconds: float = 300.0,
        most_runners: int = 50,
        trusted: frozenset[str] = frozenset(),
        bubblewrap: bool = False,
        installed: StillInstalled | None = None,
    ) -> None:
        self._environments = Environments(root)
        self._door = door
        self._idle_seconds = idle_seconds
        self._most_runners = most_runners
        self._trusted = trusted
        self._bubblewrap = bubblewrap
        self._installed = installed
        self._slots: dict[Key, _Slot] = {}
        self._looking: asyncio.Task[None] | None = None
        self._ending: set[asyncio.Task[None]] = set()
        # Retired while they run something: looked after until its end.
        self._leaving: set[_Slot] = set()

    @classmethod
    def from_settings(cls, settings: Settings, door: SyscallDoor, installed: StillInstalled | None = None) -> Self:
        """A runtime as the operator configured it."""
        return cls(
            settings.home / "environments",
            door,
            idle_seconds=settings.native_idle_seconds,
            most_runners=settings.native_runners,
            trusted=frozenset(settings.trusted_apps),
            bubblewrap=settings.bubblewrap == "on",
            installed=installed,
        )

    async def inspect(self, code: Path) -> Inspection:
        """Nothing: what machine code may reach is held by its runner's walls, and told by no list of imports."""
        if not await asyncio.to_thread(code.exists):
            raise NotFound(f"there is no {code}", zh=f"{code} 不存在")
        return Inspection(imports=(), exports=())

    async def is_ready(self, program: Program) -> bool:
        """Whether its environment is built, for this Python and this runner."""
        return self._environments.find(program.digest) is not None

    async def prepare(self, program: Program, code: Path) -> None:
        """Build the app's environment; `code` is a folder with the wheel and `requirements.txt`."""
        await asyncio.to_thread(self._environments.prepare, program.digest, code)

    async def describe(self, program: Program) -> str:
        """The actions that it exports, as JSON."""
        message = _call(uuid.uuid4().hex, program, None, "", limits_message(_DESCRIBE, _DESCRIBE.wall_seconds))
        return (await self._run(program, program.installation_id, _DESCRIBE.memory_bytes, message, _no_door)).output

    async def call(self, program: Program, invocation: Invocation, action: str, input_json: str) -> CallResult:
        """Run one action. Cancelling the task interrupts it."""
        app_id = invocation.app.id if invocation.app else program.installation_id
        left = max(invocation.deadline_monotonic - time.monotonic(), 0.0)
        message = _call(invocation.id, program, action, input_json, limits_message(invocation.limits, left))
        door = partial(self._door, invocation)
        return await self._run(program, app_id, invocation.limits.memory_bytes, message, door)

    async def retire(self, installation_id: str) -> None:
        """End an installation's runners, each once its last call is answered."""
        self._retire(lambda key: key[0] == installation_id)
        await asyncio.gather(*self._ending)

    async def close(self) -> None:
        """End every runner."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait({self._looking})
        runners = [slot.runner for slot in (*self._slots.values(), *self._leaving) if slot.runner is not None]
        self._slots.clear()
        await asyncio.gather(*(runner.close() for runner in runners), *self._ending)

    def walls(self, installation_id: str) -> tuple[str, ...]:
        """What confines an installation's runner now; empty where none runs, or it is trusted."""
        for key, slot in self._slots.items():
            if key[0] == installation_id and slot.runner is not None:
                return slot.runner.walls
        return ()

    async def _run(self, program: Program, app_id: str, memory_bytes: int, message: Call, door: Door) -> CallResult:
        # Another limit of memory is another process, since a process's own can only be lowered.
        key = (program.installation_id, program.digest, memory_bytes)
        slot = self._slots.get(key)
        if slot is None:
            # Before anything is awaited: what runs now is of this release, and of no other.
            slot = self._slots[key] = _Slot()
            self._retire(lambda other: other[0] == key[0] and other[1] != key[1])
        slot.users += 1
        try:
            async with slot.lock:
                runner = await self._running(slot, program, app_id, memory_bytes)
            done = await _metered(runner, slot.meter, message, door)
        except RunnerDied as error:
            slot.breaker.failed(error.message)
            raise
        finally:
            slot.users -= 1
            slot.last_used = time.monotonic()
            if slot.retired and slot.users == 0:
                self._leaving.discard(slot)
                await _end(slot)
        slot.breaker.worked()
        return result_of(done)

    def _retire(self, goes: Callable[[Key], bool]) -> None:
        """End some runners, each once its last call is answered."""
        for key, slot in list(self._slots.items()):
            if goes(key):
                slot.retired = True
                del self._slots[key]
                if slot.users > 0:
                    self._leaving.add(slot)
                else:
                    ending = asyncio.create_task(_end(slot))
                    self._ending.add(ending)
                    ending.add_done_callback(self._ending.discard)

    async def _running(self, slot: _Slot, program: Program, app_id: str, memory_bytes: int) -> Runner:
        """The slot's runner, started where there is none; the slot's lock is held."""
        if slot.runner is not None and slot.runner.is_alive:
            return slot.runner
        await _end(slot)
        environment = self._environments.find(program.digest)
        if environment is None:
            raise Unavailable(
                f"The environment of {app_id} was removed while the app started: run it again.",
                zh=f"{app_id} 启动时其环境被删除：请重新运行。",
            )
        confine = await self._profile(app_id, program, environment, memory_bytes)
        await self._make_room()
        slot.breaker.check()
        await asyncio.sleep(slot.breaker.delay_seconds)
        script = environment.runner / "llmasos_runner" / "main.py"
        message = _start(environment, confine)
        slot.runner = await Runner.start(
            message, script=script, start_seconds=_START_SECONDS, bubblewrap=self._bubblewrap and bool(confine)
        )
        slot.meter = ComputeMeter(process_clock(slot.runner.process.pid))
        if self._looking is None:
            self._looking = asyncio.create_task(self._look_after())
        return slot.runner

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
            "memory_bytes": memory_bytes + _IMPORTS_BYTES + _THREADS * _STACK_BYTES,
            "threads": 4 * _THREADS,
        }

    async def _make_room(self) -> None:
        running = [slot for slot in self._slots.values() if slot.runner is not None]
        idle = sorted((slot for slot in running if slot.users == 0), key=lambda slot: slot.last_used)
        for slot in idle[: max(0, len(running) - self._most_runners + 1)]:
            await _end(slot)

    async def _look_after(self) -> None:
        asked = time.monotonic()
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            try:
                for slot in (*self._slots.values(), *self._leaving):
                    _hold_to_its_compute(slot)
                await self._end_idle()
                if time.monotonic() - asked >= _INSTALLED_SECONDS:
                    asked = time.monotonic()
                    await self._end_uninstalled()
            except Exception:
                logger.exception("could not look after the native runners; trying again")

    async def _end_idle(self) -> None:
        limit = time.monotonic() - self._idle_seconds
        for key, slot in list(self._slots.items()):
            if slot.users == 0 and slot.last_used < limit and not slot.lock.locked():
                async with slot.lock:
                    await _end(slot)
                if slot.users == 0:
                    self._slots.pop(key, None)

    async def _end_uninstalled(self) -> None:
        known = frozenset(key[0] for key in self._slots)
        if self._installed is not None and known:
            there = await asyncio.to_thread(self._installed, known)
            self._retire(lambda key: key[0] in known - there)


async def _end(slot: _Slot) -> None:
    runner, slot.runner = slot.runner, None
    if runner is not None:
        await runner.close()


async def _metered(runner: Runner, meter: ComputeMeter, message: Call, door: Door) -> Done:
    """Run a call under the meter. What it computed is the host's own measure, where that can be told."""
    meter.began(message["id"], message["limits"]["fuel"] / FUEL_PER_CPU_SECOND)
    spent = Spent(0.0, exact=False)
    try:
        try:
            done = await runner.call(message, door)
        finally:
            spent = meter.ended(message["id"])
    except asyncio.CancelledError as error:
        told: CallResult | None = getattr(error, "result", None)
        error.result = told or _unreported(spent)  # type: ignore[attr-defined] # for whoever settles
        raise
    except LlmasosError as error:
        error.result = _unreported(spent)
        raise
    return structs.replace(done, fuel=max(done.fuel, _fuel(spent))) if spent.exact else done


def _unreported(spent: Spent) -> CallResult:
    """What a call used whose runner cannot tell any more."""
    return CallResult("", _fuel(spent), 0, "")


def _fuel(spent: Spent) -> int:
    return int(spent.seconds * FUEL_PER_CPU_SECOND)


def _hold_to_its_compute(slot: _Slot) -> None:
    runner, meter = slot.runner, slot.meter
    if runner is None or not runner.is_alive or not meter.is_exceeded():
        return
    if meter.calls == 0:
        runner.end("it computed while nobody called the app")
        return
    allowed = f"{meter.allowed_seconds:.3g}"
    together = " that its running calls have together" if meter.calls > 1 else ""
    failure = ResourceLimit(
        f"The app computed longer than the {allowed} s of cpu_seconds{together}, and was ended: "
        "raise cpu_seconds under [limits].",
        zh=f"应用的计算时间超过了 cpu_seconds 允许的 {allowed} 秒，已被终止：请在 [limits] 下提高 cpu_seconds。",
    )
    runner.end("it computed longer than its calls may", failure)


async def _no_door(_capability: str, _function: str, _arguments: list[Any]) -> Any:
    raise Unavailable("an app that is being described has no host to call", zh="应用在描述自身时没有可调用的主机")


def _start(environment: Environment, confine: Mapping[str, Any]) -> Start:
    return {
        "t": "start",
        "kind": "native",
        "search_path": [str(environment.runner)],
        "confine": dict(confine),
        "threads": _THREADS,
        "native": {"paths": [str(environment.packages)]},
    }


def _call(identifier: str, program: Program, action: str | None, input_json: str, limits: Limits) -> Call:
    return {
        "t": "call",
        "id": identifier,
        "program": "",
        "action": action,
        "input": input_json,
        "capabilities": sorted(program.capabilities | BASELINE_CAPABILITIES),
        "limits": limits,
    }
