"""The one database: sessions that read, sessions that write, and the queue of small hot writes."""

from __future__ import annotations

import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from sqlalchemy import Engine
from sqlmodel import Session, create_engine
from typing_extensions import override

from llmasos.database.dialect import SqlValue
from llmasos.database.transaction import Row, Transaction, dialect_named
from llmasos.database.write_queue import WriteQueue


class ReadSession(Session):
    """A session that only reads, from one snapshot."""

    @override
    def flush(self, objects: Sequence[Any] | None = None) -> None:
        """Raise if anything was added or changed, since it would be lost.

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
        self._dialect = dialect_named(self.engine.dialect.name)
        self._dialect.set_up(self.engine)
        self.gate = self._dialect.gate(self.engine)
        self._lookups: Transaction | None = None
        self._lookup_lock = threading.Lock()

    def lookup(self, sql: str, *values: SqlValue) -> Row | None:
        """Return the first row of one statement, from what is committed now.

        It keeps its own connection, since a checkout from the pool costs three times the statement.

        Args:
            sql: As in `Transaction`.
            values: Its parameters.
        """
        with self._lookup_lock:
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
        """Open a session for reading from one snapshot."""
        with ReadSession(self.engine) as session:
            self._dialect.begin_reading(session)
            yield session

    @contextmanager
    def write(self) -> Generator[WriteSession]:
        """Open a transaction that overlaps no other session's: committed at the end, rolled back on an error."""
        with self.gate, WriteSession(self.engine) as session, session.begin():
            self._dialect.begin_writing(session)
            yield session

    @cached_property
    def write_queue(self) -> WriteQueue:
        """The process's one queue of small writes, started when it is first asked for."""
        return WriteQueue(self.engine, self._dialect, self.gate)

    def close(self) -> None:
        """Commit what is queued, and return every connection."""
        if "write_queue" in self.__dict__:
            self.write_queue.close()
        with self._lookup_lock:
            self._end_lookups()
        self.engine.dispose()
        self.gate.close()

    def __enter__(self) -> Database:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()


def utc_now() -> datetime:
    """The time, in UTC."""
    return datetime.now(UTC)
