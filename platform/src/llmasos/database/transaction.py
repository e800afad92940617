"""An open write transaction on the driver's own connection, for statements too hot for the ORM."""

from __future__ import annotations

import time
from collections.abc import Hashable, Iterable, Sequence
from datetime import date, datetime
from functools import lru_cache
from typing import Any, Protocol, TypeAlias, TypeVar, cast

from sqlalchemy import Connection

from llmasos.database.engine import WriteSession
from llmasos.errors import Unavailable

SqlValue: TypeAlias = str | int | float | bool | datetime | date | bytes | None
Row: TypeAlias = tuple[Any, ...]

B = TypeVar("B", bound="Buffer")

# Quotas of a few thousand subjects: a MiB or two. Past it everything is read again.
MAX_MEMO = 4096
# How long a lock is asked for that another program (a backup, a shell) holds.
BUSY_SECONDS = 30.0


class Buffer(Protocol):
    """Gathers what many writes change in the same rows, to write it once."""

    def write(self, transaction: Transaction) -> None:
        """Write it all."""
        ...


class Transaction:
    """Runs the SQL that SQLite and PostgreSQL share, with `?` for parameters.

    `memo` keeps what was read, for as long as no other connection can have changed it: on SQLite until another one
    commits, on PostgreSQL until the end of the transaction. Who changes what is in it changes it there too. It is
    cleared whenever anything is taken back.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.is_sqlite = connection.dialect.name == "sqlite"
        self.memo: dict[Hashable, Any] = {}
        self._driver = cast("Any", connection.connection.driver_connection)
        self._cursor = self._driver.cursor()
        self._marks = connection.dialect.paramstyle
        self._version = -1
        self._buffers: dict[type[Any], Any] = {}
        self.for_update = "" if self.is_sqlite else " FOR UPDATE"

    @classmethod
    def of(cls, session: WriteSession) -> Transaction:
        """The transaction that a session has open, after what it still held back is written."""
        session.flush()
        return cls(session.connection())

    def run(self, sql: str, *values: SqlValue) -> int:
        """Execute a statement; how many rows it touched."""
        self._cursor.execute(sql if self.is_sqlite else _marked(sql, self._marks), values)
        return cast("int", self._cursor.rowcount)

    def run_many(self, sql: str, rows: Iterable[Sequence[SqlValue]]) -> int:
        """Execute a statement once a row; how many rows they touched together."""
        self._cursor.executemany(sql if self.is_sqlite else _marked(sql, self._marks), rows)
        return cast("int", self._cursor.rowcount)

    def all(self, sql: str, *values: SqlValue) -> list[Row]:
        """Every row that a statement answers."""
        self._cursor.execute(sql if self.is_sqlite else _marked(sql, self._marks), values)
        return cast("list[Row]", self._cursor.fetchall())

    def one(self, sql: str, *values: SqlValue) -> Row | None:
        """The first row that a statement answers."""
        rows = self.all(sql, *values)
        return rows[0] if rows else None

    def moment(self, at: datetime) -> SqlValue:
        """A moment, in UTC, as its column keeps it."""
        return at.replace(tzinfo=None).isoformat(sep=" ", timespec="microseconds") if self.is_sqlite else at

    def day(self, day: date) -> SqlValue:
        """A day as its column keeps it."""
        return day.isoformat() if self.is_sqlite else day

    def buffer(self, kind: type[B]) -> B:
        """The buffer of a kind, empty at first. It is written before the transaction ends."""
        found: B | None = self._buffers.get(kind)
        if found is None:
            found = self._buffers[kind] = kind()
        return found

    def flush(self) -> None:
        """Write what is buffered."""
        buffers, self._buffers = self._buffers, {}
        for buffer in buffers.values():
            buffer.write(self)

    def undo(self) -> None:
        """Take back what this write did so far; it goes on from its start."""
        self.run("ROLLBACK TO SAVEPOINT write_of_batch")
        # It may remember rows that no longer are.
        self.memo.clear()
        self._buffers.clear()

    # The rest is the writer's: its connection keeps one of these, for one transaction after another.

    def begin_in_turn(self) -> None:
        """Open it, and wait for another program that holds the lock.

        Raises:
            Unavailable: It held it for too long.
        """
        give_up = time.monotonic() + BUSY_SECONDS
        while not self.begins():
            if time.monotonic() > give_up:
                raise Unavailable(
                    "The database does not take writes: another program keeps it locked; end that program, or try "
                    "again.",
                    zh="数据库无法写入：另一个程序一直占用它；请结束该程序，或稍后重试。",
                )
            time.sleep(0.005)

    def begins(self) -> bool:
        """Open it; False where another program holds the lock."""
        try:
            self._begin()
        except Exception as error:
            if "locked" not in str(error):
                raise
            return False
        return True

    def _begin(self) -> None:
        if not self.is_sqlite:
            self.memo.clear()
            return
        execute = self._cursor.execute
        execute("BEGIN IMMEDIATE")
        (version,) = execute("PRAGMA data_version").fetchone()
        if version != self._version or len(self.memo) > MAX_MEMO:
            self._version = version
            self.memo.clear()

    def open_savepoint(self) -> None:
        """Where `undo` goes back to."""
        self.flush()
        self._cursor.execute("SAVEPOINT write_of_batch")

    def close_savepoint(self) -> None:
        """Keep what was done since it was opened."""
        self.flush()
        self._cursor.execute("RELEASE SAVEPOINT write_of_batch")

    def commit(self) -> None:
        """Make it last."""
        self.flush()
        if self.is_sqlite:
            self._cursor.execute("COMMIT")
        else:
            self._driver.commit()


@lru_cache(maxsize=512)
def _marked(sql: str, marks: str) -> str:
    return sql if marks == "qmark" else sql.replace("%", "%%").replace("?", "%s")
