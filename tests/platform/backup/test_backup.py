"""A home is backed up to one file and restored completely, between both kinds of database, or not at all."""

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from sqlmodel import select
from tests.platform.backup.homes import OWNER, PASSPHRASE, Home, empty_home, rewrite

from llmasos.backup import sealing
from llmasos.backup.make import make_backup
from llmasos.backup.restore import read_backup, restore_backup
from llmasos.backup.sealing import WrongPassphrase
from llmasos.database.engine import Database, utc_now
from llmasos.database.leases import HostLease
from llmasos.database.schema import ensure_schema, migrate_to, newest_revision
from llmasos.errors import Conflict, Invalid, NotFound, Unavailable
from llmasos.kernel import audit
from llmasos.secrets import Secrets
from llmasos_server.accounts.tables import User


def test_a_home_comes_back_in_a_new_folder(home: Home, tmp_path: Path) -> None:
    made = make_backup(home.folder, home.url, tmp_path / "b.llmbackup", PASSPHRASE)
    assert made.path.stat().st_mode & 0o777 == 0o600
    new = empty_home(tmp_path)
    restore_backup(made.path, new.folder, new.url, PASSPHRASE)
    assert new.contents() == home.contents()
    assert new.contents()["intact"] is True
    assert (new.folder / "config.toml").read_text() == "native_runners = 7\n"
    assert {path.name for path in new.folder.iterdir() if path.name.startswith(".")} == set()


def test_a_backup_of_sqlite_is_restored_into_either_database(
    backup: Path, sqlite_home: Home, tmp_path: Path, new_database_url: Callable[[], str]
) -> None:
    new = Home(tmp_path / "restored", new_database_url())
    restore_backup(backup, new.folder, new.url, PASSPHRASE)
    assert new.contents() == sqlite_home.contents()
    # New rows are numbered after those that were restored.
    with Database(new.url) as database:
        with database.write() as session:
            Secrets(new.folder).set(session, OWNER, "another", "value")
        with database.read() as session:
            assert audit.verify(session).intact


def test_a_backup_is_of_one_instant_while_a_host_writes(home: Home, tmp_path: Path) -> None:
    stop = threading.Event()

    def write() -> None:
        with Database(home.url) as database:
            while not stop.is_set():
                with database.write() as session:
                    Secrets(home.folder).set(session, OWNER, "api_key", "open sesame")

    thread = threading.Thread(target=write)
    thread.start()
    try:
        made = [make_backup(home.folder, home.url, tmp_path / f"{n}.llmbackup", PASSPHRASE) for n in range(3)]
    finally:
        stop.set()
        thread.join()
    for number, each in enumerate(made):
        new = Home(tmp_path / f"restored{number}", f"sqlite:///{tmp_path / f'restored{number}' / 'llmasos.db'}")
        restore_backup(each.path, new.folder, new.url, PASSPHRASE)
        # Rows of two instants would break the chain: its head and its lines are written together.
        assert new.contents()["intact"] is True


def test_a_home_with_data_is_refused_unless_it_may_be_replaced(
    backup: Path, home: Home, sqlite_home: Home, tmp_path: Path
) -> None:
    with Database(home.url) as database, database.write() as session:
        Secrets(home.folder).set(session, OWNER, "api_key", "changed since")
    before = home.contents()
    with pytest.raises(Conflict, match="--replace"):
        restore_backup(backup, home.folder, home.url, PASSPHRASE)
    assert home.contents() == before
    restore_backup(backup, home.folder, home.url, PASSPHRASE, replace=True)
    assert home.contents()["secret"] == "open sesame"


def test_a_database_with_another_user_is_not_empty(
    backup: Path, tmp_path: Path, new_database_url: Callable[[], str]
) -> None:
    new = Home(tmp_path / "restored", new_database_url())
    with Database(new.url) as database, database.write() as session:
        session.add(User(id="ann", name="Ann", created_at=utc_now()))
    with pytest.raises(Conflict, match="--replace"):
        restore_backup(backup, new.folder, new.url, PASSPHRASE)


def test_a_home_in_use_is_refused(backup: Path, home: Home) -> None:
    with Database(home.url) as database, database.write() as session:
        session.add(HostLease(id="x", machine="another", pid=1, born="", expires_at=int(time.time()) + 60))
    with pytest.raises(Conflict, match="stop `llmasos serve`"):
        restore_backup(backup, home.folder, home.url, PASSPHRASE, replace=True)


def test_what_a_living_process_held_is_not_held_in_the_restored_home(home: Home, tmp_path: Path) -> None:
    with Database(home.url) as database, database.write() as session:
        session.add(HostLease(id="x", machine="another", pid=1, born="", expires_at=int(time.time()) + 3600))
    made = make_backup(home.folder, home.url, tmp_path / "b.llmbackup", PASSPHRASE)
    new = empty_home(tmp_path)
    restore_backup(made.path, new.folder, new.url, PASSPHRASE)
    with Database(new.url) as database, database.read() as session:
        assert [lease.expires_at for lease in session.exec(select(HostLease))] == [0]


def test_a_backup_of_an_older_schema_is_migrated(tmp_path: Path) -> None:
    old = Home(tmp_path / "old", f"sqlite:///{tmp_path / 'old' / 'llmasos.db'}")
    migrate_to(old.url, "0001")
    made = make_backup(old.folder, old.url, tmp_path / "b.llmbackup", None)
    assert made.manifest.schema == "0001" != newest_revision()
    new = empty_home(tmp_path)
    restore_backup(made.path, new.folder, new.url, None)
    assert not ensure_schema(new.url, new.folder)


def test_a_backup_of_a_newer_schema_is_refused(backup: Path, tmp_path: Path) -> None:
    rewritten = rewrite(backup, tmp_path, lambda manifest: replace(manifest, schema="9999"))
    with pytest.raises(Unavailable, match="upgrade LLMasOS"):
        read_backup(rewritten)


def test_the_passphrase_is_needed_and_must_be_the_one(backup: Path, sqlite_home: Home, tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="at least 8 characters"):
        make_backup(sqlite_home.folder, sqlite_home.url, tmp_path / "c.llmbackup", "short")
    assert b"api_key" in backup.read_bytes()  # the rows exist, and
    assert (sqlite_home.folder / "secret.key").read_bytes() not in backup.read_bytes()
    new = empty_home(tmp_path)
    with pytest.raises(Invalid, match="LLMASOS_BACKUP_PASSPHRASE"):
        restore_backup(backup, new.folder, new.url, None)
    with pytest.raises(WrongPassphrase):
        restore_backup(backup, new.folder, new.url, "another lamp")
    assert list(new.folder.iterdir()) == []


def test_a_backup_replaces_no_file_and_an_empty_home_has_none(sqlite_home: Home, backup: Path, tmp_path: Path) -> None:
    with pytest.raises(Conflict, match="choose another name"):
        make_backup(sqlite_home.folder, sqlite_home.url, backup, PASSPHRASE)
    with pytest.raises(NotFound, match="nothing to back up"):
        make_backup(tmp_path, f"sqlite:///{tmp_path / 'none.db'}", tmp_path / "c", PASSPHRASE)


def test_a_passphrase_costs_what_the_format_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert sealing._COST == 1 << 16
    sealed = sealing.seal(b"k" * 32, PASSPHRASE, b"the manifest")
    assert sealing.unseal(sealed, PASSPHRASE, b"the manifest") == b"k" * 32
    with pytest.raises(WrongPassphrase):
        sealing.unseal(sealed, PASSPHRASE, b"another manifest")
