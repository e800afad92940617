"""Whether the ledger adds up: what the windows hold is what reservations say, and no dead process holds anything."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from sqlmodel import Session, col, func, select

from llmasos.database.leases import living
from llmasos.i18n import Message, _
from llmasos.quotas.tables import LedgerWindow, ReservationRow

FaultKind: TypeAlias = Literal["window", "lease"]


@dataclass(frozen=True, slots=True)
class LedgerFault:
    """One thing that does not add up, with its cure."""

    kind: FaultKind
    message: Message


@dataclass(frozen=True, slots=True)
class Holding:
    """What one process holds in one window."""

    window_id: int
    lease_id: str
    amount: int


def faults(reserved: Mapping[int, int], holdings: Iterable[Holding], alive: frozenset[str]) -> list[LedgerFault]:
    """What does not add up. Pure.

    Args:
        reserved: What each window says is reserved in it, by its id; from the same snapshot as the rest.
        holdings: What reservations say.
        alive: The leases of processes that live.
    """
    sums: dict[int, int] = {}
    dead: dict[str, int] = {}
    for holding in holdings:
        sums[holding.window_id] = sums.get(holding.window_id, 0) + holding.amount
        if holding.lease_id not in alive:
            dead[holding.lease_id] = dead.get(holding.lease_id, 0) + 1
    found = [
        LedgerFault(
            "window",
            _(
                "Window {window} of the ledger holds {reserved:,}, but its reservations hold {sums:,}: a "
                "program other than LLMasOS wrote to the database; restore a backup, or remove the quota and "
                "set it again.",
                window=window,
                reserved=reserved.get(window, 0),
                sums=sums.get(window, 0),
            ),
        )
        for window in sorted(reserved.keys() | sums.keys())
        if reserved.get(window, 0) != sums.get(window, 0)
    ]
    found += [
        LedgerFault(
            "lease",
            _(
                "A process that is no more (lease {lease}) still holds {count} reservations: run llmasos "
                "doctor again in half a minute; every host that starts frees them.",
                lease=lease,
                count=count,
            ),
        )
        for lease, count in sorted(dead.items())
    ]
    return found


def check(session: Session) -> list[LedgerFault]:
    """What does not add up in a database. The session reads one snapshot."""
    reserved = {
        int(window): int(amount)
        for window, amount in session.exec(select(LedgerWindow.id, LedgerWindow.reserved))
        if window is not None
    }
    amounts = select(ReservationRow.window_id, ReservationRow.lease_id, func.sum(ReservationRow.amount))
    holdings = [
        Holding(int(window), lease, int(amount))
        for window, lease, amount in session.exec(
            amounts.group_by(col(ReservationRow.window_id), col(ReservationRow.lease_id))
        )
    ]
    return faults(reserved, holdings, living(session))
