"""Everything specific to SQLite: one writer at a time, checkpoints of the log, times as text."""

from __future__ import annotations

import logging
import time
from datetime import date, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, event
from sqlmodel import Session

from llmasos.database.dialect import Gate
from llmasos.database.write_gate import WriteGate
from llmasos.errors import Unavailable
from llmasos.home import make_private_file
from llmasos.i18n import _

logger = logging.getLogger(__name__)

# How long the write queue waits for a lock that another program (a backup, a shell) holds.
BUSY_SECONDS = 30.0
# A checkpoint waits for the disk several times, 5 ms and more each: it is rare, so that it costs a
# write 10 µs. This many writes fill about 16 MiB. SQLite itself checkpoints only if large values fill the log earlier.
CHECKPOINT_WRITES, CHECKPOINT_PAGES = 1200, 8000
_MOVE_LOG = "PRAGMA wal_checkpoint(PASSIVE)"


class Sqlite:
    """SQLite in WAL mode."""

    for_update = ""
    for_key_share = ""
    upkeep_writes = CHECKPOINT_WRITES

    def marked(self, sql: str) -> str:
        """Return it unchanged."""
        return sql

    def instant(self, at: datetime) -> str:
        """Return text without a zone, as SQLAlchemy stores it."""
        return at.replace(tzinfo=None).isoformat(sep=" ", timespec="microseconds")

    def day(self, day: date) -> str:
        """Return ISO text."""
        return day.isoformat()

    def set_up(self, engine: Engine) -> None:
        """Create its file, accessible to its owner alone, and set its pragmas on each connection."""
        if engine.url.database and engine.url.database != ":memory:":
            make_private_file(Path(engine.url.database))
        event.listen(engine, "connect", _set_pragmas)

    def gate(self, engine: Engine) -> Gate:
        """Return a gate that locks a file beside the database."""
        return WriteGate(engine.url.database)

    def begin_reading(self, session: Session) -> None:
        """Open a deferred transaction, which reads from the snapshot of its first statement."""
        session.connection().exec_driver_sql("BEGIN")

    def begin_writing(self, session: Session) -> None:
        """Take the write lock immediately, so that a second writer waits instead of failing in the middle."""
        session.connection().exec_driver_sql("BEGIN IMMEDIATE")

    def connect_queue(self, engine: Engine) -> Connection:
        """Open a connection that does not wait for locks: `begin_batch` retries, as SQLite would sleep up to 100 ms."""
        connection = engine.connect()
        execute = _driver(connection).execute
        execute("PRAGMA busy_timeout = 0")
        execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
        return connection

    def begin_batch(self, connection: Connection) -> None:
        """Take the write lock. A failed commit took no effect, since nothing is between this process and the file."""
        give_up = time.monotonic() + BUSY_SECONDS
        while True:
            try:
                _driver(connection).execute("BEGIN IMMEDIATE")
            except Exception as error:
                if "locked" not in str(error):
                    raise
            else:
                return
            if time.monotonic() > give_up:
                raise Unavailable(
                    _(
                        "The database does not take writes: another program keeps it locked; end that program, or "
                        "try again."
                    ),
                )
            time.sleep(0.005)

    def was_committed(self, engine: Engine, transaction_id: str) -> bool:
        """Return False: `begin_batch` returns no id."""
        return False

    def upkeep(self, connection: Connection, gate: Gate) -> None:
        """Checkpoint the log into the database, so that it can start over.

        Most of it is moved while others write; then they wait only for what they added.
        """
        execute = _driver(connection).execute
        try:
            execute(_MOVE_LOG)
            with gate:
                _busy, pages, moved = execute(_MOVE_LOG).fetchone()
                if pages == moved:
                    # The first write to a restarted log waits for the disk: do it here, not in a caller's write.
                    (version,) = execute("PRAGMA user_version").fetchone()
                    execute(f"PRAGMA user_version = {version}")
        except Exception as error:
            if "locked" not in str(error):
                logger.exception("the log of the database could not be moved into it; retrying later")

    def now(self) -> str:
        """Read the machine's clock."""
        return "SELECT CAST(strftime('%s', 'now') AS INTEGER)"


def _driver(connection: Connection) -> Any:
    return connection.connection.driver_connection


def _set_pragmas(connection: Any, _record: object) -> None:
    # The driver must not begin transactions itself: we begin them, with the lock that they need.
    connection.isolation_level = None
    for pragma in ("busy_timeout=30000", "journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")
