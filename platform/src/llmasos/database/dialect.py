"""What the rest of the package needs to know of a kind of database. `sqlite` and `postgresql` implement it."""

from __future__ import annotations

from datetime import date, datetime
from typing import Protocol, TypeAlias

from sqlalchemy import Connection, Engine
from sqlmodel import Session

SqlValue: TypeAlias = str | int | float | bool | datetime | date | bytes | None


class Gate(Protocol):
    """A context manager that admits one writer at a time, in order of arrival."""

    def __enter__(self) -> None: ...

    def __exit__(self, *_exc: object) -> None: ...

    def close(self) -> None:
        """Free its resources."""
        ...


class Dialect(Protocol):
    """How one kind of database begins transactions, locks, and stores values."""

    @property
    def for_update(self) -> str:
        """The suffix of a SELECT that locks its rows, with a leading space; empty if writers never overlap."""
        ...

    @property
    def for_key_share(self) -> str:
        """The suffix of a SELECT that prevents the deletion of its rows before the commit; see `for_update`."""
        ...

    @property
    def upkeep_writes(self) -> int | None:
        """The number of queued writes after which `upkeep` is due; None for never."""
        ...

    def marked(self, sql: str) -> str:
        """SQL with the driver's placeholders instead of `?`."""
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
        """Return a gate that separates writers if the database itself does not do so fairly."""
        ...

    def begin_reading(self, session: Session) -> None:
        """Open a transaction that reads from one snapshot."""
        ...

    def begin_writing(self, session: Session) -> None:
        """Open a transaction that reads rows, decides, and writes; no other such transaction runs at the same time."""
        ...

    def connect_queue(self, engine: Engine) -> Connection:
        """The connection of the write queue. It commits by itself outside of `BEGIN` … `COMMIT`."""
        ...

    def begin_batch(self, connection: Connection) -> str | None:
        """Open a transaction of the write queue; wait while another program holds the database.

        Returns:
            The transaction's id for `was_committed`; None if a failed commit never took effect.

        Raises:
            Unavailable: The other program kept the database for too long.
        """
        ...

    def was_committed(self, engine: Engine, transaction_id: str) -> bool:
        """Whether a transaction was committed although its connection broke before the reply."""
        ...

    def upkeep(self, connection: Connection, gate: Gate) -> None:
        """Maintain the database after `upkeep_writes` writes, outside of any transaction."""
        ...

    def now(self) -> str:
        """A query for the database's clock, in whole seconds since the epoch."""
        ...
