"""What a runtime is to the host: it prepares programs once, and runs their actions."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias

from llmasos.kernel.invocation import Invocation, Json
from llmasos.settings import Settings

# The kernel's one door: (invocation, capability, function, arguments) to a JSON value, or a LlmasosError.
SyscallDoor: TypeAlias = Callable[[Invocation, str, str, list[Json]], Awaitable[Json]]


@dataclass(frozen=True, slots=True)
class Program:
    """What is run: a component or wheel by the SHA-256 of its bytes, and the capabilities it is linked with."""

    kind: str
    digest: str
    capabilities: frozenset[str]
    installation_id: str


@dataclass(frozen=True, slots=True)
class CallResult:
    """How an action ended: its JSON text, what it used, and what it printed."""

    output: str
    fuel: int
    memory_bytes: int
    log: str


@dataclass(frozen=True, slots=True)
class Inspection:
    """What a binary is, read in a runner."""

    imports: tuple[str, ...]
    exports: tuple[str, ...]


class Runtime(Protocol):
    """Runs one kind of app."""

    async def inspect(self, code: Path) -> Inspection:
        """What the binary imports and exports.

        Raises:
            ComponentRejected: It is not one, or reading it took too much.
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
        """The actions that it exports, as JSON."""
        ...

    async def call(self, program: Program, invocation: Invocation, action: str, input_json: str) -> CallResult:
        """Run one action. Cancelling the task ends the guest.

        Fuel, memory and log of a failed call are on the raised error's `result` where the runner told them.

        Raises:
            LlmasosError: What the guest answered, the limit it met, or the death of its runner.
        """
        ...

    async def retire(self, installation_id: str) -> None:
        """End what is kept warm for an installation that is gone, once its last call is answered."""
        ...

    async def close(self) -> None:
        """End every runner."""
        ...


StillInstalled: TypeAlias = Callable[[frozenset[str]], frozenset[str]]
"""Which of these installations are still there."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a runtime is made with: the host's settings, the kernel's door, and where to ask what is installed.

    `installed` is None where nothing is: in a build, or while a release is checked.
    """

    settings: Settings
    door: SyscallDoor
    installed: StillInstalled | None = None


@dataclass(frozen=True, slots=True)
class RuntimeKind:
    """A runtime for the apps of one `runtime.kind`: wasm, python, or an operator's, which begins with `x-`."""

    kind: str
    make: Callable[[Surroundings], Runtime]
    """Called once a host, when something of the kind is first prepared or run."""
