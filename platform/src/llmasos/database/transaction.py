"""An open transaction on the driver's own connection, for statements too hot for the ORM."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from datetime import date, datetime
from typing import Any, Protocol, TypeAlias, TypeVar, cast

from sqlalchemy import Connection
from sqlmodel import Session

from llmasos.database.dialect import Dialect, SqlValue
from llmasos.database.postgresql import PostgreSql
from llmasos.database.sqlite import Sqlite
from llmasos.errors import Invalid
from llmasos.i18n import _

Row: TypeAlias = tuple[Any, ...]

B = TypeVar("B", bound="Buffer")


class Buffer(Protocol):
    """Gathers the changes of many writes of one transaction, to read and write each row once."""

    def write(self, transaction: Transaction) -> None:
        """Write all changes."""
        ...

    def discard(self) -> None:
        """Undo the changes made outside the database: the transaction was rolled back."""
        ...


class TransactionEnded(Exception):
    """The database rolled back the whole transaction, as SQLite does when the disk is full."""


class Transaction:
    """Runs the SQL that SQLite and PostgreSQL share, with `?` for parameters."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.dialect = dialect_named(connection.dialect.name)
        self.for_update = self.dialect.for_update
        self._marked = self.dialect.marked
        self._cursor = cast("Any", connection.connection.driver_connection).cursor()
        self._buffers: dict[type[Any], Buffer] = {}
        self._written: list[Buffer] = []

    @classmethod
    def of(cls, session: Session) -> Transaction:
        """Return a session's open transaction, after flushing the session's pending changes."""
        session.flush()
        return cls(session.connection())

    def run(self, sql: str, *values: SqlValue) -> int:
        """Execute a statement, and return how many rows it touched."""
        self._cursor.execute(self._marked(sql), values)
        return cast("int", self._cursor.rowcount)

    def run_many(self, sql: str, rows: Iterable[Sequence[SqlValue]]) -> None:
        """Execute a statement once for each row of parameters."""
        self._cursor.executemany(self._marked(sql), rows)

    def all(self, sql: str, *values: SqlValue) -> list[Row]:
        """Execute a statement, and return every row."""
        self._cursor.execute(self._marked(sql), values)
        return cast("list[Row]", self._cursor.fetchall())

    def one(self, sql: str, *values: SqlValue) -> Row | None:
        """Execute a statement, and return its first row."""
        rows = self.all(sql, *values)
        return rows[0] if rows else None

    def instant(self, at: datetime) -> SqlValue:
        """A time, in UTC, as its column stores it."""
        return self.dialect.instant(at)

    def day(self, day: date) -> SqlValue:
        """A day as its column stores it."""
        return self.dialect.day(day)

    def now(self) -> int:
        """The database's clock, in seconds since the epoch."""
        return int(self.all(self.dialect.now())[0][0])

    def buffer(self, kind: type[B]) -> B:
        """Return the buffer of a type, created empty. It is written before the transaction ends."""
        found = self._buffers.get(kind)
        if found is None:
            found = self._buffers[kind] = kind()
        return cast("B", found)

    def flush(self) -> None:
        """Write and discard the buffers."""
        while self._buffers:
            buffers = list(self._buffers.values())
            self._buffers.clear()
            self._written += buffers
            for buffer in buffers:
                buffer.write(self)

    def discard(self) -> None:
        """Undo what buffers changed outside the database, after a rollback."""
        gathered = [*self._written, *self._buffers.values()]
        self._written, self._buffers = [], {}
        for buffer in reversed(gathered):
            buffer.discard()

    @contextmanager
    def savepoint(self) -> Generator[None]:
        """Roll back what the block did, and nothing else, if it raises.

        Raises:
            TransactionEnded: Its cause is an error that ended the whole transaction.
        """
        self.flush()
        before, self._written = self._written, []
        self.run("SAVEPOINT part")
        try:
            yield
            self.flush()
        except BaseException as error:
            self.discard()
            self._written = before
            try:
                self.run("ROLLBACK TO SAVEPOINT part")
                self.run("RELEASE SAVEPOINT part")
            except Exception:
                raise TransactionEnded from error
            raise
        self._written = [*before, *self._written]
        self.run("RELEASE SAVEPOINT part")


_DIALECTS: dict[str, Dialect] = {"sqlite": Sqlite(), "postgresql": PostgreSql()}


def dialect_named(name: str) -> Dialect:
    """Return a dialect by SQLAlchemy's name for it.

    Raises:
        Invalid: It is neither SQLite nor PostgreSQL.
    """
    found = _DIALECTS.get(name)
    if found is None:
        raise Invalid(
            _(
                "LLMasOS stores its data in SQLite or PostgreSQL, not in {name}: correct LLMASOS_DATABASE_URL.",
                name=name,
            ),
        )
    return found
