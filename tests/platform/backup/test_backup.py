"""A home goes into one file and comes back whole, between both kinds of database, or not at all."""

import hashlib
import json
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from sqlmodel import col, select

from llmasos.backup import archive
from llmasos.backup.archive import BackupRejected
from llmasos.backup.make import make_backup
from llmasos.backup.restore import finish_restore, read_backup, restore_backup
from llmasos.backup.sealing import WrongPassphrase, seal
from llmasos.bundles.testing import bundle_files, manifest_text
from llmasos.bundles.writer import write_bundle
from llmasos.database.engine import Database
from llmasos.database.leases import HostLease
from llmasos.database.schema import PENDING_RESTORE, ensure_schema, migrate_to, newest_revision
from llmasos.errors import Conflict, Invalid, LlmasosError, NotFound, Unavailable
from llmasos.kernel import audit
from llmasos.kernel.tables import AuditEntry
from llmasos.secrets import SecretOwner, Secrets
from llmasos_marketplace.catalog.service import Catalog
from llmasos_marketplace.catalog.store import BundleStore
from llmasos_marketplace.catalog.tables import Release
from llmasos_marketplace.catalog.testing import add_bundle

OWNER = SecretOwner("default", "you")
PASSPHRASE = "a lamp, a lens, a long night"


