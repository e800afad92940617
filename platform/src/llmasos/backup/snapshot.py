"""The connections of backups and restores: one transaction each, opened when the block starts."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from typing import Any

from sqlalchemy import Connection, event
from sqlalchemy.exc import DBAPIError

from llmasos.database.server import engine_of
from llmasos.errors import Unavailable
from llmasos.i18n import _


@contextmanager
def snapshot(url: str) -> Generator[Connection]:
    """Open a connection that reads the database as of this instant, whatever others write."""
    with _connection(url, "BEGIN", {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}) as connection:
        yield connection


@contextmanager
def transaction(url: str) -> Generator[Connection]:
    """Open a connection whose writes are committed at the end of the block, or not at all.

    Foreign keys of a SQLite database are not enforced inside it; the caller checks them.
    """
    with _connection(url, "BEGIN IMMEDIATE", {}) as connection:
        yield connection
        connection.commit()


@contextmanager
def _connection(url: str, begin: str, postgresql: dict[str, Any]) -> Generator[Connection]:
    engine = engine_of(url)
    if engine.dialect.name == "sqlite":
        # pysqlite would start a transaction only before the first write.
        event.listen(engine, "connect", _leave_transactions_to_us)
        event.listen(engine, "begin", partial(_begin, begin))
    else:
        engine = engine.execution_options(**postgresql)
    try:
        with engine.connect() as connection:
            yield connection
    except DBAPIError as error:
        raise Unavailable(
            _("The database cannot be read or written: {reason}. Nothing was changed.", reason=error.orig),
        ) from error
    finally:
        engine.dispose()


def _leave_transactions_to_us(connection: Any, _record: object) -> None:
    connection.isolation_level = None


def _begin(statement: str, connection: Connection) -> None:
    connection.exec_driver_sql(statement)
