"""What a capability is to the kernel.

A capability decodes and authorises a call (`prepare`), says what it may use at most (`Operation.demand`), and runs it
under what was reserved (`Operation.execute`). Reserving, settling and auditing are the kernel's.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Protocol, runtime_checkable

from llmasos.kernel.invocation import Invocation, Json
from llmasos.quotas.meters import NOTHING_USED, Demand, Used

__all__ = [
    "NOTHING_USED",
    "Capability",
    "Immediate",
    "Json",
    "Measurable",
    "Metered",
    "Operation",
    "Outcome",
    "Stream",
    "Used",
]


class Stream(Protocol):
    """An answer that comes in parts. The kernel holds the reservation until it ends or is closed."""

    async def read(self) -> Json | None:
        """The next part, or None at the end."""
        ...

    async def close(self) -> None:
        """Stop the work behind it. Safe to call twice."""
        ...

    @property
    def used(self) -> Used:
        """What was used so far; exact once the stream ended."""
        ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a call answers: a value, or a stream that the kernel numbers and reads for the app."""

    value: Json = None
    stream: Stream | None = None
    used: Used = NOTHING_USED


class Operation(Protocol):
    """One decoded and authorised call, ready to run."""

    @property
    def demand(self) -> Demand:
        """The most it may use; empty where it costs nothing."""
        ...

    @property
    def detail(self) -> Mapping[str, Json]:
        """What the audit keeps of it: never contents, never secrets."""
        ...

    async def execute(self, granted: Demand) -> Outcome:
        """Run it, within `granted`, which the ledger may have shrunk below `demand`."""
        ...


NO_DEMAND: Final = Demand()
NO_DETAIL: Final[Mapping[str, Json]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Immediate:
    """A call that costs nothing and waits for nothing: `work` answers it within microseconds, or raises."""

    work: Callable[[], Json]

    @property
    def demand(self) -> Demand:
        """Nothing."""
        return NO_DEMAND

    @property
    def detail(self) -> Mapping[str, Json]:
        """Nothing."""
        return NO_DETAIL

    async def execute(self, granted: Demand) -> Outcome:
        """Run it."""
        return Outcome(value=self.work())


@runtime_checkable
class Metered(Protocol):
    """An operation that knows what it used where `execute` was cancelled or failed. Of others, nothing is charged."""

    @property
    def used(self) -> Used:
        """What was used so far."""
        ...


@runtime_checkable
class Measurable(Protocol):
    """An operation whose demand is a bound that is quick to tell, and that can be measured where it does not fit."""

    @property
    def measure(self) -> Callable[[], Awaitable[Demand]] | None:
        """Tells what it needs exactly, to be executed with, or fails as `execute` would; None where nobody can tell."""
        ...


@runtime_checkable
class Capability(Protocol):
    """A family of host functions. `read` and `close` of streams are the kernel's own."""

    @property
    def name(self) -> str:
        """As in the manifest and the WIT contract."""
        ...

    @property
    def functions(self) -> frozenset[str]:
        """Its functions, by WIT name; `read` and `close` only where they are not those of streams."""
        ...

    @property
    def audited(self) -> bool:
        """Whether each call is worth a line of the audit log."""
        ...

    def prepare(self, invocation: Invocation, function: str, arguments: list[Json]) -> Operation:
        """Decode a call and hold it against the grant, `invocation.app.grants[name]`, which is there.

        Raises:
            Invalid: The arguments are not what the contract says.
            Denied: The grant does not reach so far.
        """
        ...
