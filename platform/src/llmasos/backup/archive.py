"""The file of a backup: a plain, uncompressed tar archive that any `tar` lists.

    backup.json              what is in it: `BackupManifest`
    config.toml              the operator's settings, if there are any
    rows/TABLE.jsonl         the rows of one table, one JSON array a line
    bundles/DIGEST.llmapp    the catalog's bundles
    code/DIGEST/NAME         what installed apps run

The reader trusts nothing. The manifest comes first and is bounded; after it come exactly the files that it lists, in
its order, as regular files of exactly their sizes and digests, under names of these five shapes, and nothing after
them. So no link, no path and no extended header is ever followed, and as nothing is compressed, nothing inflates: what
is read is never larger than the file itself.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final

from llmasos.errors import Invalid
from llmasos.i18n import Message, _

FORMAT: Final = 1
MANIFEST: Final = "backup.json"
CONFIG: Final = "config.toml"
MAX_MANIFEST_BYTES: Final = 64 << 20
_BLOCK: Final = tarfile.BLOCKSIZE
_CHUNK_BYTES: Final = 1 << 20
_NAME: Final = re.compile(
    r"config\.toml"
    r"|rows/[a-z][a-z0-9_]{0,62}\.jsonl"
    r"|bundles/(?P<bundle>[0-9a-f]{64})\.llmapp"
    r"|code/[0-9a-f]{64}/[A-Za-z0-9_][A-Za-z0-9._+!-]{0,199}"
)


class BackupRejected(Invalid):
    """The file is not a backup, or is damaged."""

    code = "backup-rejected"


@dataclass(frozen=True, slots=True)
class BackupEntry:
    """One file of a backup."""

    name: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class TableRows:
    """One table of a backup."""

    columns: tuple[str, ...]
    rows: int
    next_id: int | None = None
    """What the next generated id is at least, so that no id is given twice; None without generated ids."""


@dataclass(frozen=True, slots=True)
class SealedKey:
    """The secrets' key, encrypted: hexadecimal scrypt salt, AES-GCM nonce and ciphertext."""

    salt: str
    nonce: str
    ciphertext: str


@dataclass(frozen=True, slots=True)
class BackupManifest:
    """What a backup holds."""

    made_at: str
    llmasos: str
    """The version of LLMasOS that made it."""
    schema: str
    """The revision of the database's schema."""
    files: tuple[BackupEntry, ...]
    tables: dict[str, TableRows]
    secrets_key: SealedKey | None = None
    format: int = field(default=FORMAT)

    def authenticated(self) -> bytes:
        """What the sealed key authenticates: the whole manifest except itself, and so every file's digest."""
        content = asdict(self)
        content.pop("secrets_key")
        return json.dumps(content, sort_keys=True).encode()


