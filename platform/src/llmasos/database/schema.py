"""Brings the database to the schema of this code: once, and completely or not at all.

Alembic does it, in one transaction; the migrations are in `migrations/` of the repository and in the wheel.
Alembic itself is imported only if there is something to do: revisions are numbered files, so their names give the
newest.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path

from llmasos.errors import Unavailable
from llmasos.home import make_private_file, make_private_folder
from llmasos.i18n import _
from llmasos.machine import disk_full

logger = logging.getLogger(__name__)

PENDING_RESTORE = "restore"
"""The folder of a home in which a restore waits that was committed and not finished (`llmasos.backup.restore`)."""


class SchemaNewer(Unavailable):
    """The database was made by a newer LLMasOS than this one: upgrade LLMasOS, or open another home."""

    code = "schema-newer"


def migrations_folder() -> Path:
    """Where the migrations are: in the installed package, or in the checkout."""
    installed = Path(__file__).parents[1] / "_migrations"
    return installed if installed.is_dir() else Path(__file__).parents[4] / "migrations"


def newest_revision() -> str:
    """The revision that this code knows, such as 0001."""
    names = (path.name.partition("_")[0] for path in (migrations_folder() / "versions").glob("[0-9]*_*.py"))
    return max(names)


def database_file(url: str) -> Path | None:
    """The file of a SQLite URL; None for other databases and for one in memory."""
    prefix = "sqlite:///"
    path = url.removeprefix(prefix)
    return Path(path) if url.startswith(prefix) and path and path != ":memory:" else None


def open_to_read(file: Path) -> sqlite3.Connection:
    """Open a SQLite database for reading; never create one.

    SQLite reads a database with a write-ahead log only if it may make an index beside it. If it may not (the
    disk is full, or the home cannot be written) and the log is empty, the file alone is the whole database.

    Raises:
        sqlite3.DatabaseError: It cannot be read.
    """
    address = f"{file.absolute().as_uri()}?mode=ro"
    connection = sqlite3.connect(address, uri=True, timeout=30)
    try:
        connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone()
    except sqlite3.OperationalError as error:
        connection.close()
        log = file.with_name(f"{file.name}-wal")
        cannot_index = any(part in str(error).lower() for part in ("unable to open", "disk i/o error", "readonly"))
        if not cannot_index or not file.is_file() or (log.exists() and log.stat().st_size):
            raise
        return sqlite3.connect(f"{address}&immutable=1", uri=True)
    except BaseException:
        connection.close()
        raise
    return connection


def revision_of(url: str) -> str | None:
    """The revision that the database has; None if it has none yet.

    Raises:
        Unavailable: The database cannot be read.
    """
    file = database_file(url)
    if file is None:
        return _revision_by_sqlalchemy(url)
    if not file.exists():
        return None
    try:
        with closing(open_to_read(file)) as connection:
            row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    except sqlite3.OperationalError as error:
        if "no such table" in str(error):
            return None
        if "disk i/o error" in str(error).lower():  # SQLite's error if it finds no room for its log
            raise disk_full(f" ({file})") from error
        raise Unavailable(
            _("The database {file} cannot be read: {error}. Check its permissions.", file=file, error=error),
        ) from error
    except sqlite3.DatabaseError as error:
        raise Unavailable(
            _(
                "{file} is not a database, or is damaged ({error}): put a copy of it back, or move it away.",
                file=file,
                error=error,
            ),
        ) from error
    return str(row[0]) if row else None


def _revision_by_sqlalchemy(url: str) -> str | None:
    from alembic.runtime.migration import MigrationContext  # noqa: PLC0415

    from llmasos.database.server import connected  # noqa: PLC0415

    with connected(url) as connection:
        return MigrationContext.configure(connection).get_current_revision()


def check_revision(found: str | None) -> bool:
    """Check whether the database has the schema of this code.

    Raises:
        SchemaNewer: It has one that this code does not know.
    """
    newest = newest_revision()
    if found is not None and found > newest:
        raise SchemaNewer(
            _(
                "The database has schema {found} and this LLMasOS knows {newest}: upgrade LLMasOS, or set "
                "LLMASOS_HOME to another home.",
                found=found,
                newest=newest,
            ),
        )
    return found == newest


def ensure_schema(url: str, home: Path) -> bool:
    """Bring the database to the newest schema, at first use or after an upgrade.

    It is one transaction: if it is killed, the database has the old or the new schema. If several processes start
    at once, one migrates and the others wait.

    Args:
        url: The database's URL.
        home: The folder of the lock; made if it is missing, for its owner alone.

    Returns:
        Whether there was something to do.

    Raises:
        SchemaNewer: The database is of a newer LLMasOS.
        Unavailable: It cannot be read or written.
    """
    if (home / PENDING_RESTORE).is_dir():
        raise Unavailable(
            _("A restore was interrupted, and the next command finishes it: run llmasos doctor."),
        )
    if check_revision(revision_of(url)):
        make_home(home)  # missing if another host created the tables on a server
        return False
    with one_process(home):
        found = revision_of(url)
        if check_revision(found):
            return False
        logger.info("migrating the database from %s to %s", found or "nothing", newest_revision())
        migrate_to(url, "head")
    return True


def migrate_to(url: str, revision: str) -> None:
    """Migrate to a revision, up or down. The caller holds the lock.

    Raises:
        Unavailable: The database cannot be written.
    """
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415
    from sqlalchemy.exc import DatabaseError  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(migrations_folder()).replace("%", "%%"))
    config.attributes["url"] = url
    known = {"head", "base"} | {path.name[:4] for path in (migrations_folder() / "versions").glob("[0-9]*_*.py")}
    if revision not in known:
        raise Unavailable(_("There is no schema {revision}.", revision=revision))
    if (file := database_file(url)) is not None:
        make_private_file(file)
    down = revision == "base" or (revision != "head" and revision < (revision_of(url) or ""))
    try:
        (command.downgrade if down else command.upgrade)(config, revision)
    except DatabaseError as error:
        raise Unavailable(
            _(
                "The database cannot be brought up to date: {reason}. Nothing was changed: check the free "
                "space and the permissions of the home, and run it again.",
                reason=error.orig,
            ),
        ) from error


def make_home(home: Path) -> None:
    """Create the folder of a home if it is missing, accessible to its owner alone.

    Raises:
        Unavailable: It cannot be created.
    """
    try:
        make_private_folder(home)
    except OSError as error:
        raise _unwritable(home, error) from error


def _unwritable(home: Path, error: OSError) -> Unavailable:
    return Unavailable(
        _(
            "The home {home} cannot be written ({reason}): set LLMASOS_HOME to a folder that can.",
            home=home,
            reason=error.strerror or error,
        ),
    )


@contextmanager
def one_process(home: Path) -> Generator[None]:
    """Keep other processes from migrating or restoring the home's database until the block ends."""
    from filelock import FileLock  # noqa: PLC0415

    make_home(home)
    try:
        lock = FileLock(home / "migrate.lock", timeout=600, mode=0o600)
        lock.acquire()
    except OSError as error:
        raise _unwritable(home, error) from error
    try:
        yield
    finally:
        lock.release()
