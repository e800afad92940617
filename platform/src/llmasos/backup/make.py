"""Makes a backup of a home, while its hosts run.

The rows are read in one transaction, so they belong together. Bundles and code are files that never change under a
name and are written before the rows that refer to them, so that reading them after the rows finds all of them.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Final, TypeAlias

from llmasos.backup import archive, rows
from llmasos.backup.archive import BackupEntry, BackupManifest, TableRows
from llmasos.backup.sealing import seal
from llmasos.backup.snapshot import snapshot
from llmasos.database.schema import check_revision, revision_of
from llmasos.errors import Conflict, Invalid, NotFound, Unavailable
from llmasos.i18n import _
from llmasos.installs.code import CodeStore
from llmasos.secrets import KEY_FILE

MIN_PASSPHRASE_CHARACTERS: Final = 8
_ATTEMPTS: Final = 3

Seal: TypeAlias = Callable[[BackupManifest], BackupManifest]
"""Adds the encrypted key of the secrets to a manifest."""


@dataclass(frozen=True, slots=True)
class Backup:
    """What was made."""

    path: Path
    size_bytes: int
    manifest: BackupManifest


def needs_passphrase(home: Path) -> bool:
    """Whether the home has a key for its secrets, which a backup must encrypt."""
    return (home / KEY_FILE).exists()


def make_backup(home: Path, url: str, target: Path, passphrase: str | None) -> Backup:
    """Write everything in a home into one file, which only its owner may read.

    Models' weights, compiled components and environments are left out: they are fetched and made again.

    Args:
        home: The home.
        url: Its database's URL.
        target: The file, which must not exist.
        passphrase: Encrypts the secrets' key; not needed if there is no key.

    Raises:
        NotFound: The home is empty.
        Conflict: The target exists.
        Invalid: There is a key and no passphrase, or one that is too short.
        Unavailable: The database cannot be read.
        OSError: A file cannot be read or written.
    """
    revision = revision_of(url)
    if revision is None:
        raise NotFound(_("There is nothing to back up in {home} yet.", home=home))
    check_revision(revision)
    if target.exists():
        raise Conflict(
            _("{target} exists already, and a backup replaces nothing: choose another name.", target=target),
        )
    key = (home / KEY_FILE).read_bytes() if needs_passphrase(home) else None
    if key is not None and len(passphrase or "") < MIN_PASSPHRASE_CHARACTERS:
        raise Invalid(
            _(
                "The key of the secrets is encrypted with a passphrase of at least "
                "{min_passphrase_characters} characters: set LLMASOS_BACKUP_PASSPHRASE, or run this on a "
                "terminal.",
                min_passphrase_characters=MIN_PASSPHRASE_CHARACTERS,
            ),
        )

    def sealed(manifest: BackupManifest) -> BackupManifest:
        if key is None:
            return manifest
        return replace(manifest, secrets_key=seal(key, passphrase or "", manifest.authenticated()))

    for __ in range(_ATTEMPTS):
        # A listed file may be gone when it is read: an app was uninstalled in the meantime.
        with suppress(FileNotFoundError):
            return _attempt(home, url, target, revision, sealed)
    raise Unavailable(
        _("Apps are being removed all the time: run the backup again later."),
    )


def _attempt(home: Path, url: str, target: Path, revision: str, sealed: Seal) -> Backup:
    with tempfile.TemporaryDirectory(prefix=".llmasos-backup-", dir=target.parent) as name:
        folder = Path(name)
        tables = _dump(url, folder)
        sources = {f"rows/{table}.jsonl": folder / table for table in tables} | dict(_files(home))
        files = [(archive.describe(name, path), path) for name, path in sources.items()]
        manifest = sealed(_manifest(revision, [entry for entry, _ in files], tables))
        temporary = folder / "backup"
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            archive.write(file, manifest, files)
            file.flush()
            os.fsync(file.fileno())
        size = temporary.stat().st_size
        temporary.replace(target)
    return Backup(target, size, manifest)


def _dump(url: str, folder: Path) -> dict[str, TableRows]:
    with snapshot(url) as connection:
        dumped: dict[str, TableRows] = {}
        for table in rows.tables_of(connection):
            with (folder / table.name).open("wb") as file:
                dumped[table.name] = rows.dump(connection, table, file)
    return dumped


def _files(home: Path) -> Iterator[tuple[str, Path]]:
    """The files of a home that go into a backup, by their names in it."""
    if (home / archive.CONFIG).is_file():
        yield archive.CONFIG, home / archive.CONFIG
    for path in sorted((home / "bundles").glob("*.llmapp")):
        if len(path.stem) == 64:  # any other name is that of a file that is being written
            yield f"bundles/{path.name}", path
    code = CodeStore.in_home(home)
    for digest in sorted(code.digests()):
        for path in sorted((code.root / digest).iterdir()):
            yield f"code/{digest}/{path.name}", path


def _manifest(revision: str, entries: list[BackupEntry], tables: dict[str, TableRows]) -> BackupManifest:
    return BackupManifest(
        made_at=datetime.now(UTC).isoformat(timespec="seconds"),
        llmasos=metadata.version("llmasos-platform"),
        schema=revision,
        files=tuple(entries),
        tables=tables,
    )
