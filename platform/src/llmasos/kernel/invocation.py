"""Who runs what, for whom, with which grants, until when."""

from __future__ import annotations

import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

from llmasos.bundles.manifest import Permission
from llmasos.quotas.meters import Subject

Json: TypeAlias = Any

LOG_CUT = "\n… the rest was left out: the log is full\n"


@dataclass(frozen=True, slots=True)
class Principal:
    """Who calls, as the transport knows it: a token, the local user, or the connection of a runner."""

    workspace: str = "default"
    user: str = "local"
    locale: str = "en"


@dataclass(frozen=True, slots=True)
class InstalledApp:
    """What the kernel needs to know of the app that calls."""

    id: str
    version: str
    installation_id: str
    grants: Mapping[str, Permission]
    """By capability. What is not here was not granted."""
    declared: frozenset[str]
    """The capabilities in the manifest, so that a denial can say which of two things is missing."""
    config: Mapping[str, Json] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class InvocationLimits:
    """What one invocation may use."""

    memory_bytes: int = 64 << 20
    fuel: int = 20_000_000_000
    wall_seconds: float = 120.0
    tokens: int | None = None
    log_bytes: int = 64 << 10
    output_bytes: int = 1 << 20


@dataclass(frozen=True, slots=True)
class Event:
    """Something that an invocation sends its caller while it runs."""

    kind: Literal["chunk", "progress", "notice"]
    text: str = ""
    fraction: float = 0.0


EventSink: TypeAlias = Callable[[Event], Awaitable[None]]


async def discard(_event: Event) -> None:
    """The sink of a caller that ignores events."""


@dataclass(slots=True)
class InvocationUsage:
    """What was used until now. `cost_micro_usd` is None once a call had no known price."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_micro_usd: int | None = 0
    fuel: int = 0
    memory_bytes: int = 0
    duration_ms: int = 0
    model: str | None = None

    @property
    def tokens(self) -> int:
        """Prompt and completion tokens."""
        return self.prompt_tokens + self.completion_tokens

    @property
    def amounts(self) -> tuple[int, int, int | None, int, int]:
        """The counted amounts, in the order of an invocation's columns."""
        return self.prompt_tokens, self.completion_tokens, self.cost_micro_usd, self.fuel, self.memory_bytes


def new_id() -> str:
    """An id that no invocation has."""
    return uuid.uuid4().hex


@dataclass(slots=True, eq=False)
class Invocation:
    """One run of one action, from its start until all its reservations are settled.

    The kernel alone makes and ends them (`Invocations.open`). `app` is None if a program calls a capability
    itself, by `/v1` or `import llmasos`: then the user's own rights apply, and quotas as well.
    """

    principal: Principal
    app: InstalledApp | None
    action: str
    limits: InvocationLimits = field(default_factory=InvocationLimits)
    parent: Invocation | None = None
    emit: EventSink = discard
    id: str = field(default_factory=new_id)
    started_monotonic: float = field(default_factory=time.monotonic)
    usage: InvocationUsage = field(default_factory=InvocationUsage)
    log: str = ""
    """What the app and its runner logged, capped by `limits.log_bytes`."""
    host_fuel: int = 0
    """Compute that its calls took of the host so far."""
    output_bytes: int = 0
    """What was shown to the caller so far, in UTF-8."""
    input_json: str | None = None
    output_json: str | None = None
    """What it was given and what it returned, which its end keeps as its workspace wants."""

    def add_log(self, text: str) -> None:
        """Append `text` as far as there is room; a mark in the log says if anything was left out."""
        room = self.limits.log_bytes - len(self.log.encode())
        if room <= 0 or not text:
            return
        kept = text.encode(errors="replace")
        self.log += text if len(kept) <= room else kept[:room].decode(errors="ignore") + LOG_CUT

    def measured(self, fuel: int, memory_bytes: int, log: str = "") -> None:
        """What the runner measured of this run."""
        self.usage.fuel += fuel
        self.usage.memory_bytes = max(self.usage.memory_bytes, memory_bytes)
        self.add_log(log)

    @property
    def deadline_monotonic(self) -> float:
        """The deadline on the monotonic clock, in seconds."""
        return self.started_monotonic + self.limits.wall_seconds

    @property
    def depth(self) -> int:
        """How many invocations are in the chain of callers."""
        return 0 if self.parent is None else self.parent.depth + 1

    def subject(self, model: str | None = None) -> Subject:
        """Whom its use is charged to."""
        root = self
        while root.parent is not None:
            root = root.parent
        return Subject(
            workspace=self.principal.workspace,
            user=self.principal.user,
            app=root.app.id if root.app else None,
            model=model,
            invocation=root.id,
        )
