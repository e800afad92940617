"""Reads a zip archive as strictly as possible.

The format (PKWARE APPNOTE 6.3.10, sections 4.3 and 4.4) lets the directory, the local headers and the bytes between
them disagree, and every reader resolves that differently. This reader accepts one form: entries back to back from
byte 0, each identical to its directory entry; then the directory; then its end record; then nothing. That leaves
no room for overlaps, prefixes, gaps, trailing data, comments, extra fields, descriptors or a second directory.
"""

from __future__ import annotations

import stat
import struct
import unicodedata
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from llmasos.bundles import layout
from llmasos.errors import BundleRejected
from llmasos.i18n import Message, _

LOCAL: Final = struct.Struct("<4s5H3I2H")
CENTRAL: Final = struct.Struct("<4s6H3I5H2I")
END: Final = struct.Struct("<4s4H2IH")
LOCAL_MAGIC: Final = b"PK\x03\x04"
CENTRAL_MAGIC: Final = b"PK\x01\x02"
END_MAGIC: Final = b"PK\x05\x06"
STORED: Final = 0
DEFLATED: Final = 8
UTF8_FLAG: Final = 0x800
ENCRYPTED_FLAGS: Final = 0x1 | 0x40 | 0x2000
DESCRIPTOR_FLAG: Final = 0x8
ZIP64_VERSION: Final = 45
CHUNK_BYTES: Final = 1 << 20
REBUILD: Final = _("build it again with `llmasos build`")


@dataclass(frozen=True, slots=True)
class ArchiveEntry:
    """One file, on which the directory and its local header agree."""

    name: str
    method: int
    crc: int
    packed_bytes: int
    size_bytes: int
    data_at: int


def unpack(data: bytes) -> dict[str, bytes]:
    """Return every file of a bundle, by name.

    Raises:
        BundleRejected: Anything about it is unusual; the message says what.
    """
    entries = list(_entries(data))
    _check_names([entry.name for entry in entries])
    declared = sum(entry.size_bytes for entry in entries)
    if declared > layout.MAX_UNPACKED_BYTES:
        raise BundleRejected(
            _(
                "the bundle unpacks to {declared_mib} MiB; the limit is {max_unpacked_mib} MiB",
                declared_mib=declared >> 20,
                max_unpacked_mib=layout.MAX_UNPACKED_BYTES >> 20,
            ),
        )
    return {entry.name: _inflate(data, entry) for entry in entries}


def _reject(what: Message) -> BundleRejected:
    return BundleRejected(_("the bundle {what}: {cure}", what=what, cure=REBUILD))


def _entries(data: bytes) -> Iterator[ArchiveEntry]:
    count, directory_at = _end(data)
    at, local_at = directory_at, 0
    for __ in range(count):
        entry, at, local_at = _entry(data, at, local_at)
        yield entry
    if local_at != directory_at:
        raise _reject(_("has bytes that belong to no file before its directory"))
    if at != len(data) - END.size:
        raise _reject(_("has a directory of another length than it says"))


def _end(data: bytes) -> tuple[int, int]:
    """Return the number of entries, and the offset of the directory."""
    if len(data) < END.size or not data.startswith((LOCAL_MAGIC, END_MAGIC)):
        raise BundleRejected(
            _("this is no bundle, or there is something before it: name a file that `llmasos build` made"),
        )
    magic, disk, first_disk, here, count, size, at, comment = END.unpack_from(data, len(data) - END.size)
    if magic != END_MAGIC:
        raise _reject(_("is cut short, or has a comment or other data after its end"))
    if 0xFFFF in {disk, first_disk, here, count} or 0xFFFFFFFF in {size, at}:
        raise _reject(_("uses zip64"))
    if count > layout.MAX_ENTRIES:
        raise BundleRejected(
            _(
                "the bundle holds {count} files; the limit is {max_entries}: leave some out",
                count=count,
                max_entries=layout.MAX_ENTRIES,
            ),
        )
    if disk or first_disk or here != count or comment:
        raise _reject(_("has an end record that contradicts itself"))
    if at + size + END.size != len(data):
        raise _reject(
            _("has a directory of another length than it says, or data after or before it"),
        )
    return count, at