def describe(name: str, path: Path) -> BackupEntry:
    """The entry of a file that goes into a backup."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return BackupEntry(name, file.tell(), digest)


def write(target: BinaryIO, manifest: BackupManifest, files: Iterable[tuple[BackupEntry, Path]]) -> None:
    """Write a backup.

    Args:
        target: The stream to write to.
        manifest: The list of its contents.
        files: Its entries in their order, each with the file that has its content.

    Raises:
        OSError: A file was changed in the meantime, or cannot be read or written.
    """
    content = json.dumps(asdict(manifest), indent=1).encode()
    _write_file(target, MANIFEST, len(content), io.BytesIO(content))
    for entry, path in files:
        with path.open("rb") as file:
            _write_file(target, entry.name, entry.size_bytes, file)
    target.write(bytes(2 * _BLOCK))


def _write_file(target: BinaryIO, name: str, size: int, content: BinaryIO) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o600
    target.write(info.tobuf(tarfile.GNU_FORMAT if size >= 1 << 33 else tarfile.USTAR_FORMAT))
    left = size
    while chunk := content.read(min(left, _CHUNK_BYTES)):
        target.write(chunk)
        left -= len(chunk)
    if left or content.read(1):
        raise OSError(f"{name} changed while it was read")
    target.write(bytes(-size % _BLOCK))


def read_manifest(source: BinaryIO) -> BackupManifest:
    """Read a backup's manifest.

    Raises:
        BackupRejected: The file is not a backup, or has a newer format.
    """
    size = _next_file(source, MANIFEST)
    if size is None or size > MAX_MANIFEST_BYTES:
        raise _damaged(_("it has no list of its contents"))
    content = _exactly(source, size)
    _skip_padding(source, size)
    try:
        value: Any = json.loads(content)
        version = value["format"]
        if version == FORMAT:
            return _manifest(value)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _damaged(_("its list of contents cannot be read")) from error
    raise BackupRejected(
        _(
            "This backup has format {version}, and this LLMasOS reads format {format}: upgrade LLMasOS.",
            version=f"{version!r:.20}",
            format=FORMAT,
        ),
    )


def _manifest(value: dict[str, Any]) -> BackupManifest:
    files = tuple(BackupEntry(_text(e["name"]), _count(e["size_bytes"]), _text(e["sha256"])) for e in value["files"])
    names = [entry.name for entry in files]
    if len(set(names)) != len(names):
        raise _damaged(_("it lists a file twice"))
    for entry in files:
        matched = _NAME.fullmatch(entry.name)
        if matched is None or (matched["bundle"] or entry.sha256) != entry.sha256:
            raise _damaged(_("it lists a file of no known kind, {name!r}", name=entry.name[:80]))
    tables = {
        _text(name): TableRows(
            tuple(_text(column) for column in table["columns"]),
            _count(table["rows"]),
            None if table["next_id"] is None else _count(table["next_id"]),
        )
        for name, table in value["tables"].items()
    }
    if {f"rows/{name}.jsonl" for name in tables} != {name for name in names if name.startswith("rows/")}:
        raise _damaged(_("its tables and its files differ"))
    key = value["secrets_key"]
    sealed = None if key is None else SealedKey(*(_text(key[part]) for part in ("salt", "nonce", "ciphertext")))
    made_at, version, schema = (_text(value[part]) for part in ("made_at", "llmasos", "schema"))
    return BackupManifest(made_at, version, schema, files, tables, sealed)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _count(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 63:
        raise TypeError
    return value


def read_files(source: BinaryIO, manifest: BackupManifest, take: Callable[[str], BinaryIO]) -> None:
    """Read the files of a backup after its manifest, and check each one's size and digest.

    Args:
        source: The stream, at the position where `read_manifest` stopped.
        manifest: What `read_manifest` returned.
        take: Returns where to write a file, by its name.

    Raises:
        BackupRejected: The contents differ from the manifest.
    """
    for entry in manifest.files:
        if _next_file(source, entry.name) != entry.size_bytes:
            raise _damaged(_("{name} is not where it should be", name=entry.name))
        digest = hashlib.sha256()
        with take(entry.name) as target:
            for chunk in _chunks(source, entry.size_bytes):
                digest.update(chunk)
                target.write(chunk)
        if digest.hexdigest() != entry.sha256:
            raise _damaged(_("{name} has other contents than were written", name=entry.name))
        _skip_padding(source, entry.size_bytes)
    if _next_file(source, "") is not None or source.read(_BLOCK + 1) != bytes(_BLOCK):
        raise _damaged(_("it does not end after its last file"))


def _next_file(source: BinaryIO, name: str) -> int | None:
    """The size of the next file, which must be called `name`; None at the end of the archive."""
    header = _exactly(source, _BLOCK)
    if not any(header):
        return None
    try:
        info = tarfile.TarInfo.frombuf(header, "utf-8", "strict")
    except (tarfile.HeaderError, ValueError) as error:
        raise _damaged(_("it is no archive of files")) from error
    if info.type != tarfile.REGTYPE or info.name != name:
        raise _damaged(_("{name!r} does not belong there", name=info.name[:80]))
    return info.size


def _exactly(source: BinaryIO, size: int) -> bytes:
    return b"".join(_chunks(source, size))


def _chunks(source: BinaryIO, size: int) -> Iterator[bytes]:
    while size:
        chunk = source.read(min(size, _CHUNK_BYTES))
        if not chunk:
            raise _damaged(_("it ends too early"))
        size -= len(chunk)
        yield chunk


def _skip_padding(source: BinaryIO, size: int) -> None:
    if any(_exactly(source, -size % _BLOCK)):
        raise _damaged(_("there is something between its files"))


def _damaged(why: Message) -> BackupRejected:
    return BackupRejected(
        _("This is not a backup of LLMasOS, or it is damaged: {why}. Nothing was changed.", why=why),
    )
