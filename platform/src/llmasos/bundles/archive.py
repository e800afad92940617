"""A zip, read as strictly as it can be.

The format (PKWARE APPNOTE 6.3.10, sections 4.3 and 4.4) lets the directory, the local headers and the bytes between
them disagree, and every reader resolves that differently. Here there is one reading: entries stand back to back from
byte 0, each exactly as the directory repeats it; then the directory; then its end record; then nothing. That leaves
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
REBUILD: Final = "build it again with `llmasos build`"
REBUILD_ZH: Final = "请用 `llmasos build` 重新构建"


@dataclass(frozen=True, slots=True)
class ArchiveEntry:
    """One file, as the directory and its local header agree on it."""

    name: str
    method: int
    crc: int
    packed_bytes: int
    size_bytes: int
    data_at: int


def unpack(data: bytes) -> dict[str, bytes]:
    """Every file of a bundle, by name.

    Raises:
        BundleRejected: Anything about it is unusual, with what.
    """
    entries = list(_entries(data))
    _check_names([entry.name for entry in entries])
    declared = sum(entry.size_bytes for entry in entries)
    if declared > layout.MAX_UNPACKED_BYTES:
        raise BundleRejected(
            f"the bundle unpacks to {declared >> 20} MiB; the limit is {layout.MAX_UNPACKED_BYTES >> 20} MiB",
            zh=f"应用包解压后为 {declared >> 20} MiB；上限为 {layout.MAX_UNPACKED_BYTES >> 20} MiB",
        )
    return {entry.name: _inflate(data, entry) for entry in entries}


def _reject(what: str, zh: str) -> BundleRejected:
    return BundleRejected(f"the bundle {what}: {REBUILD}", zh=f"应用包{zh}：{REBUILD_ZH}")


def _entries(data: bytes) -> Iterator[ArchiveEntry]:
    count, directory_at = _end(data)
    at, local_at = directory_at, 0
    for _ in range(count):
        entry, at, local_at = _entry(data, at, local_at)
        yield entry
    if local_at != directory_at:
        raise _reject("has bytes that belong to no file before its directory", "的目录之前有不属于任何文件的字节")
    if at != len(data) - END.size:
        raise _reject("has a directory of another length than it says", "的目录长度与其声明不符")


def _end(data: bytes) -> tuple[int, int]:
    """The number of entries, and the offset of the directory."""
    if len(data) < END.size or not data.startswith((LOCAL_MAGIC, END_MAGIC)):
        raise BundleRejected(
            "this is no bundle, or there is something before it: name a file that `llmasos build` made",
            zh="这不是应用包，或文件开头有多余内容：请指定由 `llmasos build` 生成的文件",
        )
    magic, disk, first_disk, here, count, size, at, comment = END.unpack_from(data, len(data) - END.size)
    if magic != END_MAGIC:
        raise _reject(
            "is cut short, or has a comment or other data after its end", "被截断，或末尾之后有注释或其他数据"
        )
    if 0xFFFF in {disk, first_disk, here, count} or 0xFFFFFFFF in {size, at}:
        raise _reject("uses zip64", "使用了 zip64")
    if count > layout.MAX_ENTRIES:
        raise BundleRejected(
            f"the bundle holds {count} files; the limit is {layout.MAX_ENTRIES}: leave some out",
            zh=f"应用包中有 {count} 个文件；上限为 {layout.MAX_ENTRIES} 个：请去掉一些",
        )
    if disk or first_disk or here != count or comment:
        raise _reject("has an end record that contradicts itself", "的结尾记录自相矛盾")
    if at + size + END.size != len(data):
        raise _reject(
            "has a directory of another length than it says, or data after or before it",
            "的目录长度与其声明不符，或其前后有多余数据",
        )
    return count, at


def _entry(data: bytes, at: int, local_at: int) -> tuple[ArchiveEntry, int, int]:
    """The directory's entry at `at`, the offset of the next entry, and the offset at which the next file must begin."""
    end = len(data) - END.size
    if at + CENTRAL.size > end or data[at : at + 4] != CENTRAL_MAGIC:
        raise _reject("has a broken directory", "的目录已损坏")
    fields = CENTRAL.unpack_from(data, at)
    (_, made_by, needed, flags, method, _time, _date, crc, packed, size, *_rest) = fields
    name_length, extra, comment, disk, _internal, external, offset = fields[10:]
    name_at = at + CENTRAL.size
    raw_name = data[name_at : name_at + name_length]
    if len(raw_name) != name_length or name_at + name_length > end:
        raise _reject("has a broken directory", "的目录已损坏")
    name = _decode_name(raw_name, flags)
    _check_flags(name, needed, flags, method)
    _check_plain(name, made_by, external)
    if 0xFFFFFFFF in {packed, size, offset} or disk == 0xFFFF:
        raise _reject("uses zip64", "使用了 zip64")
    if extra or comment or disk:
        raise _reject(f"has extra fields or comments at {name!r}", f"在 {name!r} 处有附加字段或注释")
    if offset != local_at:
        raise _reject(f"has files that overlap or leave gaps, at {name!r}", f"在 {name!r} 处有重叠的文件或空隙")
    if local_at + LOCAL.size > len(data) or data[local_at : local_at + 4] != LOCAL_MAGIC:
        raise _reject(f"has no file where its directory says {name!r} is", f"的目录指向 {name!r}，而该处没有文件")
    local = LOCAL.unpack_from(data, local_at)
    data_at = local_at + LOCAL.size + name_length
    if local[1:-1] != (needed, flags, method, _time, _date, crc, packed, size, name_length) or local[-1]:
        raise _reject(f"says two things about {name!r}", f"对 {name!r} 的描述前后不一")
    if data[local_at + LOCAL.size : data_at] != raw_name:
        raise _reject(f"has two names for {name!r}", f"为 {name!r} 给出了两个名称")
    if data_at + packed > end:
        raise _reject(f"is cut short at {name!r}", f"在 {name!r} 处被截断")
    return ArchiveEntry(name, method, crc, packed, size, data_at), name_at + name_length, data_at + packed


