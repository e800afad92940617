"""An operation that is a function: for capabilities that cost nothing and hold nothing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from llmasos.kernel.capability import Json, Outcome
from llmasos.quotas.meters import Demand

_NOTHING = Demand()


@dataclass(frozen=True, slots=True)
class PlainOperation:
    """Runs `work` and answers what it answers."""

    work: Callable[[], Awaitable[Json]]

    @property
    def demand(self) -> Demand:
        """Nothing."""
        return _NOTHING

    @property
    def detail(self) -> Mapping[str, Json]:
        """Nothing."""
        return MappingProxyType({})

    async def execute(self, granted: Demand) -> Outcome:
        """Run it."""
        return Outcome(value=await self.work())