def _entry(data: bytes, at: int, local_at: int) -> tuple[ArchiveEntry, int, int]:
    """Return the directory's entry at `at`, the offset of the next entry, and the required offset of the next file."""
    end = len(data) - END.size
    if at + CENTRAL.size > end or data[at : at + 4] != CENTRAL_MAGIC:
        raise _reject(_("has a broken directory"))
    fields = CENTRAL.unpack_from(data, at)
    (__, made_by, needed, flags, method, _time, _date, crc, packed, size, *_rest) = fields
    name_length, extra, comment, disk, _internal, external, offset = fields[10:]
    name_at = at + CENTRAL.size
    raw_name = data[name_at : name_at + name_length]
    if len(raw_name) != name_length or name_at + name_length > end:
        raise _reject(_("has a broken directory"))
    name = _decode_name(raw_name, flags)
    _check_flags(name, needed, flags, method)
    _check_plain(name, made_by, external)
    if 0xFFFFFFFF in {packed, size, offset} or disk == 0xFFFF:
        raise _reject(_("uses zip64"))
    if extra or comment or disk:
        raise _reject(_("has extra fields or comments at {name!r}", name=name))
    if offset != local_at:
        raise _reject(_("has files that overlap or leave gaps, at {name!r}", name=name))
    if local_at + LOCAL.size > len(data) or data[local_at : local_at + 4] != LOCAL_MAGIC:
        raise _reject(_("has no file where its directory says {name!r} is", name=name))
    local = LOCAL.unpack_from(data, local_at)
    data_at = local_at + LOCAL.size + name_length
    if local[1:-1] != (needed, flags, method, _time, _date, crc, packed, size, name_length) or local[-1]:
        raise _reject(_("says two things about {name!r}", name=name))
    if data[local_at + LOCAL.size : data_at] != raw_name:
        raise _reject(_("has two names for {name!r}", name=name))
    if data_at + packed > end:
        raise _reject(_("is cut short at {name!r}", name=name))
    return ArchiveEntry(name, method, crc, packed, size, data_at), name_at + name_length, data_at + packed


def _decode_name(raw: bytes, flags: int) -> str:
    try:
        return raw.decode("utf-8" if flags & UTF8_FLAG else "ascii")
    except UnicodeDecodeError:
        raise _reject(_("has a name that is not UTF-8: {raw!r}", raw=raw[:40])) from None


def _check_flags(name: str, needed: int, flags: int, method: int) -> None:
    if flags & ENCRYPTED_FLAGS:
        raise BundleRejected(
            _("{name!r} in the bundle is encrypted: bundles are readable by everyone", name=name),
        )
    if flags & DESCRIPTOR_FLAG:
        raise _reject(_("gives the size of {name!r} only after its data", name=name))
    if flags & ~UTF8_FLAG:
        raise _reject(_("has unknown flags at {name!r}", name=name))
    if needed >= ZIP64_VERSION:
        raise _reject(_("uses zip64 or a later format"))
    if method not in {STORED, DEFLATED}:
        raise _reject(
            _("packs {name!r} by method {method}, which is neither stored nor deflated", name=name, method=method),
        )


def _check_plain(name: str, made_by: int, external: int) -> None:
    kind = stat.S_IFMT(external >> 16)
    if name.endswith("/") or external & 0x10 or kind == stat.S_IFDIR:
        raise _reject(_("has an entry for the folder {name!r}", name=name))
    if kind not in {0, stat.S_IFREG} or (made_by >> 8 not in {0, 3}):
        raise _reject(
            _("has {name!r} as a link or device; it holds plain files only", name=name),
        )


