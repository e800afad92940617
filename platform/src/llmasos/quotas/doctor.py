"""Checks that the ledger adds up: each window equals the sum of its reservations, and no dead process holds any."""

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
    """One inconsistency, with its cure."""

    kind: FaultKind
    message: Message


@dataclass(frozen=True, slots=True)
class Holding:
    """The amount that one process has reserved in one window."""

    window_id: int
    lease_id: str
    amount: int


def faults(reserved: Mapping[int, int], holdings: Iterable[Holding], alive: frozenset[str]) -> list[LedgerFault]:
    """Find the inconsistencies. Pure.

    Args:
        reserved: The reserved amount that each window's row states, by window id; from the same snapshot as the rest.
        holdings: The sums of the reservations.
        alive: The leases of living processes.
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
    """Find the inconsistencies in a database. The session reads one snapshot."""
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