class Home:
    """A home with a release, a secret, a setting and an audit log."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder, self.url = folder, url
        folder.mkdir(exist_ok=True)

    def fill(self, tmp_path: Path) -> None:
        ensure_schema(self.url, self.folder)
        bundle = tmp_path / f"{self.folder.name}.llmapp"
        write_bundle(bundle_files(manifest_text("acme/greeter")), bundle)
        with Database(self.url) as database:
            add_bundle(Catalog(database, BundleStore(self.folder / "bundles")), bundle)
            with database.write() as session:
                Secrets(self.folder).set(session, OWNER, "api_key", "open sesame")
        code = self.folder / "code" / ("a" * 64)
        code.mkdir(parents=True)
        (code / "app.wasm").write_bytes(b"\0asm")
        (self.folder / "config.toml").write_text('native_runners = 7\ndatabase_url = "sqlite:///elsewhere"\n')

    def contents(self) -> dict[str, object]:
        """All that must come back."""
        with Database(self.url) as database, database.read() as session:
            entries = session.exec(select(AuditEntry).order_by(col(AuditEntry.hash))).all()
            return {
                "secret": Secrets(self.folder).value(session, OWNER, "api_key"),
                "audit": [entry.hash for entry in entries],
                "intact": audit.verify(session).intact,
                "releases": [
                    (row.version, row.digest, row.published_at.replace(tzinfo=None))
                    for row in session.exec(select(Release))
                ],
                "bundles": sorted(path.name for path in (self.folder / "bundles").glob("*.llmapp")),
                "code": sorted(path.parent.name for path in (self.folder / "code").glob("*/app.wasm")),
            }


@pytest.fixture
def home(tmp_path: Path, database_url: str) -> Home:
    filled = Home(tmp_path / "home", database_url)
    filled.fill(tmp_path)
    return filled


@pytest.fixture
def sqlite_home(tmp_path: Path) -> Home:
    filled = Home(tmp_path / "sqlite", f"sqlite:///{tmp_path / 'sqlite' / 'llmasos.db'}")
    filled.fill(tmp_path)
    return filled


@pytest.fixture
def backup(sqlite_home: Home, tmp_path: Path) -> Path:
    return make_backup(sqlite_home.folder, sqlite_home.url, tmp_path / "b.llmbackup", PASSPHRASE).path


def empty_home(tmp_path: Path) -> Home:
    folder = tmp_path / "restored"
    return Home(folder, f"sqlite:///{folder / 'llmasos.db'}")


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


def test_a_home_in_use_is_refused(backup: Path, home: Home) -> None:
    with Database(home.url) as database, database.write() as session:
        session.add(HostLease(id="x", machine="another", pid=1, born="", expires_at=int(time.time()) + 60))
    with pytest.raises(Conflict, match="stop llmasos serve"):
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
    assert b"api_key" in backup.read_bytes()  # the rows are there, and
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


# Hostile files.


def rewrite(
    backup: Path,
    tmp_path: Path,
    change: Callable[[archive.BackupManifest], archive.BackupManifest],
    contents: dict[str, bytes] | None = None,
) -> Path:
    """A backup with another manifest, and with other contents of some files."""
    with tarfile.open(backup) as tar:
        held = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
    held.update(contents or {})
    manifest = change(read_backup(backup))
    manifest = replace(manifest, secrets_key=seal(b"k", PASSPHRASE, manifest.authenticated()))
    target = tmp_path / "rewritten.llmbackup"
    files = []
    for entry in manifest.files:
        path = tmp_path / f"part{len(files)}"
        path.write_bytes(held.get(entry.name, b"")[: entry.size_bytes].ljust(entry.size_bytes, b"\0"))
        files.append((entry, path))
    with target.open("wb") as file:
        archive.write(file, manifest, files)
    return target


def named(name: str) -> Callable[[archive.BackupManifest], archive.BackupManifest]:
    empty = archive.ArchiveEntry(name, 0, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")
    return lambda manifest: replace(manifest, files=(*manifest.files, empty))


@pytest.mark.parametrize(
    "name",
    [
        "../evil",
        "/etc/passwd",
        "bundles/../../evil",
        "code/" + "a" * 64 + "/../evil",
        "code/" + "a" * 64 + "/.hidden",
        "secret.key",
        "llmasos.db",
        "rows/../x.jsonl",
        "bundles/" + "A" * 64 + ".llmapp",
        "bundles/" + "a" * 64 + ".llmapp",  # whose content has another digest
        "config.toml\n",
        "",
    ],
)
def test_a_name_that_leads_elsewhere_is_refused(name: str, backup: Path, tmp_path: Path) -> None:
    hostile = rewrite(backup, tmp_path, named(name)) if name else backup
    new = empty_home(tmp_path)
    if not name:
        hostile.write_bytes(backup.read_bytes().replace(b"backup.json", b"backup.jsoX", 1))
    with pytest.raises(BackupRejected):
        restore_backup(hostile, new.folder, new.url, PASSPHRASE)
    assert not any(tmp_path.glob("evil*"))
    assert list(new.folder.iterdir()) == []


def test_a_file_listed_twice_is_refused(backup: Path, tmp_path: Path) -> None:
    hostile = rewrite(backup, tmp_path, lambda m: replace(m, files=(*m.files, m.files[0])))
    with pytest.raises(BackupRejected, match="twice"):
        read_backup(hostile)


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE, b"x", b"L", b"S"]
)
def test_anything_but_a_regular_file_is_refused(kind: bytes, backup: Path, tmp_path: Path) -> None:
    content = bytearray(backup.read_bytes())
    start = content.index(b"config.toml\0")
    info = tarfile.TarInfo.frombuf(bytes(content[start : start + 512]), "utf-8", "strict")
    info.type, info.linkname = kind, "/etc/passwd"
    content[start : start + 512] = info.tobuf(tarfile.USTAR_FORMAT)
    backup.write_bytes(content)
    new = empty_home(tmp_path)
    with pytest.raises(BackupRejected):
        restore_backup(backup, new.folder, new.url, PASSPHRASE)
    assert list(new.folder.iterdir()) == []


@pytest.mark.parametrize("at", [0, 300, 5000, -2000, -1])
def test_a_file_that_ends_early_or_is_changed_is_refused(at: int, backup: Path, tmp_path: Path) -> None:
    content = backup.read_bytes()
    new = empty_home(tmp_path)
    for damaged in (content[:at], content[:at] + bytes([content[at] ^ 0xFF]) + content[at:][1:], content + b"more"):
        backup.write_bytes(damaged)
        with pytest.raises((BackupRejected, WrongPassphrase)):
            restore_backup(backup, new.folder, new.url, PASSPHRASE)
    assert list(new.folder.iterdir()) == []


def test_a_list_of_contents_without_an_end_is_not_read_into_memory(tmp_path: Path) -> None:
    info = tarfile.TarInfo("backup.json")
    info.size = archive.MAX_MANIFEST_BYTES + 1
    path = tmp_path / "huge"
    path.write_bytes(info.tobuf(tarfile.USTAR_FORMAT))
    with pytest.raises(BackupRejected, match="no list of its contents"):
        read_backup(path)


@pytest.mark.parametrize("text", ["[" * 100_000, "{}", "null", '{"format": 2}', '{"format": 1}', "\xff"])
def test_a_list_of_contents_that_makes_no_sense_is_refused(text: str, tmp_path: Path) -> None:
    content = text.encode("latin-1")
    info = tarfile.TarInfo("backup.json")
    info.size = len(content)
    path = tmp_path / "odd"
    path.write_bytes(info.tobuf(tarfile.USTAR_FORMAT) + content + bytes(-len(content) % 512))
    with pytest.raises(BackupRejected):
        read_backup(path)


@pytest.mark.parametrize(
    "line", [b'["x"]\n', b"{}\n", b"[" * 100_000 + b"\n", b"no end", b"[null, null, null, null, null]\n"]
)
def test_a_row_that_does_not_fit_its_table_is_refused(line: bytes, backup: Path, tmp_path: Path) -> None:
    def change(manifest: archive.BackupManifest) -> archive.BackupManifest:
        return replace(
            manifest,
            files=tuple(
                replace(entry, size_bytes=len(line), sha256=hashlib.sha256(line).hexdigest())
                if entry.name == "rows/secret.jsonl"
                else entry
                for entry in manifest.files
            ),
        )

    hostile = rewrite(backup, tmp_path, change, {"rows/secret.jsonl": line})
    new = empty_home(tmp_path)
    with pytest.raises(BackupRejected):
        restore_backup(hostile, new.folder, new.url, PASSPHRASE)
    assert list(new.folder.iterdir()) == []


# Kill -9.

# Restores into copies of a home, one process for each: the n-th is killed before its n-th change of the disk.
KILL_AT_EACH_STEP = """
import os, shutil, signal, sys
from pathlib import Path
from llmasos.backup import restore
backup, home, passphrase = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
steps_left = 0

