"""What apps store, for those whose it is: how much it is, and its deletion."""

# ruff: noqa: S608 - the statements are put together from constants of this module; values are always parameters

from __future__ import annotations

from typing import Final

from llmasos.database.engine import ReadSession, WriteSession
from llmasos.database.transaction import Transaction

_WHERE: Final = "WHERE workspace_id = ? AND app_id = ? AND user_id = ?"


def forget(session: WriteSession, workspace: str, app_id: str) -> int:
    """Delete everything that an app stores in a workspace, for all users, and return how many values there were."""
    transaction = Transaction.of(session)
    transaction.run("DELETE FROM stored_total WHERE workspace_id = ? AND app_id = ?", workspace, app_id)
    return transaction.run("DELETE FROM stored_value WHERE workspace_id = ? AND app_id = ?", workspace, app_id)


def forget_user(session: WriteSession, user: str) -> None:
    """Delete everything that apps store for a user, in every workspace."""
    transaction = Transaction.of(session)
    for table in ("stored_total", "stored_value"):
        transaction.run(f"DELETE FROM {table} WHERE user_id = ?", user)


def stored(session: ReadSession, owner: tuple[str, str, str]) -> tuple[int, int]:
    """How many values an app stores for one user, and their size in bytes; the owner is workspace, app and user."""
    row = Transaction(session.connection()).one(
        f"SELECT COUNT(*), COALESCE(SUM(size_bytes), 0) FROM stored_value {_WHERE}", *owner
    )
    return (int(row[0]), int(row[1])) if row else (0, 0)


def clear(session: WriteSession, owner: tuple[str, str, str]) -> int:
    """Delete everything that an installed app stores for one user, and return how many values there were.

    Versions go on from the highest one: a run that read an old value must not overwrite a new one.
    """
    transaction = Transaction.of(session)
    total = transaction.one(f"SELECT deleted_version FROM stored_total {_WHERE}{transaction.for_update}", *owner)
    newest = transaction.one(f"SELECT MAX(version) FROM stored_value {_WHERE}", *owner)
    if total is None or newest is None or newest[0] is None:
        return 0
    deleted = transaction.run(f"DELETE FROM stored_value {_WHERE}", *owner)
    transaction.run(
        f"UPDATE stored_total SET size_bytes = 0, deleted_version = ? {_WHERE}", max(total[0], newest[0]), *owner
    )
    return deleted
