"""What the kernel tracks of a running invocation: its limits, its deadline, its open streams, its failures."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from copy import copy
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar, cast

from llmasos.errors import AppFailed, Cancelled, Invalid, LlmasosError, ResourceLimit, TimedOut, Unavailable
from llmasos.i18n import _, recognise
from llmasos.kernel.audit import Line
from llmasos.kernel.capability import StreamSource
from llmasos.kernel.deadline import Deadline, Expired
from llmasos.kernel.invocation import Invocation, Json
from llmasos.kernel.limits import MAX_STREAMS
from llmasos.kernel.observation import UsageRecord
from llmasos.quotas.ledger import Reservation
from llmasos.quotas.meters import Used
from llmasos.quotas.run_limits import RunAccount
from llmasos_runner.protocol import FUEL_PER_CPU_SECOND

PartT = TypeVar("PartT")
T = TypeVar("T")

# An app may be denied in an endless loop: this many lines of one kind are logged; the rest are only counted.
MAX_FAILURE_LINES = 20
# An error may be long if it quotes what the app sent; a longer one is not recognised if the app passes it on.
MAX_TOLD = 4000


# The least that a call costs the host, whatever it does: decoding, authorising, replying. Measured: 60 to 130 µs of
# one core. An app pays for it as for its own compute.
CALL_FUEL = FUEL_PER_CPU_SECOND // 10_000
# An app that streams makes a hundred calls a second, one that fills its storage a few hundred. At this rate the host
# gives an invocation a tenth of a core; an app that calls faster waits.
CALLS_PER_SECOND = 1000.0
# A burst of this many calls passes before the first one waits.
CALLS_AT_ONCE = 2000.0


@dataclass(slots=True, eq=False)
class ReservedCall:
    """One call from its reservation until it is settled."""

    event: str
    reservation: Reservation
    audited: bool
    detail: Mapping[str, Json]
    started_monotonic: float = field(default_factory=time.monotonic)


@dataclass(slots=True, eq=False)
class OpenStream(Generic[PartT]):
    """A result that its caller reads in parts, under the reservation of the call that opened it.

    Iterate over it, or `read` it, and `close` it; the end of the invocation closes it too.
    """

    number: int
    """Counted from 1 in its invocation."""
    call: ReservedCall
    source: StreamSource[PartT]
    _read: Callable[[OpenStream[Any]], Awaitable[Any]]
    _close: Callable[[OpenStream[Any]], Awaitable[None]]
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def capability(self) -> str:
        """The capability that opened it."""
        return self.call.event.partition(".")[0]

    @property
    def function(self) -> str:
        """The function that opened it, by its WIT name."""
        return self.call.event.partition(".")[2]

    async def read(self) -> PartT | None:
        """The next part; None at the end, and after it.

        Raises:
            LlmasosError: The stream broke off; what was used is settled.
        """
        return cast("PartT | None", await self._read(self))

    async def close(self) -> None:
        """Stop the work behind it and settle what it used. Safe to call again."""
        await self._close(self)

    async def __aiter__(self) -> AsyncIterator[PartT]:
        """Each part, to the end."""
        while (part := await self.read()) is not None:
            yield part


@dataclass(slots=True, eq=False)
class InvocationCalls:
    """The host calls of one running invocation."""

    invocation: Invocation
    account: RunAccount
    streams: dict[int, OpenStream[Any]] = field(default_factory=dict[int, OpenStream[Any]])
    opened: int = 0
    failures: Counter[str] = field(default_factory=Counter[str])
    told: dict[str, LlmasosError] = field(default_factory=dict[str, LlmasosError])
    """The errors that the app got from the host, by message."""
    deadline: Deadline = field(init=False)
    # How many calls may come now without waiting; below zero, how many are ahead of their time.
    _spare: float = CALLS_AT_ONCE
    _paced_monotonic: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.deadline = Deadline(self.invocation.deadline_monotonic)

    async def pace(self) -> None:
        """Count one call against the invocation's compute, and delay it if calls come too fast.

        Raises:
            ResourceLimit: The calls alone used up the invocation's compute.
            TimedOut: The deadline came first.
        """
        invocation = self.invocation
        invocation.host_fuel += CALL_FUEL
        if invocation.host_fuel > invocation.limits.fuel:
            raise ResourceLimit(_("The app made more host calls than its compute allows."))
        now = time.monotonic()
        self._spare = min(CALLS_AT_ONCE, self._spare + (now - self._paced_monotonic) * CALLS_PER_SECOND) - 1
        self._paced_monotonic = now
        if self._spare < 0:
            await self.until_deadline(asyncio.sleep(-self._spare / CALLS_PER_SECOND))

    async def until_deadline(self, work: Awaitable[T]) -> T:
        """Wait for `work` until the invocation's deadline.

        Raises:
            TimedOut: The deadline came first; the work was cancelled.
        """
        try:
            return await self.deadline.bound(work)
        except Expired:
            seconds = self.invocation.limits.wall_seconds
            raise TimedOut(_("The run reached its limit of {seconds} seconds.", seconds=f"{seconds:g}")) from None

    def check_room_for_stream(self) -> None:
        """Check that one more stream may be opened.

        Raises:
            Invalid: The limit of open streams is reached.
        """
        if len(self.streams) >= MAX_STREAMS:
            raise Invalid(
                _("{max_streams} streams are open; close one, or read it to its end.", max_streams=MAX_STREAMS),
            )

    def note(self, error: LlmasosError) -> None:
        """Remember an error that the app received, in case the app passes it on."""
        if len(self.told) < MAX_FAILURE_LINES and len(text := str(error)) <= MAX_TOLD:
            self.told[text] = error

    def origin_of(self, error: BaseException) -> BaseException:
        """Return the host's own error if the app passed one on; otherwise the app's error."""
        if not isinstance(error, AppFailed):
            return error
        for message, told in self.told.items():
            if message in error.message:
                passed_on = copy(told)
                passed_on.message = recognise(error.message, {message: told.message})
                return passed_on
        return error

    def is_worth_a_line(self, event: str, code: str) -> bool:
        """Whether the audit log keeps a failure, or only its count."""
        kind = f"{event} {code}"
        self.failures[kind] += 1
        return self.failures[kind] <= MAX_FAILURE_LINES

    @property
    def failures_left_out(self) -> int:
        """How many failures were only counted."""
        return sum(max(0, count - MAX_FAILURE_LINES) for count in self.failures.values())


def add_usage(invocation: Invocation, used: Used) -> None:
    """Add what a call used to an invocation, and to its callers, which pay."""
    at: Invocation | None = invocation
    while at is not None:
        usage = at.usage
        usage.prompt_tokens += used.prompt_tokens
        usage.completion_tokens += used.completion_tokens
        usage.model = used.model or usage.model
        if used.cost_micro_usd is None:
            usage.cost_micro_usd = None
        elif usage.cost_micro_usd is not None:
            usage.cost_micro_usd += used.cost_micro_usd
        at = at.parent


def usage_record(invocation: Invocation, call: ReservedCall, used: Used, code: str) -> UsageRecord:
    """What an observer receives about a call that ended."""
    capability, _, function = call.event.partition(".")
    seconds = time.monotonic() - call.started_monotonic
    app = invocation.app.id if invocation.app else None
    principal = invocation.principal
    return UsageRecord(
        principal.workspace, principal.user, app, invocation.id, capability, function, used, seconds, code
    )


def audit_line(invocation: Invocation, event: str, outcome: str, detail: Mapping[str, Json]) -> Line:
    """A line of the audit log about an invocation."""
    principal, app = invocation.principal, invocation.app
    return Line(principal.workspace, principal.user, event, outcome, app.id if app else None, invocation.id, detail)


def code_of(error: BaseException) -> str:
    """Return the stable code of an error; an unforeseen one is `unavailable`."""
    match error:
        case LlmasosError():
            return error.code
        case asyncio.CancelledError() | GeneratorExit():
            return Cancelled.code
        case _:
            return Unavailable.code
