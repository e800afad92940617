"""What the kernel holds for an invocation while it runs: its task, its limits, its open streams."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from llmasos.errors import Cancelled, Invalid, LlmasosError, NotFound, Unavailable
from llmasos.i18n import Words
from llmasos.kernel.audit import Line
from llmasos.kernel.capability import Stream
from llmasos.kernel.deadline import Deadline
from llmasos.kernel.invocation import Invocation, Json
from llmasos.kernel.limits import MAX_STREAMS
from llmasos.kernel.observation import UsageRecord
from llmasos.quotas.ledger import Held
from llmasos.quotas.meters import Used
from llmasos.quotas.runs import RunAccount

# A guest may be denied in an endless loop: as many lines of a kind say all there is to say; the rest are counted.
MAX_FAILURE_LINES = 20


@dataclass(slots=True, eq=False)
class Call:
    """One host call that holds a reservation, from reserve to settle."""

    event: str
    held: Held
    audited: bool
    detail: Mapping[str, Json]
    started_monotonic: float = field(default_factory=time.monotonic)


@dataclass(slots=True, eq=False)
class OpenStream:
    """A stream that the app reads by number."""

    number: int
    capability: str
    stream: Stream
    call: Call
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


@dataclass(slots=True, eq=False)
class Run:
    """An invocation that runs in this process."""

    invocation: Invocation
    account: RunAccount
    task: asyncio.Task[object] | None
    held: Held
    streams: dict[int, OpenStream] = field(default_factory=dict[int, OpenStream])
    opened: int = 0
    cancel_requested: bool = False
    failures: Counter[str] = field(default_factory=Counter[str])
    # What the app was told went wrong: the English that it knows, and the Chinese.
    refusals: dict[str, str] = field(default_factory=dict[str, str])
    deadline: Deadline = field(init=False)

    def __post_init__(self) -> None:
        self.deadline = Deadline(self.invocation.deadline_monotonic)

    def note(self, error: LlmasosError) -> None:
        """Remember the Chinese of an error that the app is told in English."""
        if len(self.refusals) < MAX_FAILURE_LINES:
            self.refusals[error.message] = error.message_zh

    def speak(self, error: BaseException) -> None:
        """Give an app's error its Chinese, where the app passes on what it was told."""
        if isinstance(error, LlmasosError):
            for en, zh in self.refusals.items():
                error.message_zh = error.message_zh.replace(en, zh)

    def open(self, capability: str, stream: Stream, call: Call) -> OpenStream:
        """Give a stream its number, counted from 1.

        Raises:
            Invalid: Too many are open.
        """
        if len(self.streams) >= MAX_STREAMS:
            raise Invalid(
                f"{MAX_STREAMS} streams are open; close one, or read it to its end.",
                zh=f"已打开 {MAX_STREAMS} 个流：请关闭一个，或将其读完。",
            )
        self.opened += 1
        opened = OpenStream(self.opened, capability, stream, call)
        self.streams[opened.number] = opened
        return opened

    def stream(self, capability: str, arguments: list[Json]) -> OpenStream | None:
        """The stream of a number; None where it has ended.

        Raises:
            Invalid: It is not a number.
            NotFound: No stream of that capability had it.
        """
        match arguments:
            case [int() as number] if not isinstance(number, bool):
                pass
            case _:
                raise Invalid("A stream is read and closed by its number alone.", zh="流只能按编号读取和关闭。")
        opened = self.streams.get(number)
        if not 1 <= number <= self.opened or (opened is not None and opened.capability != capability):
            raise NotFound(
                "This invocation has no such stream; `open` answers the number.",
                zh="此调用没有这个流；编号由 `open` 返回。",
            )
        return opened

    def worth_a_line(self, event: str, code: str) -> bool:
        """Whether a failure is written down, or only counted."""
        kind = f"{event} {code}"
        self.failures[kind] += 1
        return self.failures[kind] <= MAX_FAILURE_LINES

    @property
    def left_out(self) -> int:
        """How many failures were only counted."""
        return sum(max(0, count - MAX_FAILURE_LINES) for count in self.failures.values())


def add_usage(invocation: Invocation, used: Used) -> None:
    """Add what a call used to an invocation, and to those above it, which pay."""
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


def usage_record(invocation: Invocation, event: str, started: float, used: Used, code: str) -> UsageRecord:
    """What an observer is told of a call that ended; it began at `started` on the monotonic clock."""
    capability, _, function = event.partition(".")
    seconds = time.monotonic() - started
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
    """The stable code of what ended something; what the host did not foresee is `unavailable`."""
    match error:
        case LlmasosError():
            return error.code
        case asyncio.CancelledError():
            return Cancelled.code
        case _:
            return Unavailable.code


def message_of(error: BaseException) -> Words:
    """What the person reads; nothing of the host's insides."""
    told = error if isinstance(error, LlmasosError) else Unavailable()
    return told.message, told.message_zh
