"""That a process is alive, as the other processes on the same database can know it.

What a process holds (reservations, running invocations) carries the id of its lease. The process extends the lease
while it lives; one that was not extended, or whose process is seen to be dead on this machine, is swept: whoever
keeps things under leases frees them in the same transaction. Nothing held by the dead stays held.
"""

from __future__ import annotations

import logging
import os
import time
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

# Long enough for a machine that swaps or a process that is stopped in a debugger for a moment; the dead of this
# machine are known at once, by their process id.
LEASE_SECONDS = 30
EXTEND_SECONDS = 10

Release: TypeAlias = Callable[[Transaction, str], int]
"""Frees what a dead lease held, in the transaction that ends it; answers how much it was."""


class HostLease(SQLModel, table=True):
    """One living host process. `expires_at` is in seconds since the epoch."""

    __tablename__ = "host_lease"  # pyright: ignore[reportAssignmentType]

    id: str = Field(primary_key=True)
    machine: str
    """Machine, boot and process namespace, so that `pid` is only looked up where it means something; or empty."""
    pid: int = Field(sa_type=Int64)
    born: str
    """When the process started, as its system counts: process ids are used again."""
    expires_at: int = Field(sa_type=Int64, index=True)


class Lease:
    """This process's lease on a database. Starts itself before the first thing is held under it."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        self.id = uuid.uuid4().hex
        self._database = database
        self._clock = clock
        self._releases: list[Release] = []
        self._end: Callable[[], None] | None = None

    def on_release(self, release: Release) -> None:
        """Have `release` called for every lease that is swept."""
        self._releases.append(release)

    def start(self) -> None:
        """Take the lease, free what the dead hold, and do both from time to time. Safe to call again."""
        if self._end is None:
            queue = self._database.write_queue
            self._end = queue.every(EXTEND_SECONDS, self._extend_and_sweep)
            queue.submit(self._extend_and_sweep, WriteKind.HOUSEKEEPING)

    def stop(self) -> None:
        """Give the lease back; what is still held under it is freed."""
        if self._end is not None:
            self._end()
            self._end = None
            free = self._database.write_queue.submit(lambda it: self._free(it, self.id), WriteKind.HOUSEKEEPING)
            free.result()

    def sweep(self, transaction: Transaction) -> int:
        """Free what dead processes hold; how many leases ended."""
        now = int(self._clock())
        dead = [
            lease
            for lease, machine, pid, born, expires_at in transaction.all(
                "SELECT id, machine, pid, born, expires_at FROM host_lease WHERE id <> ?", self.id
            )
            if is_dead(machine, pid, born, expires_at, now)
        ]
        for lease in dead:
            self._free(transaction, lease)
        return len(dead)

    def _extend_and_sweep(self, transaction: Transaction) -> None:
        transaction.run(
            "INSERT INTO host_lease (id, machine, pid, born, expires_at) VALUES (?, ?, ?, ?, ?)"
            " ON CONFLICT (id) DO UPDATE SET expires_at = excluded.expires_at",
            *(self.id, machine_id(), os.getpid(), process_born(os.getpid()), int(self._clock()) + LEASE_SECONDS),
        )
        self.sweep(transaction)

    def _free(self, transaction: Transaction, lease: str) -> None:
        freed = sum(release(transaction, lease) for release in self._releases)
        transaction.run("DELETE FROM host_lease WHERE id = ?", lease)
        if freed and lease != self.id:
            logger.warning("a host process died; %d things that it held were freed (lease %s)", freed, lease)


def living(session: Session, now: int) -> frozenset[str]:
    """The leases of processes that live, at `now` in seconds since the epoch."""
    leases = session.exec(select(HostLease))
    return frozenset(it.id for it in leases if not is_dead(it.machine, it.pid, it.born, it.expires_at, now))


def is_dead(machine: str, pid: int, born: str, expires_at: int, now: int) -> bool:
    """Whether the holder of a lease is no more: it did not extend it, or its process is seen to be gone."""
    return expires_at < now or bool(machine and machine == machine_id() and not is_alive(pid, born))


def machine_id() -> str:
    """Names this boot of this machine and the namespace of its process ids; empty where that cannot be known."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}/{Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def process_born(pid: int) -> str:
    """When a process started, in ticks since boot; empty where there is none, or it is a corpse."""
    try:
        # The name, in parentheses, may hold anything: the fields are counted after its end.
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
        # Another user's, and /proc hides it: let time decide.
        return True
    return False
