"""Restores a home from a backup.

The backup is read, checked and made into a complete new state in a folder of the home, `.restore-…`: files, key, and a
SQLite database that is migrated to the newest schema. Renaming that folder to `restore` commits it. Then the parts
are moved into place, which may be repeated; the folder goes last. Killed before the rename, the home is as it was;
killed after it, the next command finishes, and until then the home does not open.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sqlite3
import tempfile
import tomllib
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import BinaryIO, Final

from sqlalchemy import Connection, Table, select, text, update

from llmasos.backup import archive, rows
from llmasos.backup.archive import BackupManifest, BackupRejected
from llmasos.backup.sealing import unseal
from llmasos.backup.snapshot import snapshot, transaction
from llmasos.database.engine import Database
from llmasos.database.leases import HostLease, living
from llmasos.database.schema import (
    PENDING_RESTORE,
    check_revision,
    database_file,
    ensure_schema,
    migrate_to,
    one_process,
    revision_of,
)
from llmasos.errors import Conflict, Invalid, Unavailable
from llmasos.home import make_private_folder
from llmasos.i18n import _
from llmasos.secrets import KEY_FILE

_DATABASE: Final = "llmasos.db"
_TARGET: Final = "target.json"
# Tables that have rows in a database that was merely opened.
_NEVER_EMPTY: Final = frozenset({"alembic_version", "host_lease", "workspace", "audit_head"})
# And those in which it has one: the machine's own user.
_NEVER_WITHOUT_A_ROW: Final = frozenset({"user_account", "member"})
# The locations of the home and its database are not restored.
_PLACES: Final = ("home", "database_url")


def read_backup(path: Path) -> BackupManifest:
    """Return a backup's manifest, without reading its files.

    Raises:
        BackupRejected: It is not a backup, or is damaged.
        SchemaNewer: A newer LLMasOS made it.
        OSError: It cannot be read.
    """
    with path.open("rb") as source:
        return _checked(archive.read_manifest(source))


def _checked(manifest: BackupManifest) -> BackupManifest:
    if not re.fullmatch(r"\d{4}", manifest.schema):
        raise BackupRejected
    check_revision(manifest.schema)
    return manifest


def restore_backup(
    path: Path, home: Path, url: str, passphrase: str | None, *, replace: bool = False
) -> BackupManifest:
    """Restore a home to its state when the backup was made.

    Args:
        path: The backup.
        home: The home; made if it is missing.
        url: The URL of its database, of either kind.
        passphrase: Of the backup, if it holds secrets.
        replace: Whether what the home holds may be deleted.

    Raises:
        BackupRejected: It is not a backup, or is damaged. Nothing was changed, as with every error below.
        WrongPassphrase: The passphrase is wrong, or the backup was changed.
        Conflict: The home holds data, or a host is using it.
        SchemaNewer: A newer LLMasOS made the backup.
        Unavailable: There is too little room, or the database cannot be written.
    """
    with path.open("rb") as source:
        manifest = _checked(archive.read_manifest(source))
        if manifest.secrets_key is not None and not passphrase:
            raise Invalid(
                _("This backup holds secrets: set LLMASOS_BACKUP_PASSPHRASE, or run this on a terminal."),
            )
        make_private_folder(home)
        finish_restore(home, url)
        _check_room(home, manifest)
        if database_file(url) is None or revision_of(url) is not None:
            ensure_schema(url, home)
        _check_unused(url, replace)
        staging = Path(tempfile.mkdtemp(prefix=".restore-", dir=home))
        try:
            archive.read_files(source, manifest, lambda name: _place(staging, name))
            if manifest.secrets_key is not None:
                key = unseal(manifest.secrets_key, passphrase or "", manifest.authenticated())
                _write(staging / KEY_FILE, key)
            _build_database(staging, manifest)
            _stage_config(staging, home)
            _write(staging / _TARGET, json.dumps({"database": _fingerprint(url)}).encode())
            with one_process(home):
                _check_unused(url, replace)
                _sync(staging)
                staging.rename(home / PENDING_RESTORE)
                _sync_folder(home)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    finish_restore(home, url)
    return manifest


def finish_restore(home: Path, url: str) -> bool:
    """Finish a restore that was committed; returns whether there was one. Idempotent, and safe to call concurrently.

    Raises:
        Unavailable: It was a restore into a different database.
    """
    pending = home / PENDING_RESTORE
    if not pending.is_dir():
        return False
    with one_process(home):
        if not pending.is_dir():
            return False
        target = json.loads((pending / _TARGET).read_text())["database"]
        if target != _fingerprint(url):
            raise Unavailable(
                _(
                    "A restore of {home} into another database was interrupted: run llmasos doctor with the "
                    "LLMASOS_DATABASE_URL that it was started with.",
                    home=home,
                ),
            )
        _apply(pending, home, url)
        # Renamed first, so that a half-deleted folder is not taken for a restore.
        done = Path(tempfile.mkdtemp(prefix=".restored-", dir=home))
        pending.rename(done / PENDING_RESTORE)
        shutil.rmtree(done, ignore_errors=True)
    return True


def _check_room(home: Path, manifest: BackupManifest) -> None:
    # Each file is written once; the rows a second time, as a database with its indexes.
    needed = sum(entry.size_bytes * (3 if entry.name.startswith("rows/") else 1) for entry in manifest.files)
    free = shutil.disk_usage(home).free
    if needed > free:
        raise Unavailable(
            _(
                "The backup needs {needed_mib:,} MiB, and {free_mib:,} MiB are free at {home}: make room.",
                needed_mib=needed >> 20,
                free_mib=free >> 20,
                home=home,
            ),
        )


def _check_unused(url: str, replace: bool) -> None:
    """Refuse a database that a host uses, and one with data unless it may be replaced."""
    if revision_of(url) is None:
        return
    with Database(url) as database, database.read() as session:
        if living(session):
            raise Conflict(
                _("A host is using this home: stop `llmasos serve` and every other command, then restore."),
            )
    if replace:
        return
    with snapshot(url) as connection:
        for table in rows.tables_of(connection):
            if table.name in _NEVER_EMPTY:
                continue
            found = connection.execute(select(table).limit(2)).all()
            if len(found) > (table.name in _NEVER_WITHOUT_A_ROW):
                raise Conflict(
                    _(
                        "This home holds data, which a restore would delete: back it up, then use --replace; or set "
                        "LLMASOS_HOME to a new folder."
                    ),
                )


def _place(staging: Path, name: str) -> BinaryIO:
    path = staging / name
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")


def _write(path: Path, content: bytes) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)


def _build_database(staging: Path, manifest: BackupManifest) -> None:
    """Build a SQLite database from the rows, in the schema that they were written in, then migrate it."""
    file = staging / _DATABASE
    url = f"sqlite:///{file}"
    migrate_to(url, manifest.schema)
    with transaction(url) as connection:
        tables = rows.tables_of(connection)
        if {table.name for table in tables} != set(manifest.tables):
            raise BackupRejected
        for table in reversed(tables):  # the migrations insert a few rows of their own
            connection.execute(table.delete())
        for table in tables:
            with (staging / "rows" / f"{table.name}.jsonl").open("rb") as lines:
                rows.load(connection, table, manifest.tables[table.name], _bounded(lines))
        if connection.execute(text("PRAGMA foreign_key_check")).first():
            raise BackupRejected
    migrate_to(url, "head")
    with transaction(url) as connection:
        # The processes that held these leases are gone: what they held is freed when a host starts.
        connection.execute(update(HostLease).values(machine="", expires_at=0))
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA journal_mode=DELETE")  # a single file, without a log beside it
    file.chmod(0o600)
    shutil.rmtree(staging / "rows")


def _bounded(lines: BinaryIO) -> Generator[bytes]:
    while line := lines.readline(rows.MAX_LINE_BYTES):
        if not line.endswith(b"\n"):
            raise BackupRejected
        yield line


def _stage_config(staging: Path, home: Path) -> None:
    """Keep the locations from the home's own `config.toml`, and take the rest from the backup."""
    staged, present = staging / archive.CONFIG, home / archive.CONFIG
    restored = staged.read_text(encoding="utf-8") if staged.is_file() else ""
    try:
        places = tomllib.loads(present.read_text(encoding="utf-8")) if present.is_file() else {}
        kept = [f"{key} = {json.dumps(places[key])}\n" for key in _PLACES if isinstance(places.get(key), str)]
        lines = restored.splitlines(keepends=True)
        rest = [line for line in lines if not re.match(rf"\s*(?:{'|'.join(_PLACES)})\s*=", line)]
        content = "".join([*kept, *rest])
        if set(tomllib.loads(content)) - set(tomllib.loads(restored)) - set(_PLACES):
            raise ValueError("a key appeared")
    except ValueError as error:
        raise Invalid(
            _("config.toml of the backup or of the home cannot be read: {error}", error=error),
        ) from error
    if staged.is_file() or present.is_file():
        _write(staged, content.encode())


