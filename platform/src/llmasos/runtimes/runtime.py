"""The interface of a runtime: it prepares programs once, and runs their actions."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias

from llmasos.errors import LlmasosError
from llmasos.kernel.invocation import Invocation, Json
from llmasos.settings import Settings

SyscallHandler: TypeAlias = Callable[[Invocation, str, str, list[Json]], Awaitable[Json]]
"""The kernel's handler of host calls: (invocation, capability, function, arguments) to a JSON value; raises a
`LlmasosError`."""


@dataclass(frozen=True, slots=True)
class Program:
    """A component or wheel, by the SHA-256 of its bytes, and the capabilities that it is linked with."""

    kind: str
    digest: str
    capabilities: frozenset[str]
    installation_id: str


@dataclass(frozen=True, slots=True)
class CallOutcome:
    """How a call of an action ended: with an output or an error, and what it used either way.

    Args:
        output: The JSON text that the action returned; None if it failed.
        error: Why it failed. A cancelled call carries the `CancelledError` that ended it: raise it again once the
            usage is noted, as `output_or_raise` does.
        fuel: The compute that it used, in units of fuel.
        memory_bytes: The memory that it touched.
        log: What it printed.
    """

    output: str | None = None
    error: LlmasosError | asyncio.CancelledError | None = None
    fuel: int = 0
    memory_bytes: int = 0
    log: str = ""
    returned_tag: str | None = None
    """The case of the contract's `error` that the app returned as its own: a claim, which no host acts on."""

    def output_or_raise(self) -> str:
        """Return the output.

        Raises:
            LlmasosError: The call failed.
            asyncio.CancelledError: The call was cancelled.
        """
        if self.error is not None:
            raise self.error
        return self.output or ""


@dataclass(frozen=True, slots=True)
class Inspection:
    """A binary's imports and exports, as read in a runner."""

    imports: tuple[str, ...]
    exports: tuple[str, ...]


class Runtime(Protocol):
    """Runs one kind of app."""

    async def inspect(self, code: Path) -> Inspection:
        """Read the binary's imports and exports.

        Raises:
            ComponentRejected: It is not a component, or reading it took too much.
        """
        ...

    async def is_ready(self, program: Program) -> bool:
        """Whether it can run now: prepared, and by this version of the engine, the interpreter and the runner."""
        ...

    async def prepare(self, program: Program, code: Path) -> None:
        """Make it ready to run: compile it, or build its environment.

        Atomic and idempotent. Processes that prepare the same program at once wait for the first of them.
        """
        ...

    async def describe(self, program: Program) -> str:
        """Return the actions that it exports, as JSON."""
        ...

    async def call(self, program: Program, invocation: Invocation, action: str, input_json: str) -> CallOutcome:
        """Run one action. Cancelling the task ends the guest, and the outcome then carries the cancellation.

        Raises:
            LlmasosError: It could not be started, so that nothing was used. Every other failure is in the outcome.
        """
        ...

    async def retire(self, installation_id: str) -> None:
        """End the warm runners of a removed installation, once its last call has ended."""
        ...

    async def close(self) -> None:
        """End every runner."""
        ...


StillInstalled: TypeAlias = Callable[[frozenset[str]], frozenset[str]]
"""Returns which of these installations still exist."""


@dataclass(frozen=True, slots=True)
class RuntimeContext:
    """The arguments of a new runtime.

    Args:
        settings: The host's settings.
        handler: The kernel's handler of host calls.
        installed: Returns which installations still exist. None if nothing is installed: in a build, or while a
            release is checked.
    """

    settings: Settings
    handler: SyscallHandler
    installed: StillInstalled | None = None


@dataclass(frozen=True, slots=True)
class RuntimeKind:
    """A runtime for the apps of one `runtime.kind`: wasm, python, or an operator's, which begins with `x-`."""

    kind: str
    make: Callable[[RuntimeContext], Runtime]
    """Called once per host, when an app of this kind is first prepared or run."""