def counted(owner, name):
    original = getattr(owner, name)
    def wrapped(*args, **kwargs):
        global steps_left
        steps_left -= 1
        if steps_left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args, **kwargs)
    setattr(owner, name, wrapped)

for owner, name in ((Path, "rename"), (Path, "replace"), (os, "fsync")):
    counted(owner, name)
for step in range(100):
    copy = home.with_name(f"killed{step:02}")
    shutil.copytree(home, copy)
    child = os.fork()
    if child == 0:
        steps_left = step
        restore.restore_backup(backup, copy, f"sqlite:///{copy / 'llmasos.db'}", passphrase, replace=True)
        os._exit(0)
    if os.waitpid(child, 0)[1] == 0:
        break
"""


def test_killed_at_any_step_the_home_is_the_old_or_the_new_one(backup: Path, sqlite_home: Home, tmp_path: Path) -> None:
    new = sqlite_home.contents()
    with Database(sqlite_home.url) as database, database.write() as session:
        Secrets(sqlite_home.folder).set(session, OWNER, "api_key", "older")
    old = sqlite_home.contents()
    words = [sys.executable, "-c", KILL_AT_EACH_STEP, str(backup), str(sqlite_home.folder), PASSPHRASE]
    subprocess.run(words, check=True)
    killed = [Home(path, f"sqlite:///{path / 'llmasos.db'}") for path in sorted(tmp_path.glob("killed*"))]
    committed = []
    for home in killed:
        pending = (home.folder / PENDING_RESTORE).is_dir()
        if pending:
            with pytest.raises(Unavailable, match="next command finishes it"):
                ensure_schema(home.url, home.folder)
            assert finish_restore(home.folder, home.url)
        found = home.contents()
        assert found in (old, new), home.folder
        committed.append(found == new)
    assert committed == sorted(committed), "a restore that was committed stays so"
    assert committed.count(False) > 5
    assert committed.count(True) > 5


def test_killed_between_rows_a_postgresql_database_is_the_old_one_until_the_restore_is_finished(
    backup: Path, sqlite_home: Home, home: Home, tmp_path: Path
) -> None:
    with Database(home.url) as database, database.write() as session:
        Secrets(home.folder).set(session, OWNER, "api_key", "older")
    old = home.contents()["secret"], home.contents()["audit"]
    script = """
import os, signal, sys
from pathlib import Path
from llmasos.backup import restore
restore._without_triggers = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
restore.shutil.copyfileobj = restore._without_triggers
restore.restore_backup(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4], replace=True)
"""
    words = [sys.executable, "-c", script, str(backup), str(home.folder), home.url, PASSPHRASE]
    assert subprocess.run(words, check=False).returncode == -signal.SIGKILL
    with Database(home.url) as database, database.read() as session:
        entries = session.exec(select(AuditEntry).order_by(col(AuditEntry.hash))).all()
    assert [entry.hash for entry in entries] == old[1]
    assert finish_restore(home.folder, home.url)
    assert home.contents()["audit"] == sqlite_home.contents()["audit"]
    assert home.contents()["secret"] == "open sesame"


def test_an_interrupted_restore_waits_for_the_database_that_it_was_for(
    tmp_path: Path,
) -> None:
    new = empty_home(tmp_path)
    (new.folder / PENDING_RESTORE).mkdir()
    (new.folder / PENDING_RESTORE / "target.json").write_text(json.dumps({"database": "another"}))
    with pytest.raises(LlmasosError, match="into another database"):
        finish_restore(new.folder, new.url)
