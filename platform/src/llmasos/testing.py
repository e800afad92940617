"""Fakes of the host's ports, for tests: a runtime that runs Python functions in this process, and its installs.

They replace runners and installations; everything around them is real.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from llmasos.bundles.actions import Action
from llmasos.bundles.manifest import Permission
from llmasos.database.engine import Database
from llmasos.errors import ComponentRejected, LlmasosError, TimedOut, Unavailable
from llmasos.i18n import _
from llmasos.invocations.lifecycle import Invocations
from llmasos.invocations.run import Runnable, not_installed
from llmasos.kernel.capability import Capability
from llmasos.kernel.guest_calls import GuestCalls
from llmasos.kernel.invocation import InstalledApp, Invocation, InvocationLimits, Json
from llmasos.kernel.observation import UsageObserver
from llmasos.kernel.syscall import Kernel
from llmasos.quotas.ledger import Ledger
from llmasos.runtimes.runtime import CallOutcome, Inspection, Program, SyscallHandler
from llmasos.secrets import Sealer

# As the file of a home has it.
ANY_KEY = base64.urlsafe_b64encode(bytes(32))


@dataclass(frozen=True, slots=True)
class Guest:
    """What an action of a fake app receives: its input, and the handler of its host calls."""

    input: dict[str, Any]
    invocation: Invocation
    handler: SyscallHandler

    async def call(self, capability: str, function: str, *arguments: Json) -> Json:
        """Call a host function, as an app does."""
        return await self.handler(self.invocation, capability, function, list(arguments))


@dataclass(frozen=True, slots=True)
class SmallHost:
    """A kernel with few capabilities, the invocations that it serves, and the handler of apps' calls."""

    kernel: Kernel
    invocations: Invocations
    guest: GuestCalls


@asynccontextmanager
async def small_host(
    database: Database, *capabilities: Capability, observer: UsageObserver | None = None
) -> AsyncGenerator[SmallHost]:
    """Open a kernel with only these capabilities, until the block ends."""
    ledger = Ledger(database)
    kernel = Kernel(database, ledger, capabilities, observer)
    async with Invocations(database, ledger, kernel, Sealer(lambda: ANY_KEY)) as invocations:
        yield SmallHost(kernel, invocations, GuestCalls(kernel))


Behaviour: TypeAlias = Callable[[Guest], Awaitable[Json]]
ANYTHING: Mapping[str, Any] = {"type": "object"}


@dataclass(frozen=True, slots=True)
class FakeAction:
    """An action: its function and its schemas."""

    do: Behaviour
    input_schema: Mapping[str, Any] = field(default_factory=lambda: ANYTHING)
    output_schema: Mapping[str, Any] = field(default_factory=dict[str, Any])
    streaming: bool = False


@dataclass
class FakeApps:
    """Installed apps whose actions are async functions here. Implements `Runnables` and makes a `Runtime`.

    A function named, for example, `@install` is the hook of that lifecycle event.
    """

    actions: dict[str, dict[str, FakeAction]] = field(default_factory=dict[str, dict[str, FakeAction]])
    grants: dict[str, Mapping[str, Permission]] = field(default_factory=dict[str, Mapping[str, Permission]])
    limits: InvocationLimits = field(default_factory=InvocationLimits)
    config: dict[str, Mapping[str, Json]] = field(default_factory=dict[str, Mapping[str, Json]])
    """By app, what its installer chose."""

    def add(self, app_id: str, grants: Mapping[str, Permission] | None = None, **actions: FakeAction) -> None:
        """Install an app."""
        self.actions[app_id] = actions
        self.grants[app_id] = grants or {}

    def runnable(self, workspace: str, app_id: str) -> Runnable:
        """The app, in any workspace."""
        if app_id not in self.actions:
            raise not_installed(app_id)
        grants = self.grants[app_id]
        return Runnable(
            app=InstalledApp(app_id, "1.0.0", f"fake-{app_id}", grants, frozenset(grants), self.config.get(app_id, {})),
            program=Program("wasm", app_id, frozenset(grants), f"fake-{app_id}"),
            actions={
                name: Action(name, fake.input_schema, fake.output_schema, fake.streaming, {})
                for name, fake in self.actions[app_id].items()
                if not name.startswith("@")
            },
            limits=self.limits,
            lifecycle_events=frozenset(name for name in self.actions[app_id] if name.startswith("@")),
        )

    def code(self, found: Runnable) -> Path:
        """Fake apps have no code."""
        raise Unavailable(_("{app} is a fake app", app=found.app.id))

    def runtime(self, handler: SyscallHandler) -> InProcessRuntime:
        """A runtime that runs these apps."""
        return InProcessRuntime(self.actions, handler)


class InProcessRuntime:
    """Runs fake actions as tasks, under a runner's limits."""

    def __init__(self, actions: Mapping[str, Mapping[str, FakeAction]], handler: SyscallHandler) -> None:
        self._actions = actions
        self._handler = handler
        self.running = 0

    async def inspect(self, code: Path) -> Inspection:
        """Fake apps have no binary."""
        raise ComponentRejected(_("{code} is no fake app", code=code.name))

    async def is_ready(self, program: Program) -> bool:
        """Return True: functions are always ready."""
        return True

    async def prepare(self, program: Program, code: Path) -> None:
        """Do nothing: functions are always ready."""

    async def describe(self, program: Program) -> str:
        """The actions' names and schemas."""
        return json.dumps(
            [
                {"name": name, "input_schema": dict(fake.input_schema), "output_schema": dict(fake.output_schema)}
                for name, fake in self._actions[program.digest].items()
            ]
        )

    async def call(self, program: Program, invocation: Invocation, action: str, input_json: str) -> CallOutcome:
        """Run one action until it ends, is cancelled, or its wall time is over."""
        guest = Guest(json.loads(input_json), invocation, self._handler)
        self.running += 1
        try:
            async with asyncio.timeout(invocation.limits.wall_seconds):
                output = await self._actions[program.digest][action].do(guest)
        except TimeoutError:
            timed_out = TimedOut(
                _("The action took over {wall_seconds} s.", wall_seconds=invocation.limits.wall_seconds),
            )
            return CallOutcome(error=timed_out, fuel=1000)
        except (LlmasosError, asyncio.CancelledError) as error:
            return CallOutcome(error=error, fuel=1000)
        finally:
            self.running -= 1
        return CallOutcome(json.dumps(output), fuel=1000, memory_bytes=1 << 20)

    async def retire(self, installation_id: str) -> None:
        """Do nothing: no runner is warm."""

    async def close(self) -> None:
        """Do nothing: nothing outlives its call."""