def _apply(pending: Path, home: Path, url: str) -> None:
    """Move the new state into place. Every step may be repeated."""
    for path in sorted(pending.glob("bundles/*")):
        (home / "bundles").mkdir(mode=0o700, exist_ok=True)
        path.replace(home / "bundles" / path.name)
    for folder in sorted(pending.glob("code/*")):
        (home / "code").mkdir(mode=0o700, exist_ok=True)
        shutil.rmtree(home / "code" / folder.name, ignore_errors=True)
        folder.rename(home / "code" / folder.name)
    for name in (KEY_FILE, archive.CONFIG):
        if (pending / name).exists():
            _write_synced(pending / name, home / name)
    file = database_file(url)
    if file is not None:
        for suffix in ("-wal", "-shm"):  # of the replaced database
            file.with_name(file.name + suffix).unlink(missing_ok=True)
        _write_synced(pending / _DATABASE, file)
    else:
        _copy_rows(pending / _DATABASE, url)


def _write_synced(source: Path, target: Path) -> None:
    """Atomically replace a file by a copy of another."""
    temporary = target.with_name(f".{target.name}.restoring")
    with source.open("rb") as content, os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as file:
        file.truncate()
        shutil.copyfileobj(content, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(target)
    _sync_folder(target.parent)


def _copy_rows(file: Path, url: str) -> None:
    """Replace all rows of a PostgreSQL database, in one transaction."""
    with snapshot(f"sqlite:///{file}") as source, transaction(url) as target:
        tables = rows.tables_of(target)
        with _without_triggers(target, [table.name for table in tables]):
            target.execute(text("TRUNCATE " + ", ".join(f'"{table.name}"' for table in tables)))
            for table, original in zip(tables, _in_order(rows.tables_of(source), tables), strict=True):
                with tempfile.TemporaryFile() as lines:
                    saved = rows.dump(source, original, lines)
                    lines.seek(0)
                    rows.load(target, table, saved, lines)


def _in_order(tables: list[Table], wanted: list[Table]) -> list[Table]:
    by_name = {table.name: table for table in tables}
    return [by_name[table.name] for table in wanted]


@contextmanager
def _without_triggers(connection: Connection, tables: list[str]) -> Generator[None]:
    # The audit log refuses to be emptied; a restore, which replaces it whole, is the one exception.
    for state in ("DISABLE", "ENABLE"):
        for table in tables:
            connection.execute(text(f'ALTER TABLE "{table}" {state} TRIGGER USER'))
        if state == "DISABLE":
            yield


def _fingerprint(url: str) -> str:
    """Identify a database, without its password."""
    return hashlib.sha256(url.encode()).hexdigest()


def _sync(folder: Path) -> None:
    for path in folder.rglob("*"):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
