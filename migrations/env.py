"""Runs the migrations, on SQLite and on PostgreSQL, in one transaction.

`llmasos.database.schema` calls it with the URL in `config.attributes`. To work on migrations, name a database in
`LLMASOS_DATABASE_URL`.
"""

from __future__ import annotations

import os
from typing import Any

from alembic import context
from sqlalchemy import create_engine, event, text
from sqlalchemy.pool import NullPool


def url() -> str:
    named = context.config.attributes.get("url") or os.environ.get("LLMASOS_DATABASE_URL")
    if not named:
        raise SystemExit("Name the database in LLMASOS_DATABASE_URL.")
    return str(named)


def on_connect(connection: Any, _record: object) -> None:
    # pysqlite begins no transaction before DDL by itself, so that a killed migration would stay
    # half-done: we begin it. Foreign keys are off during it, since a table that batch mode rebuilds is dropped for
    # an instant, which would delete the rows that refer to it; they are checked before the commit.
    connection.isolation_level = None
    connection.execute("PRAGMA busy_timeout=30000")
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA foreign_keys=OFF")


def on_begin(connection: Any) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def run_online() -> None:
    engine = create_engine(url(), poolclass=NullPool)
    sqlite = engine.dialect.name == "sqlite"
    if sqlite:
        event.listen(engine, "connect", on_connect)
        event.listen(engine, "begin", on_begin)
    try:
        with engine.connect() as connection:
            context.configure(connection=connection, transactional_ddl=True, render_as_batch=True)
            with context.begin_transaction():
                if not sqlite:
                    # Among processes on several machines, one migrates. The number is random, and fixed for this
                    # project.
                    connection.execute(text("SELECT pg_advisory_xact_lock(7203618431)"))
                context.run_migrations()
                if sqlite and (broken := connection.exec_driver_sql("PRAGMA foreign_key_check").fetchall()):
                    raise RuntimeError(f"the migration broke references: {broken[:3]}")
    finally:
        engine.dispose()


def run_offline() -> None:
    context.configure(dialect_name=url().partition(":")[0].partition("+")[0], literal_binds=True, as_sql=True)
    with context.begin_transaction():
        context.run_migrations()


if context.is_offline_mode():
    run_offline()
else:
    run_online()
