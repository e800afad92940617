"""Backups that were modified or truncated."""

import hashlib
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from tests.platform.backup.homes import PASSPHRASE, empty_home, rewrite

from llmasos.backup import archive
from llmasos.backup.archive import BackupRejected
from llmasos.backup.restore import read_backup, restore_backup
from llmasos.backup.sealing import WrongPassphrase


def named(name: str) -> Callable[[archive.BackupManifest], archive.BackupManifest]:
    empty = archive.BackupEntry(name, 0, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")
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
