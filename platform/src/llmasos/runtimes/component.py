"""The runtime of components: compiles each once, and runs every invocation in a fresh instance in a confined runner."""

from __future__ import annotations

import asyncio
import time
import uuid
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final, Self

from llmasos.bundles.imports import check_imports
from llmasos.errors import ComponentRejected, Denied, Unavailable
from llmasos.i18n import _
from llmasos.kernel.invocation import Invocation, InvocationLimits
from llmasos.runtimes import process
from llmasos.runtimes.admission import Admission
from llmasos.runtimes.compiled import CompiledStore, as_inspection, sha256_of
from llmasos.runtimes.pool import Pool, held_bytes
from llmasos.runtimes.prepared import make_prepared_folder
from llmasos.runtimes.results import limits_message, outcome_of
from llmasos.runtimes.runner import CallHandler, Runner
from llmasos.runtimes.runtime import CallOutcome, Inspection, Program, RuntimeContext, SyscallHandler
from llmasos.settings import Settings
from llmasos_runner.protocol import Call, Start
from llmasos_sdk.host import BASELINE_CAPABILITIES

# `describe` only reads the app's own source; anything slower is broken.
DESCRIBE_LIMITS: Final = InvocationLimits(wall_seconds=20.0)


@dataclass(frozen=True, slots=True)
class _Request:
    """A call of an action, or of `describe`."""

    invocation_id: str
    action: str | None
    input_json: str
    limits: InvocationLimits
    until: float
    """The deadline on the monotonic clock, in seconds."""


class NotPrepared(Unavailable):
    """The compiled code of the app was removed while the app started: run it again."""

    code = "not-prepared"


class ComponentRuntime:
    """Implements `runtime.Runtime` for components."""

    def __init__(self, settings: Settings, handler: SyscallHandler) -> None:
        """Create the runtime without a runner: the first call starts one.

        Args:
            settings: The home, and the limits of runners, threads and memory.
            handler: The kernel's handler of host calls.
        """
        self._settings = settings
        self._handler = handler
        self._bubblewrap = settings.bubblewrap == "on"
        self._store = CompiledStore(settings.home / "compiled", bubblewrap=self._bubblewrap)
        self._pool = Pool(self._spawn, settings.runners, settings.runner_threads)
        self._admission = Admission(
            settings.memory_budget_mib << 20, lambda: held_bytes(list(self._pool.pids)), self._end_largest
        )

    @classmethod
    def from_context(cls, context: RuntimeContext) -> Self:
        """Create the runtime as the operator configured it."""
        return cls(context.settings, context.handler)

    async def inspect(self, code: Path) -> Inspection:
        """Read the imports and exports of the component, in a runner that also compiles it; the result is kept.

        Raises:
            ComponentRejected: It is not a component of the contract, or took too much to compile.
        """
        digest = await asyncio.to_thread(sha256_of, code)
        return as_inspection(await self._store.ensure(digest, code))

    async def is_ready(self, program: Program) -> bool:
        """Whether it is compiled for this version of the engine."""
        return await self._store.find(program.digest) is not None

    async def prepare(self, program: Program, code: Path) -> None:
        """Compile it, unless that is done.

        Raises:
            ComponentRejected: It cannot be compiled, is not the program's component, or imports more than it declares.
        """
        record = await self._store.find(program.digest)
        if record is None:
            if await asyncio.to_thread(sha256_of, code) != program.digest:
                raise ComponentRejected(
                    _("{code} is not the component that was installed: its digest differs.", code=code.name),
                )
            record = await self._store.ensure(program.digest, code)
        check_imports(as_inspection(record).imports, program.capabilities)

    async def describe(self, program: Program) -> str:
        """Return the actions that the component exports, as JSON.

        Raises:
            LlmasosError: The guest's own error, a limit that it reached, or the death of its runner.
        """
        return await self._described(program, None, "")

    async def call(self, program: Program, invocation: Invocation, action: str, input_json: str) -> CallOutcome:
        """Run one action. Cancelling the task ends the guest within a tick."""
        request = _Request(invocation.id, action, input_json, invocation.limits, invocation.deadline_monotonic)
        return await self._run(program, request, partial(self._handler, invocation))

    async def retire(self, installation_id: str) -> None:
        """Do nothing: an instance lives as long as its call, and all apps share its runner."""

    async def close(self) -> None:
        """End every runner, in order."""
        self._admission.close()
        await self._pool.close()

    async def warm(self) -> None:
        """Start a runner ahead of the first call."""
        await self._pool.acquire()

    @property
    def runner_pids(self) -> list[int]:
        """The processes that run apps now, by id."""
        return list(self._pool.pids)

    @property
    def confinement(self) -> tuple[str, ...]:
        """The mechanisms that confine every living runner, without those that only some runners have."""
        runners = list(self._pool.pids.values())
        seen = {name for runner in runners for name in runner.confinement}
        return tuple(sorted(name for name in seen if all(name in runner.confinement for runner in runners)))

    async def _described(self, program: Program, action: str | None, input_json: str) -> str:
        """What a call returns that may reach nothing of the host."""
        until = time.monotonic() + DESCRIBE_LIMITS.wall_seconds
        request = _Request(uuid.uuid4().hex, action, input_json, DESCRIBE_LIMITS, until)
        return (await self._run(program, request, _no_host)).output_or_raise()

    async def _run(self, program: Program, request: _Request, handler: CallHandler) -> CallOutcome:
        if await self._store.find(program.digest) is None:
            raise NotPrepared
        limits = request.limits
        async with self._admission.slot(program.installation_id, program.digest, limits.memory_bytes):
            runner = await self._pool.acquire()
            left = max(request.until - time.monotonic(), 0.0)
            message: Call = {
                "t": "call", "id": request.invocation_id, "program": self._store.name(program.digest),
                "action": request.action, "input": request.input_json,
                "capabilities": sorted(program.capabilities | BASELINE_CAPABILITIES),
                "limits": limits_message(limits, left),
            }  # fmt: skip
            try:
                end = await runner.call(message, handler)
            finally:
                self._pool.released()
            if end.report is not None:
                self._admission.saw(program.digest, end.report.memory_bytes)
        outcome = outcome_of(end, limits.output_bytes)
        return replace(outcome, fuel=min(outcome.fuel, limits.fuel))

    async def _spawn(self) -> Runner:
        folder = self._settings.home / "compiled"
        make_prepared_folder(folder)
        search, threads = list(process.search_path()), self._settings.runner_threads
        message: Start = {
            "t": "start", "kind": "component", "search_path": search, "threads": threads,
            # A thread for each guest, the ticker, and the one that reads.
            "confine": {"profile": "component", "read": [*search, str(folder)], "threads": threads + 16},
        }  # fmt: skip
        return await Runner.start(message, bubblewrap=self._bubblewrap)

    def _end_largest(self) -> None:
        runners = self._pool.pids
        if runners:
            largest = max(runners, key=lambda pid: held_bytes([pid]))
            runners[largest].end(_("all running apps together held more memory than the host gives them"))


async def _no_host(capability: str, _function: str, _arguments: list[Any]) -> Any:
    raise Denied(
        _("An app cannot use {capability} while it describes its actions.", capability=capability),
    )
