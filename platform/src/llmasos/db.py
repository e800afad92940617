"""The one database: reads, writes, and the writer that groups small hot writes into one commit."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Engine, event
from sqlalchemy.pool import ConnectionPoolEntry
from sqlmodel import Session, create_engine


class ReadSession(Session):
    """A session that only reads."""


class WriteSession(Session):
    """A session that writes; its owner, the boundary, commits."""


class Database:
    """An engine, and sessions of two kinds."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.engine: Engine = create_engine(url)
        if self.engine.dialect.name == "sqlite":
            event.listen(self.engine, "connect", _set_up_sqlite)

    @contextmanager
    def read(self) -> Generator[ReadSession]:
        """A session for reading."""
        with ReadSession(self.engine) as session:
            yield session

    @contextmanager
    def write(self) -> Generator[WriteSession]:
        """A transaction: committed at the end, rolled back on an error."""
        with WriteSession(self.engine) as session, session.begin():
            if self.engine.dialect.name == "sqlite":
                session.connection().exec_driver_sql("BEGIN IMMEDIATE")
            yield session

    def close(self) -> None:
        """Return every connection."""
        self.engine.dispose()


def _set_up_sqlite(connection: Any, _record: ConnectionPoolEntry) -> None:
    # The driver must not begin transactions itself: `BEGIN IMMEDIATE` takes the write lock at the start, so that
    # two writers wait for each other instead of failing in the middle.
    connection.isolation_level = None
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "busy_timeout=30000", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")
