"""What the rest of the package needs to know of a kind of database. `sqlite` and `postgresql` implement it."""

from __future__ import annotations

from datetime import date, datetime
from typing import Protocol, TypeAlias

from sqlalchemy import Connection, Engine
from sqlmodel import Session

SqlValue: TypeAlias = str | int | float | bool | datetime | date | bytes | None


class Gate(Protocol):
    """A context manager that admits one writer at a time, in the order in which they came."""

    def __enter__(self) -> None: ...

    def __exit__(self, *_exc: object) -> None: ...

    def close(self) -> None:
        """Free what it stands on."""
        ...


class Dialect(Protocol):
    """How one kind of database begins transactions, locks, and stores values."""

    @property
    def for_update(self) -> str:
        """What a SELECT ends with to lock its rows, with a space before it; empty if writers never overlap."""
        ...

    @property
    def for_key_share(self) -> str:
        """What a SELECT ends with so that its rows cannot be deleted before the commit, as `for_update`."""
        ...

    @property
    def upkeep_writes(self) -> int | None:
        """After how many writes of the queue `upkeep` is due; None for never."""
        ...

    def marked(self, sql: str) -> str:
        """SQL with the driver's marks instead of `?`."""
        ...

    def instant(self, at: datetime) -> SqlValue:
        """A time in UTC as its column stores it."""
        ...

    def day(self, day: date) -> SqlValue:
        """A day as its column stores it."""
        ...

    def set_up(self, engine: Engine) -> None:
        """Prepare each connection of an engine."""
        ...

    def gate(self, engine: Engine) -> Gate:
        """Keeps writers apart if the database itself does not do that fairly."""
        ...

    def begin_reading(self, session: Session) -> None:
        """Open a transaction that reads from one snapshot."""
        ...

    def begin_writing(self, session: Session) -> None:
        """Open a transaction that reads rows, decides, and writes: no other such transaction runs meanwhile."""
        ...

    def connect_queue(self, engine: Engine) -> Connection:
        """The connection of the write queue. It commits by itself outside of `BEGIN` … `COMMIT`."""
        ...

    def begin_batch(self, connection: Connection) -> str | None:
        """Open a transaction of the write queue; wait while another program holds the database.

        Returns:
            What `was_committed` knows it by; None if a commit that fails is none.

        Raises:
            Unavailable: The other program kept it for too long.
        """
        ...

    def was_committed(self, engine: Engine, transaction_id: str) -> bool:
        """Whether a transaction was committed whose connection broke before the answer came."""
        ...

    def upkeep(self, connection: Connection, gate: Gate) -> None:
        """Do what the database needs after `upkeep_writes` writes, outside of any transaction."""
        ...

    def now(self) -> str:
        """A query for the database's clock, in whole seconds since the epoch."""
        ...
