"""The vocabulary of quotas: what is counted, over which window, for whom."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType


class Meter(StrEnum):
    """What a quota counts."""

    # An enum's own hash is a Python function; one call looks meters up dozens of times.
    __hash__ = str.__hash__

    TOKENS = "tokens"
    COST = "cost_micro_usd"
    INVOCATIONS = "invocations"
    COMPUTE = "fuel"
    REQUESTS = "http_requests"


class Window(StrEnum):
    """The window over which a quota counts; calendar windows are in UTC."""

    RUN = "run"
    MINUTE = "minute"
    HOUR = "hour"
    DAY = "day"
    MONTH = "month"


class Scope(StrEnum):
    """For whom a quota counts."""

    WORKSPACE = "workspace"
    USER = "user"
    APP = "app"
    MODEL = "model"


@dataclass(frozen=True, slots=True)
class Subject:
    """Whom a demand is charged to; all quotas of each of these apply."""

    workspace: str
    user: str
    app: str | None = None
    model: str | None = None
    invocation: str | None = None


@dataclass(frozen=True, slots=True)
class Shrink:
    """How far a demand may be cut to fit: `tokens` of it are the answer's, at least `floor` of them.

    `micro_usd_per_token` is what one of them costs: with it, a cost quota cuts the answer as well.
    """

    tokens: int
    floor: int
    micro_usd_per_token: float = 0.0
    meter: Meter = Meter.TOKENS
    """What `tokens` counts; another meter than tokens if, for instance, compute is cut."""


@dataclass(frozen=True, slots=True)
class Demand:
    """The most that one call may use. A cost quota refuses an unknown price and never counts it as zero.

    In a granted demand `shrink.tokens` is the number of tokens that may be used.
    """

    amounts: Mapping[Meter, int] = field(default_factory=lambda: MappingProxyType({}))
    unknown_price: bool = False
    shrink: Shrink | None = None
    model: str | None = None

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to reserve."""
        return not self.amounts


@dataclass(frozen=True, slots=True)
class Used:
    """What a call really used. A `cost_micro_usd` of None is an unknown price."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_micro_usd: int | None = 0
    model: str | None = None
    amounts: Mapping[Meter, int] = field(default_factory=lambda: MappingProxyType({}))
    """Other meters, such as http_requests."""

    @property
    def tokens(self) -> int:
        """Prompt and completion together."""
        return self.prompt_tokens + self.completion_tokens

    def __add__(self, other: Used) -> Used:
        """Both together, as used by the other's model if it names one. An unknown price stays unknown."""
        costs = (self.cost_micro_usd, other.cost_micro_usd)
        amounts = {
            meter: self.amounts.get(meter, 0) + other.amounts.get(meter, 0) for meter in (*self.amounts, *other.amounts)
        }
        return Used(
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            None if costs[0] is None or costs[1] is None else costs[0] + costs[1],
            other.model or self.model,
            amounts,
        )


NOTHING_USED = Used()