def _check_names(names: list[str]) -> None:
    seen: dict[str, str] = {}
    for name in names:
        _check_name(name)
        # Names that some file systems treat as equal: the same letters composed differently, or in another case.
        key = unicodedata.normalize("NFC", unicodedata.normalize("NFKC", name).casefold())
        if key in seen:
            if seen[key] == name:
                raise _reject(_("has {name!r} twice", name=name))
            raise _reject(
                _("has {name!r} as {seen!r} too, which some systems take for the same file", name=name, seen=seen[key]),
            )
        seen[key] = name
    for key, name in seen.items():
        parts = key.split("/")
        if any("/".join(parts[:depth]) in seen for depth in range(1, len(parts))):
            raise _reject(_("has {name!r} inside something that is a file", name=name))


def _check_name(name: str) -> None:
    parts = name.split("/")
    if name.startswith("/") or "\\" in name or ":" in name:
        raise _reject(
            _("has the name {name!r}, which is absolute or names a drive or a stream", name=name),
        )
    if any(part in {"", ".", ".."} for part in parts):
        raise _reject(
            _("has the name {name!r}, which leads outside of it or is no plain path", name=name),
        )
    if unicodedata.normalize("NFC", name) != name:
        raise _reject(
            _("has the name {name!r}, which is not in Unicode's composed form (NFC)", name=name),
        )
    if any(unicodedata.category(letter)[0] == "C" for letter in name) or any(p != p.strip(" .") for p in parts):
        raise _reject(
            _("has the name {name!r}, with invisible letters or a dot or space at an end", name=name),
        )
    if len(name.encode()) > layout.MAX_NAME_BYTES:
        raise _reject(
            _(
                "has a name of over {max_name_bytes} bytes: {name!r}…",
                max_name_bytes=layout.MAX_NAME_BYTES,
                name=name[:40],
            ),
        )


def _inflate(data: bytes, entry: ArchiveEntry) -> bytes:
    """Inflate an entry, counting its bytes, which must match the sizes in its headers."""
    packed = memoryview(data)[entry.data_at : entry.data_at + entry.packed_bytes]
    limit = max(layout.RATIO_FREE_BYTES, entry.packed_bytes * layout.MAX_RATIO)
    if entry.size_bytes > limit:
        raise BundleRejected(
            _(
                "{entry!r} in the bundle unpacks to over {max_ratio} times its size: {rebuild}",
                entry=entry.name,
                max_ratio=layout.MAX_RATIO,
                rebuild=REBUILD,
            ),
        )
    content = bytes(packed) if entry.method == STORED else _deflated(packed, entry)
    if len(content) != entry.size_bytes:
        raise _reject(_("gives a wrong size for {entry!r}", entry=entry.name))
    if zlib.crc32(content) != entry.crc:
        raise _reject(_("is damaged at {entry!r}: its checksum is wrong", entry=entry.name))
    return content


def _deflated(packed: memoryview, entry: ArchiveEntry) -> bytes:
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    parts: list[bytes] = []
    size = 0
    waiting: bytes | memoryview = packed
    try:
        while not inflater.eof:
            # One byte beyond the declared size proves that the header lied.
            part = inflater.decompress(waiting, min(CHUNK_BYTES, entry.size_bytes + 1 - size))
            size += len(part)
            parts.append(part)
            waiting = inflater.unconsumed_tail
            if size > entry.size_bytes:
                raise _reject(_("gives a wrong size for {entry!r}", entry=entry.name))
            if not part and not inflater.eof:
                raise _reject(_("is cut short at {entry!r}", entry=entry.name))
    except zlib.error:
        raise _reject(_("is damaged at {entry!r}", entry=entry.name)) from None
    if inflater.unused_data or inflater.unconsumed_tail:
        raise _reject(_("has bytes after the end of {entry!r}", entry=entry.name))
    return b"".join(parts)
