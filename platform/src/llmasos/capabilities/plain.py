"""An operation that is a function: for capabilities that cost nothing and hold nothing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from llmasos.kernel.capability import NO_DEMAND, NO_DETAIL, Json, Outcome
from llmasos.quotas.meters import Demand


@dataclass(frozen=True, slots=True)
class PlainOperation:
    """Runs `work` and answers what it answers."""

    work: Callable[[], Awaitable[Json]]

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
        return Outcome(value=await self.work())
