"""The words of quotas: what is counted, over what, for whom."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType


class Meter(StrEnum):
    """What a quota counts."""

    TOKENS = "tokens"
    COST = "cost_micro_usd"
    INVOCATIONS = "invocations"
    COMPUTE = "fuel"
    REQUESTS = "http_requests"


class Window(StrEnum):
    """Over what a quota counts; calendar windows are in UTC."""

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
    """Who a demand is charged to: every quota of each of these that is set applies."""

    workspace: str
    user: str
    app: str | None = None
    model: str | None = None
    invocation: str | None = None


@dataclass(frozen=True, slots=True)
class Shrink:
    """How far a demand for tokens may be cut to fit: `tokens` of it are the answer's, at least `floor` of them."""

    tokens: int
    floor: int


@dataclass(frozen=True, slots=True)
class Demand:
    """The most that one call may use. A `cost` of None is an unknown price, which a cost quota refuses."""

    amounts: Mapping[Meter, int] = field(default_factory=lambda: MappingProxyType({}))
    unknown_price: bool = False
    shrink: Shrink | None = None
    model: str | None = None

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to reserve."""
        return not self.amounts
