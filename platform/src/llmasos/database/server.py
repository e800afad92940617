"""A database server: connects to it, and reports what prevents LLMasOS from using it."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

from sqlalchemy import Connection, Engine, create_engine, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from llmasos.errors import Unavailable
from llmasos.i18n import Message, _

# `CREATE OR REPLACE TRIGGER`, which the migrations use, needs PostgreSQL 14.
OLDEST_POSTGRESQL: Final = 14
DRIVER: Final = "postgresql+psycopg"
INSTALL_DRIVER: Final = "pip install 'psycopg[binary]>=3.2'"


def engine_of(url: str) -> Engine:
    """Create an engine that keeps no connection.

    Raises:
        Unavailable: The URL is not that of a database that LLMasOS knows, or its driver is not installed.
    """
    try:
        kind = make_url(url).drivername
    except (ArgumentError, ValueError) as error:
        raise Unavailable(
            _(
                "LLMASOS_DATABASE_URL is not the URL of a database, such as {example}.",
                example=f"{DRIVER}://user:password@host/name",
            )
        ) from error
    if kind != DRIVER and not kind.startswith("sqlite"):
        raise Unavailable(
            _(
                "LLMASOS_DATABASE_URL begins with {kind}://, and LLMasOS knows {sqlite}:// and {postgresql}://.",
                kind=kind,
                sqlite="sqlite",
                postgresql=DRIVER,
            )
        )
    try:
        return create_engine(url, poolclass=NullPool)
    except (ModuleNotFoundError, NoSuchModuleError) as error:
        raise Unavailable(
            _("PostgreSQL needs a driver that is not installed: {command}", command=INSTALL_DRIVER)
        ) from error


@contextmanager
def connected(url: str) -> Generator[Connection]:
    """A connection to a database.

    Raises:
        Unavailable: It cannot be reached or read; the message quotes the server.
    """
    engine = engine_of(url)
    try:
        with engine.connect() as connection:
            yield connection
    except SQLAlchemyError as error:
        reason = error.orig if isinstance(error, DBAPIError) else error
        raise Unavailable(
            _(
                "The database cannot be reached: {reason}. Check LLMASOS_DATABASE_URL, and that the server runs.",
                reason=" ".join(str(reason).split()),
            )
        ) from error
    finally:
        engine.dispose()


def faults(url: str) -> list[Message]:
    """What prevents the use of a reachable PostgreSQL server; each fault names its cure.

    Raises:
        Unavailable: It cannot be reached.
    """
    found: list[Message] = []
    with connected(url) as connection:
        version = int(connection.execute(text("SHOW server_version_num")).scalar_one()) // 10_000
        if version < OLDEST_POSTGRESQL:
            found.append(
                _(
                    "This is PostgreSQL {version}: upgrade it to {oldest} or newer.",
                    version=version,
                    oldest=OLDEST_POSTGRESQL,
                )
            )
        encoding = connection.execute(text("SHOW server_encoding")).scalar_one()
        if encoding != "UTF8":
            found.append(
                _(
                    "The database is encoded in {encoding}, which cannot hold every text: make one with "
                    "CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0.",
                    encoding=encoding,
                )
            )
        user, schema, may_create = connection.execute(
            text("SELECT current_user, current_schema(), has_schema_privilege(current_schema(), 'CREATE')")
        ).one()
        if not may_create:
            found.append(
                _(
                    "The user {user} may not make tables: run GRANT CREATE ON SCHEMA {schema} TO {user} as its owner.",
                    user=user,
                    schema=schema or "public",
                )
            )
    return found
