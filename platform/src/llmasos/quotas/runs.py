"""What one run may use: limits that live as long as an invocation, in the process that runs it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from llmasos.quotas.meters import Meter


@dataclass(slots=True)
class Pot:
    """One limit of one run. `quota_id` is None for a limit of the installation itself."""

    meter: Meter
    limit: int
    quota_id: int | None = None
    used: int = 0
    reserved: int = 0

    @property
    def room(self) -> int:
        """What is left of it."""
        return max(0, self.limit - self.used - self.reserved)

    def hold(self, amount: int) -> Part:
        """Hold an amount of it."""
        self.reserved += amount
        return Part(self, amount)


@dataclass(slots=True, eq=False)
class Part:
    """What one reservation holds of a pot."""

    pot: Pot
    amount: int
    ended: bool = False

    def end(self, used: int) -> None:
        """Turn what is held into what was used; once, however often its write is tried."""
        if not self.ended:
            self.pot.reserved -= self.amount
            self.pot.used += used
            self.ended = True


@dataclass(slots=True, eq=False)
class RunAccount:
    """The limits of an invocation, and of those above it. Changed in the writer's gate only, once it is in use."""

    limits: Mapping[Meter, int]
    parent: RunAccount | None = None
    _own: list[Pot] = field(init=False)
    _quotas: dict[int, Pot] = field(init=False)

    def __post_init__(self) -> None:
        self._own = [Pot(meter, limit) for meter, limit in self.limits.items()]
        self._quotas = {}

    @property
    def root(self) -> RunAccount:
        """The account of the invocation that a person or program started."""
        return self if self.parent is None else self.parent.root

    def quota(self, quota_id: int, meter: Meter, limit: int) -> Pot:
        """The pot of a quota over a run, which counts from the root."""
        pot = self.root._quotas.setdefault(quota_id, Pot(meter, limit, quota_id))
        pot.limit = limit
        return pot

    def own(self) -> Iterator[Pot]:
        """The pots of this run and of those above it, quotas left out."""
        yield from self._own
        if self.parent is not None:
            yield from self.parent.own()
