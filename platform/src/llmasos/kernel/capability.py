"""What a capability is to the kernel: typed operations, checked against a grant, bounded, and run.

A caller in this process hands the kernel an operation, a value such as `storage.Get("key")`, and gets its typed answer.
An app calls by name, with text arguments: `guest_calls` decodes these into the same operation by the capability's
`contract`, and encodes the answer. Reserving, settling and auditing are the kernel's.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any, ClassVar, Final, Generic, Protocol, TypeVar, runtime_checkable

import msgspec

from llmasos.errors import Invalid
from llmasos.i18n import _
from llmasos.kernel.invocation import Invocation, Json
from llmasos.quotas.meters import NOTHING_USED, Demand, Used

AnswerT = TypeVar("AnswerT")
PartT_co = TypeVar("PartT_co", covariant=True)


class Operation(Generic[AnswerT]):
    """One thing that a capability does, with its arguments. The subclasses are frozen dataclasses."""

    __slots__ = ()

    capability: ClassVar[str]
    """The capability that does it, as in the manifest and the WIT contract."""
    function: ClassVar[str]
    """Its function in the WIT contract."""


class StreamSource(Protocol[PartT_co]):
    """A result that comes in parts. The kernel keeps the reservation until the stream ends or is closed."""

    async def read(self) -> PartT_co | None:
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
class OperationResult(Generic[AnswerT]):
    """What a call returned, and what it used. A `stream` reports its own use at its end."""

    answer: AnswerT | None = None
    used: Used = NOTHING_USED
    stream: StreamSource[Any] | None = None


NO_DEMAND: Final = Demand()


def nothing_used(_granted: Demand) -> Used:
    """The use of a call that failed before it used anything."""
    return NOTHING_USED


@dataclass(frozen=True, slots=True)
class PreparedCall(Generic[AnswerT]):
    """An operation that the grant allows, ready to run."""

    execute: Callable[[Demand], Awaitable[OperationResult[AnswerT]]]
    """Runs it within what was granted, which the ledger may have shrunk below `demand`."""
    demand: Demand = NO_DEMAND
    """The most that it may use; empty if it costs nothing."""
    detail: Mapping[str, Json] = field(default_factory=lambda: MappingProxyType({}))
    """What the audit log keeps of it: never contents, never secrets."""
    used: Callable[[Demand], Used] = nothing_used
    """What it used of what was granted, if `execute` failed or was cancelled."""
    measure: Callable[[], Awaitable[Demand]] | None = None
    """Tells what it needs exactly, if `demand` is a bound that is quick to tell and does not fit."""


@dataclass(frozen=True, slots=True)
class ContractFunction:
    """How a function of the WIT contract becomes an operation, and the operation's answer a WIT value."""

    decode: Callable[[list[Json]], Operation[Any]]
    """Raises `Invalid` if the arguments are not what the contract says."""
    encode: Callable[[Any], Json] = lambda answer: answer
    """Of a function that opens a stream: encodes each part of it."""

    @classmethod
    def plain(
        cls, operation: type[Operation[Any]], parameters: Any, encode: Callable[[Any], Json] = lambda answer: answer
    ) -> ContractFunction:
        """A function whose parameters are the operation's fields, in order.

        Args:
            operation: The operation that it becomes.
            parameters: The parameters as a tuple type, such as `tuple[str, bool]`.
            encode: Turns the answer into a WIT value.
        """

        def decode(arguments: list[Json]) -> Operation[Any]:
            try:
                return operation(*msgspec.convert(arguments, parameters))
            except msgspec.ValidationError as error:
                name = f"{operation.capability}.{operation.function}"
                raise Invalid(_("These are not the arguments of {name}: {error}", name=name, error=error)) from None

        return cls(decode, encode)


@runtime_checkable
class Capability(Protocol):
    """A family of operations."""

    @property
    def name(self) -> str:
        """As in the manifest and the WIT contract."""
        ...

    @property
    def audited(self) -> bool:
        """Whether each call is worth a line of the audit log."""
        ...

    @property
    def contract(self) -> Mapping[str, ContractFunction]:
        """Its functions for apps, by WIT name; `read` and `close` of streams are left out."""
        ...

    def prepare(self, invocation: Invocation, operation: Operation[Any]) -> PreparedCall[Any]:
        """Check an operation against the grant, `invocation.app.grants[name]`, which exists.

        Raises:
            Invalid: The operation's arguments are not valid.
            Denied: The grant does not allow the operation.
        """
        ...


class DeferredCapability:
    """A capability that is imported and made when it is first used."""

    def __init__(self, name: str, make: Callable[[], Capability]) -> None:
        """Stand for the capability `name` until it is used; `make` makes it, once."""
        self.name = name
        self._make = make

    @cached_property
    def _made(self) -> Capability:
        return self._make()

    @property
    def audited(self) -> bool:
        """See `Capability.audited`."""
        return self._made.audited

    @property
    def contract(self) -> Mapping[str, ContractFunction]:
        """See `Capability.contract`."""
        return self._made.contract

    def prepare(self, invocation: Invocation, operation: Operation[Any]) -> PreparedCall[Any]:
        """See `Capability.prepare`."""
        return self._made.prepare(invocation, operation)