def _decode_name(raw: bytes, flags: int) -> str:
    try:
        return raw.decode("utf-8" if flags & UTF8_FLAG else "ascii")
    except UnicodeDecodeError:
        raise _reject(f"has a name that is not UTF-8: {raw[:40]!r}", f"中有文件名不是 UTF-8：{raw[:40]!r}") from None


def _check_flags(name: str, needed: int, flags: int, method: int) -> None:
    if flags & ENCRYPTED_FLAGS:
        raise BundleRejected(
            f"{name!r} in the bundle is encrypted: bundles are readable by everyone",
            zh=f"应用包中的 {name!r} 已加密：应用包须人人可读",
        )
    if flags & DESCRIPTOR_FLAG:
        raise _reject(f"gives the size of {name!r} only after its data", f"在数据之后才给出 {name!r} 的大小")
    if flags & ~UTF8_FLAG:
        raise _reject(f"has unknown flags at {name!r}", f"在 {name!r} 处有未知标志")
    if needed >= ZIP64_VERSION:
        raise _reject("uses zip64 or a later format", "使用了 zip64 或更新的格式")
    if method not in {STORED, DEFLATED}:
        raise _reject(
            f"packs {name!r} by method {method}, which is neither stored nor deflated",
            f"以方法 {method} 压缩 {name!r}，只支持存储和 deflate",
        )


def _check_plain(name: str, made_by: int, external: int) -> None:
    kind = stat.S_IFMT(external >> 16)
    if name.endswith("/") or external & 0x10 or kind == stat.S_IFDIR:
        raise _reject(f"has an entry for the folder {name!r}", f"中有目录条目 {name!r}")
    if kind not in {0, stat.S_IFREG} or (made_by >> 8 not in {0, 3}):
        raise _reject(
            f"has {name!r} as a link or device; it holds plain files only",
            f"中的 {name!r} 是链接或设备，只能包含普通文件",
        )


