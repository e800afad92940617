"""The runtime of components: compiled once, run in a pool of confined runners, each invocation in a fresh instance."""

from __future__ import annotations

import asyncio
import time
import uuid
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from llmasos.bundles.imports import check_imports
from llmasos.errors import ComponentRejected, Denied, Unavailable
from llmasos.kernel.invocation import Invocation, InvocationLimits
from llmasos.runtimes import process
from llmasos.runtimes.admission import Admission
from llmasos.runtimes.compiled import CompiledStore, as_inspection, sha256_of
from llmasos.runtimes.pool import Pool, held_bytes
from llmasos.runtimes.results import limits_message, result_of
from llmasos.runtimes.runner import Door, Runner
from llmasos.runtimes.runtime import CallResult, Inspection, Program, SyscallDoor
from llmasos.settings import Settings
from llmasos_runner.protocol import Call, Start
from llmasos_sdk.host import BASELINE_CAPABILITIES

# `describe` answers from the app's own source; whatever takes longer is broken.
DESCRIBE_LIMITS: Final = InvocationLimits(wall_seconds=20.0)


@dataclass(frozen=True, slots=True)
class _Asked:
    """An action, or a description of all; `until` is on the monotonic clock, in seconds."""

    invocation_id: str
    action: str | None = None
    input_json: str = ""
    until: float | None = None


class NotPrepared(Unavailable):
    """The compiled code of the app was removed while the app started: run it again."""

    zh = "应用启动时其编译后的代码被删除：请重新运行。"
    code = "not-prepared"


class ComponentRuntime:
    """Implements `runtime.Runtime` for components."""

    def __init__(self, settings: Settings, door: SyscallDoor) -> None:
        """A runtime with no runner yet: the first call starts one.

        Args:
            settings: Where the home is, and how many runners, threads and bytes there may be.
            door: The kernel's door, which every call of an app to the host goes through.
        """
        self._settings = settings
        self._door = door
        self._bubblewrap = settings.bubblewrap == "on"
        self._store = CompiledStore(settings.home / "compiled", bubblewrap=self._bubblewrap)
        self._pool = Pool(self._spawn, settings.runners, settings.runner_threads)
        self._admission = Admission(
            settings.memory_budget_mib << 20, lambda: held_bytes(list(self._pool.pids)), self._end_fattest
        )

    async def inspect(self, code: Path) -> Inspection:
        """What the component imports and exports, read by the engine in a runner; compiles it, and keeps that.

        Raises:
            ComponentRejected: It is no component of the contract, or compiling it took too much.
        """
        digest = await asyncio.to_thread(sha256_of, code)
        return as_inspection(await self._store.ensure(digest, code))

    async def is_ready(self, program: Program) -> bool:
        """Whether it is compiled for this version of the engine."""
        return await self._store.find(program.digest) is not None

    async def prepare(self, program: Program, code: Path) -> None:
        """Compile it, if it isn't.

        Raises:
            ComponentRejected: It cannot be compiled, or isn't what the program names, or imports more than it declares.
        """
        record = await self._store.find(program.digest)
        if record is None:
            if await asyncio.to_thread(sha256_of, code) != program.digest:
                raise ComponentRejected(
                    f"{code.name} is not the component that was installed: its digest differs.",
                    zh=f"{code.name} 不是当时安装的组件：其摘要不同。",
                )
            record = await self._store.ensure(program.digest, code)
        check_imports(as_inspection(record).imports, program.capabilities)

    async def describe(self, program: Program) -> str:
        """The actions that the component exports, as JSON.

        Raises:
            LlmasosError: As `call`.
        """
        done = await self._run(program, _Asked(uuid.uuid4().hex), DESCRIBE_LIMITS, _closed_door)
        return done.output

    async def call(self, program: Program, invocation: Invocation, action: str, input_json: str) -> CallResult:
        """Run one action. Cancelling the task ends the guest within a tick.

        Raises:
            LlmasosError: What the guest answered, the limit it met, or the death of its runner. Its `result` has the
                fuel, memory and log, where the runner told them.
        """
        asked = _Asked(invocation.id, action, input_json, invocation.deadline_monotonic)
        return await self._run(program, asked, invocation.limits, partial(self._door, invocation))

    async def retire(self, installation_id: str) -> None:
        """Nothing: an instance lives as long as its call, and its runner is everybody's."""

    async def close(self) -> None:
        """End every runner, in order."""
        self._admission.close()
        await self._pool.close()

    async def warm(self) -> None:
        """Start a runner ahead of the first call."""
        await self._pool.acquire()

    @property
    def runner_pids(self) -> list[int]:
        """The processes that run apps now."""
        return list(self._pool.pids)

    @property
    def walls(self) -> tuple[str, ...]:
        """What the system confines the living runners with; those that only some have are left out."""
        runners = list(self._pool.pids.values())
        seen = {wall for runner in runners for wall in runner.walls}
        return tuple(sorted(wall for wall in seen if all(wall in runner.walls for runner in runners)))

    async def _run(
        self,
        program: Program,
        asked: _Asked,
        limits: InvocationLimits,
        door: Door,
    ) -> CallResult:
        if await self._store.find(program.digest) is None:
            raise NotPrepared
        async with self._admission.slot(program.installation_id, program.digest, limits.memory_bytes):
            runner = await self._pool.acquire()
            left = limits.wall_seconds if asked.until is None else max(asked.until - time.monotonic(), 0.0)
            message: Call = {
                "t": "call", "id": asked.invocation_id, "program": self._store.name(program.digest),
                "action": asked.action, "input": asked.input_json,
                "capabilities": sorted(program.capabilities | BASELINE_CAPABILITIES),
                "limits": limits_message(limits, left),
            }  # fmt: skip
            try:
                done = await runner.call(message, door)
            finally:
                self._pool.released()
            self._admission.saw(program.digest, done.memory_bytes)
        return result_of(done)

    async def _spawn(self) -> Runner:
        folder = self._settings.home / "compiled"
        folder.mkdir(parents=True, exist_ok=True)
        search, threads = list(process.search_path()), self._settings.runner_threads
        message: Start = {
            "t": "start", "kind": "component", "search_path": search, "threads": threads,
            # Each guest is a thread; beside them stand the ticker and the one that reads.
            "confine": {"profile": "component", "read": [*search, str(folder)], "threads": threads + 16},
        }  # fmt: skip
        return await Runner.start(message, bubblewrap=self._bubblewrap)

    def _end_fattest(self) -> None:
        runners = self._pool.pids
        if runners:
            fattest = max(runners, key=lambda pid: held_bytes([pid]))
            runners[fattest].end("all running apps together held more memory than the host gives them")


async def _closed_door(capability: str, _function: str, _arguments: list[Any]) -> Any:
    raise Denied(
        f"An app cannot use {capability} while it describes its actions.",
        zh=f"应用在描述其操作时不能使用 {capability}。",
    )
