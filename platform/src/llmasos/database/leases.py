"""Leases: how the processes on one database know which of them are alive.

A process's resources (reservations, running invocations) carry the id of its lease. A lease whose process is
dead is swept: the owners of those resources free them in the same transaction, so that a dead process reserves nothing.

Whether a process of this machine is alive is seen directly, by its id and start time, whatever the clock says: a
laptop may sleep for a day, a process may be paused in a debugger. On another machine only the lease tells,
which a living process extends; it is measured by the database's clock.
"""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from sqlmodel import Field, Session, SQLModel, select

from llmasos.database.columns import Int64
from llmasos.database.engine import Database
from llmasos.database.transaction import Transaction
from llmasos.database.write_queue import WriteKind

logger = logging.getLogger(__name__)

# Long enough for another machine that swaps; a dead process of this machine is detected immediately.
LEASE_SECONDS = 30
EXTEND_SECONDS = 10

Release: TypeAlias = Callable[[Transaction, str], int]
"""Frees what belonged to a lease, in the transaction that ends it; returns how many things."""


class HostLease(SQLModel, table=True):
    """One living host process."""

    __tablename__ = "host_lease"  # pyright: ignore[reportAssignmentType]

    id: str = Field(primary_key=True)
    machine: str
    """Machine, boot and process namespace, so that `pid` is looked up only if it means something here; or empty."""
    pid: int = Field(sa_type=Int64)
    born: str
    """When the process started, as its system counts: process ids are used again."""
    expires_at: int = Field(sa_type=Int64, index=True)
    """In seconds since the epoch, by the database's clock; decides about processes of other machines."""


class Lease:
    """This process's lease on a database. Start it before anything belongs to it."""

    def __init__(self, database: Database) -> None:
        self.id = uuid.uuid4().hex
        self._database = database
        self._releases: list[Release] = []
        self._end: Callable[[], None] | None = None

    def on_release(self, release: Release) -> None:
        """Register `release` to be called for every lease that is swept."""
        self._releases.append(release)

    def start(self) -> None:
        """Acquire the lease, free what dead processes hold, and repeat both periodically. Idempotent."""
        if self._end is None:
            queue = self._database.write_queue
            self._end = queue.every(EXTEND_SECONDS, self._extend_and_sweep)
            queue.submit(self._extend_and_sweep, WriteKind.HOUSEKEEPING)

    def stop(self) -> None:
        """Release the lease and free what still belongs to it."""
        if self._end is not None:
            self._end()
            self._end = None
            free = self._database.write_queue.submit(lambda it: self._free(it, self.id), WriteKind.HOUSEKEEPING)
            free.result()

    def sweep(self, transaction: Transaction) -> int:
        """Free what dead processes hold, and return how many leases ended."""
        now = transaction.now()
        leases = transaction.all(
            "SELECT id, machine, pid, born, expires_at FROM host_lease WHERE id <> ? ORDER BY id", self.id
        )
        dead = [id_ for id_, machine, pid, born, ends in leases if is_dead(machine, pid, born, ends, now)]
        for id_ in dead:
            self._free(transaction, id_)
        return len(dead)

    def _extend_and_sweep(self, transaction: Transaction) -> None:
        transaction.run(
            "INSERT INTO host_lease (id, machine, pid, born, expires_at) VALUES (?, ?, ?, ?, ?)"
            " ON CONFLICT (id) DO UPDATE SET expires_at = excluded.expires_at",
            *(self.id, machine_id(), os.getpid(), process_born(os.getpid()), transaction.now() + LEASE_SECONDS),
        )
        self.sweep(transaction)

    def _free(self, transaction: Transaction, lease: str) -> None:
        freed = sum(release(transaction, lease) for release in self._releases)
        transaction.run("DELETE FROM host_lease WHERE id = ?", lease)
        if freed and lease != self.id:
            logger.warning("a host process died; %d things that belonged to it were freed (lease %s)", freed, lease)


def living(session: Session) -> frozenset[str]:
    """The leases of living processes."""
    now = Transaction.of(session).now()
    leases = session.exec(select(HostLease))
    return frozenset(it.id for it in leases if not is_dead(it.machine, it.pid, it.born, it.expires_at, now))


def is_dead(machine: str, pid: int, born: str, expires_at: int, now: int) -> bool:
    """Whether the holder of a lease is dead. `now` is the database's clock."""
    if machine and machine == machine_id():
        return not is_alive(pid, born)
    return expires_at < now


def machine_id() -> str:
    """Identify this boot of this machine and the namespace of its process ids; empty if unknown."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}/{Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def process_born(pid: int) -> str:
    """When a process started, in ticks since boot; empty if it does not exist or has ended."""
    try:
        # The name, in parentheses, may contain any character: the fields are counted after its end.
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in {"Z", "X"} else fields[19]


def is_alive(pid: int, born: str) -> bool:
    """Whether the process that started at `born` still runs, on this machine."""
    found = process_born(pid)
    if found:
        return found == born
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        # /proc hides another user's process: let the lease's time decide.
        return True
    return False
