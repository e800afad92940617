"""The one database: sessions that read, sessions that write, and the gate that writers pass one at a time.

Small hot writes go through `Database.writer`, which groups them into one commit (see `llmasos.database.writer`).
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar, cast

from sqlalchemy import Engine, event
from sqlalchemy.pool import ConnectionPoolEntry
from sqlmodel import Session, create_engine
from typing_extensions import override

if sys.platform != "win32":
    import fcntl

if TYPE_CHECKING:
    from llmasos.database.transaction import SqlValue, Transaction
    from llmasos.database.writer import Writer


T = TypeVar("T")


class ReadSession(Session):
    """A session that only reads, from one snapshot."""

    @override
    def flush(self, objects: Sequence[Any] | None = None) -> None:
        """Refuse what was added or changed: it would be lost.

        Raises:
            TypeError: Something was added or changed.
        """
        if self.new or self.dirty or self.deleted:
            raise TypeError("a read session was written to; take `Database.write()`")


class WriteSession(Session):
    """A session that writes; its owner, the boundary, commits."""


class Database:
    """An engine, and sessions of two kinds. Close it, or use it as a context manager."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.engine: Engine = create_engine(url)
        self.is_sqlite = self.engine.dialect.name == "sqlite"
        self.gate = WriteGate(self.engine.url.database if self.is_sqlite else None)
        if self.is_sqlite:
            event.listen(self.engine, "connect", _set_up_sqlite)
        self.sessions_that_wrote = 0
        """How often `write` was called; the writer's commits are not among them. Counted in the gate."""
        self._lookups: Transaction | None = None
        self._lookup = threading.Lock()

    def row(self, sql: str, *values: SqlValue) -> tuple[Any, ...] | None:
        """The first row that one statement answers. It is of one moment by itself.

        Its connection is kept, since taking one from the pool and giving it back costs three times the statement.

        Args:
            sql: As in `Transaction`.
            values: Its parameters.
        """
        from llmasos.database.transaction import Transaction  # noqa: PLC0415 - it stands on this module

        with self._lookup:
            try:
                if self._lookups is None:
                    self._lookups = Transaction(self.engine.connect().execution_options(isolation_level="AUTOCOMMIT"))
                return self._lookups.one(sql, *values)
            except BaseException:
                self._end_lookups()
                raise

    def _end_lookups(self) -> None:
        if self._lookups is not None:
            self._lookups.connection.close()
            self._lookups = None

    @contextmanager
    def read(self) -> Generator[ReadSession]:
        """A session for reading; all it reads is of one moment, with this process's own writes (`Writer.catch_up`)."""
        if (writer := cast("Writer | None", self.__dict__.get("writer"))) is not None:
            writer.catch_up()
        with ReadSession(self.engine) as session:
            if self.is_sqlite:
                session.connection().exec_driver_sql("BEGIN")
            yield session

    @contextmanager
    def write(self) -> Generator[WriteSession]:
        """A transaction: committed at the end, rolled back on an error."""
        with self.gate, WriteSession(self.engine) as session, session.begin():
            self.sessions_that_wrote += 1
            if self.is_sqlite:
                session.connection().exec_driver_sql("BEGIN IMMEDIATE")
            yield session

    @cached_property
    def writer(self) -> Writer:
        """The process's one writer, started when it is first asked for."""
        from llmasos.database.writer import Writer  # noqa: PLC0415 - the writer stands on this module

        return Writer(self)

    def close(self) -> None:
        """Finish what the writer holds, and return every connection."""
        if "writer" in self.__dict__:
            self.writer.close()
        with self._lookup:
            self._end_lookups()
        self.engine.dispose()
        self.gate.close()

    def __enter__(self) -> Database:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()


class WriteGate:
    """Lets one writer through at a time, of all threads and processes, in the order in which they came.

    SQLite would keep them apart as well, but its waiters poll, with sleeps of up to 100 ms, and an unlucky one starves:
    among 16 processes that made stalls of seconds. Waiters of an advisory file lock are woken at once. Correctness
    does not rest on it, only waiting time does.
    """

    def __init__(self, database_path: str | None) -> None:
        self._lock = threading.Lock()
        in_file = database_path and database_path != ":memory:"
        self._path = Path(f"{database_path}-gate") if in_file else None
        self._file: IO[bytes] | None = None

    @property
    def is_of_file(self) -> bool:
        """Whether it stands before a database that is a file of this machine."""
        return self._path is not None

    def __enter__(self) -> None:
        self._lock.acquire()
        # On Windows SQLite's own lock keeps processes apart, without the fair queue.
        if sys.platform != "win32" and self._path is not None:
            # A home without file locks, or that is full: SQLite's lock stands behind this one, with a better message.
            with suppress(OSError):
                if self._file is None:
                    self._file = self._path.open("ab")
                fcntl.flock(self._file, fcntl.LOCK_EX)

    def enter_at_once(self) -> bool:
        """Go in if nobody else is there or waits in this process; leave as from `with`."""
        if not self._lock.acquire(blocking=False):
            return False
        if sys.platform != "win32" and self._path is not None:
            try:
                if self._file is None:
                    self._file = self._path.open("ab")
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._lock.release()
                return False
            except OSError:
                pass
        return True

    def while_empty(self, work: Callable[[], T]) -> T | None:
        """Do `work` with everybody in this process kept out; None, and it is not done, where somebody is in."""
        if not self._lock.acquire(blocking=False):
            return None
        try:
            return work()
        finally:
            self._lock.release()

    def __exit__(self, *_exc: object) -> None:
        self.leave()

    def leave(self) -> None:
        """Let the next one in."""
        try:
            if sys.platform != "win32" and self._file is not None:
                fcntl.flock(self._file, fcntl.LOCK_UN)
        finally:
            self._lock.release()

    def close(self) -> None:
        """Close the lock's file."""
        with self._lock:
            if self._file is not None:
                self._file.close()
                self._file = None


def utc_now() -> datetime:
    """The time, in UTC."""
    return datetime.now(UTC)


def _set_up_sqlite(connection: Any, _record: ConnectionPoolEntry) -> None:
    # The driver must not begin transactions itself: `BEGIN IMMEDIATE` takes the write lock at the start, so that
    # two writers wait for each other instead of failing in the middle.
    connection.isolation_level = None
    for pragma in ("busy_timeout=30000", "journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")
