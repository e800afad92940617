"""Finds files of a home that other users can access, and removes that access."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from sqlmodel import Session, col, func, select

from llmasos.i18n import Message, _
from llmasos.invocations import content
from llmasos.secrets import KEY_FILE, Sealer, Secrets
from llmasos.secrets.tables import SecretRow

# The folders whose content the host trusts as its own: others must not write to them.
TRUSTED_FOLDERS: Final = ("bundles", "code", "compiled", "environments", "builds", "models")
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
_OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH


@dataclass(frozen=True, slots=True)
class LooseAccess:
    """A file or folder that others can access, and the mode that it should have."""

    path: Path
    mode: int
    message: Message

    def close(self) -> None:
        """Set the mode that it should have.

        Raises:
            OSError: It belongs to another user.
        """
        self.path.chmod(self.mode)


def loose_access(home: Path) -> Iterator[LooseAccess]:
    """Find what others can access: the home itself, its files, and the folders whose content the host trusts."""
    if (mode := _mode_of(home)) is not None and mode & _OTHERS:
        yield LooseAccess(home, 0o700, _("Other users can look into the home {path}.", path=home))
    for path in sorted(home.iterdir()) if home.is_dir() else ():
        mode = _mode_of(path)
        if mode is None or path.is_symlink():
            continue
        if path.is_file() and mode & _OTHERS:
            yield LooseAccess(path, 0o600, _("Other users can read or write {path}.", path=path))
        elif path.name in TRUSTED_FOLDERS and mode & _OTHERS_WRITE:
            yield LooseAccess(path, 0o700, _("Other users can change what is in {path}, which is run.", path=path))


def foreign_content(home: Path) -> Iterator[Path]:
    """Find compiled code that another user than this one or root wrote: the host would load it as its own."""
    for folder in (home / "compiled", home / "environments"):
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            status = path.lstat()
            if status.st_uid not in {0, os.geteuid()} or (not path.is_symlink() and status.st_mode & _OTHERS_WRITE):
                yield path


def close_access(home: Path) -> Iterator[tuple[Literal["note", "problem"], Message]]:
    """Remove other users' access; returns the findings, and whether each needs the user's attention."""
    for each in loose_access(home):
        try:
            each.close()
        except OSError as error:
            reason = error.strerror or error
            yield "problem", _("{found} It cannot be closed: {reason}.", found=each.message, reason=reason)
        else:
            yield "note", _("{found} It is closed to them now.", found=each.message)
    for path in foreign_content(home):
        yield (
            "problem",
            _("Others could have changed {path}, which is run: delete it, and it is prepared again.", path=path),
        )


def lost_key(session: Session, home: Path) -> Message | None:
    """Check whether the home's key is missing, or is another than what is stored was encrypted under."""
    secrets = session.exec(select(func.count(col(SecretRow.name)))).one()
    contents = content.count(session)
    path = home / KEY_FILE
    if not secrets and not contents:
        return None
    if not path.is_file():
        return _(
            "{path} is missing, so {secrets} secrets and the inputs and outputs of {contents} invocations cannot be "
            "read: put it back from a backup, or set the secrets again.",
            path=path,
            secrets=secrets,
            contents=contents,
        )
    secrets = Secrets(home).count_unreadable(session)
    contents = content.count_unreadable(session, Sealer.in_home(home))
    if not secrets and not contents:
        return None
    return _(
        "{path} is another key than {secrets} secrets and the inputs and outputs of {contents} invocations were "
        "encrypted under: put the former one back from a backup, or set the secrets again.",
        path=path,
        secrets=secrets,
        contents=contents,
    )


def _mode_of(path: Path) -> int | None:
    try:
        return stat.S_IMODE(path.lstat().st_mode)
    except OSError:
        return None
