"""What one run may use: limits that live as long as an invocation, in the process that executes it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from llmasos.quotas.meters import Meter


@dataclass(slots=True)
class RunLimit:
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

    def hold(self, amount: int) -> RunHold:
        """Reserve an amount of it."""
        self.reserved += amount
        return RunHold(self, amount)


@dataclass(slots=True, eq=False)
class RunHold:
    """One reservation's share of a run's limit."""

    of: RunLimit
    amount: int
    used: int | None = None
    """None until it is settled."""

    def settle(self, used: int) -> None:
        """Replace the reserved amount by the used one. Idempotent."""
        if self.used is None:
            self.of.reserved -= self.amount
            self.of.used += used
            self.used = used

    def unsettle(self) -> None:
        """Undo `settle`."""
        if self.used is not None:
            self.of.reserved += self.amount
            self.of.used -= self.used
            self.used = None

    def release(self) -> None:
        """Release the share: the reservation was rolled back."""
        self.of.reserved -= self.amount
        self.amount = 0


@dataclass(slots=True, eq=False)
class RunAccount:
    """The limits of an invocation, and of those above it. Only the write queue's thread changes them."""

    limits: Mapping[Meter, int]
    parent: RunAccount | None = None
    _own: list[RunLimit] = field(init=False)
    _quotas: dict[int, RunLimit] = field(init=False)

    def __post_init__(self) -> None:
        self._own = [RunLimit(meter, limit) for meter, limit in self.limits.items()]
        self._quotas = {}

    @property
    def root(self) -> RunAccount:
        """The account of the invocation that a person or program started."""
        return self if self.parent is None else self.parent.root

    def quota(self, quota_id: int, meter: Meter, limit: int) -> RunLimit:
        """The limit of a quota per run, which counts from the root."""
        found = self.root._quotas.setdefault(quota_id, RunLimit(meter, limit, quota_id))
        found.limit = limit
        return found

    def own(self) -> Iterator[RunLimit]:
        """The limits of this run and of those above it, without quotas."""
        yield from self._own
        if self.parent is not None:
            yield from self.parent.own()