def _check_names(names: list[str]) -> None:
    seen: dict[str, str] = {}
    for name in names:
        _check_name(name)
        # Names that some file systems take for one: the same letters composed differently, or in another case.
        key = unicodedata.normalize("NFC", unicodedata.normalize("NFKC", name).casefold())
        if key in seen:
            if seen[key] == name:
                raise _reject(f"has {name!r} twice", f"中的 {name!r} 出现了两次")
            raise _reject(
                f"has {name!r} as {seen[key]!r} too, which some systems take for the same file",
                f"中的 {name!r} 与 {seen[key]!r} 会被某些系统视为同一文件",
            )
        seen[key] = name
    for key, name in seen.items():
        parts = key.split("/")
        if any("/".join(parts[:depth]) in seen for depth in range(1, len(parts))):
            raise _reject(f"has {name!r} inside something that is a file", f"中的 {name!r} 位于一个文件之下")


def _check_name(name: str) -> None:
    parts = name.split("/")
    if name.startswith("/") or "\\" in name or ":" in name:
        raise _reject(
            f"has the name {name!r}, which is absolute or names a drive or a stream",
            f"中的名称 {name!r} 是绝对路径，或含有盘符或流名",
        )
    if any(part in {"", ".", ".."} for part in parts):
        raise _reject(
            f"has the name {name!r}, which leads outside of it or is no plain path",
            f"中的名称 {name!r} 指向包外，或不是普通路径",
        )
    if unicodedata.normalize("NFC", name) != name:
        raise _reject(
            f"has the name {name!r}, which is not in Unicode's composed form (NFC)",
            f"中的名称 {name!r} 不是 Unicode 组合形式（NFC）",
        )
    if any(unicodedata.category(letter)[0] == "C" for letter in name) or any(p != p.strip(" .") for p in parts):
        raise _reject(
            f"has the name {name!r}, with invisible letters or a dot or space at an end",
            f"中的名称 {name!r} 含不可见字符，或以点或空格结尾",
        )
    if len(name.encode()) > layout.MAX_NAME_BYTES:
        raise _reject(
            f"has a name of over {layout.MAX_NAME_BYTES} bytes: {name[:40]!r}…",
            f"中有名称超过 {layout.MAX_NAME_BYTES} 字节：{name[:40]!r}…",
        )


def _inflate(data: bytes, entry: ArchiveEntry) -> bytes:
    """The bytes of an entry, counted as they are inflated; the sizes in its headers must match."""
    packed = memoryview(data)[entry.data_at : entry.data_at + entry.packed_bytes]
    limit = max(layout.RATIO_FREE_BYTES, entry.packed_bytes * layout.MAX_RATIO)
    if entry.size_bytes > limit:
        raise BundleRejected(
            f"{entry.name!r} in the bundle unpacks to over {layout.MAX_RATIO} times its size: {REBUILD}",
            zh=f"应用包中的 {entry.name!r} 解压后超过其大小的 {layout.MAX_RATIO} 倍：{REBUILD_ZH}",
        )
    content = bytes(packed) if entry.method == STORED else _deflated(packed, entry)
    if len(content) != entry.size_bytes:
        raise _reject(f"gives a wrong size for {entry.name!r}", f"给出的 {entry.name!r} 的大小有误")
    if zlib.crc32(content) != entry.crc:
        raise _reject(f"is damaged at {entry.name!r}: its checksum is wrong", f"在 {entry.name!r} 处损坏：校验和不符")
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
                raise _reject(f"gives a wrong size for {entry.name!r}", f"给出的 {entry.name!r} 的大小有误")
            if not part and not inflater.eof:
                raise _reject(f"is cut short at {entry.name!r}", f"在 {entry.name!r} 处被截断")
    except zlib.error:
        raise _reject(f"is damaged at {entry.name!r}", f"在 {entry.name!r} 处损坏") from None
    if inflater.unused_data or inflater.unconsumed_tail:
        raise _reject(f"has bytes after the end of {entry.name!r}", f"在 {entry.name!r} 的末尾之后有多余字节")
    return b"".join(parts)
