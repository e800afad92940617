"""Everything specific to PostgreSQL: row locks, times with a zone, many processes that write at once."""

from __future__ import annotations

import time
from datetime import date, datetime
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection, Engine, text
from sqlmodel import Session

from llmasos.database.dialect import Gate

# Write sessions decide on what they read, as on SQLite, which has one writer at a time. They are rare (installing,
# setting a quota), so one lock separates them; the queue's hot writes lock rows instead. The number is random.
_WRITE_SESSIONS = 5_140_823_117
# How long a server may take to notice that a transaction's connection broke.
DOUBT_SECONDS = 10.0


class PostgreSql:
    """PostgreSQL 13 or newer, through psycopg."""

    for_update = " FOR UPDATE"
    for_key_share = " FOR KEY SHARE"
    upkeep_writes = None

    def marked(self, sql: str) -> str:
        """Return SQL with `%s` as its placeholders."""
        return _marked(sql)

    def instant(self, at: datetime) -> datetime:
        """Keep the time's zone."""
        return at

    def day(self, day: date) -> date:
        """Return the date itself."""
        return day

    def set_up(self, engine: Engine) -> None:
        """Do nothing: connections need no preparation."""

    def gate(self, engine: Engine) -> Gate:
        """Return a gate that admits everybody, since the database allows many writers."""
        return NullGate()

    def begin_reading(self, session: Session) -> None:
        """Open a transaction whose statements all read from one snapshot."""
        session.connection(execution_options={"isolation_level": "REPEATABLE READ", "postgresql_readonly": True})

    def begin_writing(self, session: Session) -> None:
        """Open a transaction once no other session writes."""
        session.connection().exec_driver_sql(f"SELECT pg_advisory_xact_lock({_WRITE_SESSIONS})")

    def connect_queue(self, engine: Engine) -> Connection:
        """Open a connection on which the queue itself runs BEGIN and COMMIT."""
        return engine.connect().execution_options(isolation_level="AUTOCOMMIT")

    def begin_batch(self, connection: Connection) -> str:
        """Open a transaction and return its number."""
        _driver(connection).execute("BEGIN")
        return str(_driver(connection).execute("SELECT pg_current_xact_id()").fetchone()[0])

    def was_committed(self, engine: Engine, transaction_id: str) -> bool:
        """Ask the server, over a new connection, until it has noticed that the old one is gone."""
        give_up = time.monotonic() + DOUBT_SECONDS
        while True:
            with engine.connect() as connection:
                query = text("SELECT pg_xact_status(CAST(:id AS xid8))")
                status = connection.execute(query, {"id": transaction_id}).scalar()
            if status != "in progress" or time.monotonic() > give_up:
                return status == "committed"
            time.sleep(0.05)

    def upkeep(self, connection: Connection, gate: Gate) -> None:
        """Do nothing: the server maintains itself."""

    def now(self) -> str:
        """The server's clock."""
        return "SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) AS BIGINT)"


class NullGate:
    """Admits everybody."""

    def __enter__(self) -> None: ...

    def __exit__(self, *_exc: object) -> None: ...

    def close(self) -> None:
        """Nothing."""


def _driver(connection: Connection) -> Any:
    return connection.connection.driver_connection


@lru_cache(maxsize=512)
def _marked(sql: str) -> str:
    return sql.replace("%", "%%").replace("?", "%s")
