"""Converts errors of the machine itself into the host's errors, with their cure."""

from __future__ import annotations

import errno
import logging

from llmasos.errors import DiskFull, LlmasosError, Unavailable
from llmasos.i18n import _

logger = logging.getLogger(__name__)


def known(error: Exception) -> Exception:
    """Convert a full disk, an unwritable folder, or a locked or damaged database into `Unavailable`, others not.

    Such errors come from everywhere (SQLite, SQLAlchemy, the file system), so they are distinguished here, once.
    """
    cause: BaseException = getattr(error, "orig", None) or error  # SQLAlchemy wraps the driver's error
    text = str(cause).lower()
    if isinstance(cause, OSError):
        if cause.errno in (errno.EMFILE, errno.ENFILE):
            return Unavailable(_("Too many files are open: raise `ulimit -n`."))
        return unwritable(cause) or error
    if type(cause).__module__.partition(".")[0] != "sqlite3":
        return error
    if "disk is full" in text or "disk i/o error" in text:
        return disk_full()
    for part, answer in _OF_SQLITE:
        if part in text:
            return Unavailable(answer)
    return error


def told_of_database(error: BaseException) -> tuple[LlmasosError, bool]:
    """Return why the database refused a write, and whether the same write may be retried.

    Any other error is a fault of the code: its traceback is logged.
    """
    answer = known(error) if isinstance(error, Exception) else error
    if isinstance(answer, LlmasosError):
        return answer, isinstance(answer, Unavailable)
    if not isinstance(error, OSError) and not _is_of_driver(error):
        logger.error("a batch of writes failed", exc_info=error)
    line = (str(error) or type(error).__name__).splitlines()[0]
    return Unavailable(_("The database does not take writes: {line}", line=line)), False


def _is_of_driver(error: BaseException) -> bool:
    cause: BaseException = getattr(error, "orig", None) or error
    return any(kind.__name__ == "Error" and kind.__module__ in {"sqlite3", "psycopg"} for kind in type(cause).__mro__)


def unwritable(error: OSError) -> Unavailable | None:
    """Why something in the home could not be written, with its cure; None for other errors."""
    where = f" ({error.filename})" if error.filename else ""
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT | errno.EFBIG:
            return disk_full(where)
        case errno.EROFS | errno.EACCES | errno.EPERM:
            return Unavailable(
                _(
                    "No permission{where}: check who owns it, or set LLMASOS_HOME to a folder that you may write to.",
                    where=where,
                ),
            )
        case _:
            return None


def disk_full(where: str = "") -> DiskFull:
    """Make the error of a full disk, with its place."""
    return DiskFull(_("{said}{where}", said=DiskFull.default(), where=where) if where else None)


_READ_ONLY = _("The home cannot be written: set LLMASOS_HOME to a folder that you may write to.")
_OF_SQLITE = (
    ("readonly", _READ_ONLY),
    ("unable to open", _READ_ONLY),
    (
        "locked",
        _("Another process holds the database for too long: end it, or try again."),
    ),
    (
        "malformed",
        _("The database is damaged: run `llmasos doctor`, and restore a backup."),
    ),
    (
        "not a database",
        _("The database file is not a database: move it away, or restore a backup."),
    ),
)
