"""Reads wheels strictly and unpacks them: `launch.py LIMITS python -I -S wheels.py`, the task on its standard input.

A wheel is a zip (the binary distribution format). Of the zip, the directory counts: what lies between its files is
never read. An entry is inflated and counted up to the size that the directory gives, and checked by its checksum. What
a package manager would run or put elsewhere is left out: scripts, headers and data files; nothing here is executed. A
`.pth` file is unpacked like any other, and no runner reads it.

It prints nothing if all is unpacked. Else it ends with exit code 1, and prints `protocol.BuildFailure` as JSON.
"""

from __future__ import annotations

import json
import os
import re
import stat
import struct
import sys
import unicodedata
import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from llmasos_runner.protocol import UnpackTask

_CHUNK_BYTES: Final = 1 << 20
_END: Final = struct.Struct("<4s4H2IH")
# 100,000 entries with long names; the standard library makes an object of each before they can be looked at.
_MAX_DIRECTORY_BYTES: Final = 16 << 20
_MAX_NAME_BYTES: Final = 512
_MAX_DEPTH: Final = 32
# As for bundles: no file of a package packs better, and small ones may.
_MAX_RATIO: Final = 200
_RATIO_FREE_BYTES: Final = 4 << 20
_ENCRYPTED: Final = 0x1 | 0x40 | 0x2000
# "The .data directory" of the format: only these two parts are imported.
_DATA: Final = re.compile(r"[^/]+\.data/(?P<part>[^/]+)/(?P<rest>.+)", re.DOTALL)
_IMPORTED: Final = frozenset({"purelib", "platlib"})


class _Refused(Exception):
    """A wheel is not safe: the reason, and the entry."""


class _Unpacking:
    """What has been unpacked of all wheels together."""

    def __init__(self, task: UnpackTask) -> None:
        self._target = Path(task["target"])
        self._bytes_left = task["max_bytes"]
        self._files_left = task["max_files"]
        # Keyed by the name that some file systems treat as equal: the name, and whether it is a file.
        self._taken: dict[str, tuple[str, bool]] = {}
        self._of_this_wheel: set[str] = set()

    def unpack(self, wheel: Path) -> None:
        _check_directory(wheel)
        self._of_this_wheel.clear()
        try:
            with zipfile.ZipFile(wheel) as archive:
                for entry in archive.infolist():
                    self._entry(archive, entry)
        except (zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError, ValueError) as error:
            raise _Refused("broken", str(error)[:100]) from None

    def _entry(self, archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> None:
        name = entry.orig_filename
        self._files_left -= 1
        self._bytes_left -= entry.file_size
        if self._files_left < 0 or self._bytes_left < 0:
            raise _Refused("size", name)
        _check_entry(entry)
        if entry.is_dir():
            return
        if (data := _DATA.fullmatch(name)) is not None:
            if data["part"] not in _IMPORTED:
                return
            name = data["rest"]
        self._take(name)
        place = self._target / name
        place.parent.mkdir(parents=True, exist_ok=True)
        size = 0
        with archive.open(entry) as packed, place.open("wb") as file:
            while chunk := packed.read(_CHUNK_BYTES):
                size += len(chunk)
                if size > entry.file_size:
                    raise _Refused("broken", name)
                file.write(chunk)
        if size != entry.file_size:
            raise _Refused("broken", name)

    def _take(self, name: str) -> None:
        """Note a file's name, and those of its folders; two wheels may have the same file, one wheel may not."""
        parts = name.split("/")
        for depth in range(1, len(parts) + 1):
            path, is_file = "/".join(parts[:depth]), depth == len(parts)
            key = unicodedata.normalize("NFC", unicodedata.normalize("NFKC", path).casefold())
            if self._taken.setdefault(key, (path, is_file)) != (path, is_file):
                raise _Refused("clash", name)
        if name in self._of_this_wheel:
            raise _Refused("clash", name)
        self._of_this_wheel.add(name)


def _check_directory(wheel: Path) -> None:
    """Refuse a directory that is too long to be read at all."""
    with wheel.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        if size < _END.size:
            raise _Refused("broken", "")
        file.seek(-_END.size, os.SEEK_END)
        magic, disk, first_disk, here, count, length, at, comment = _END.unpack(file.read(_END.size))
    if magic != b"PK\x05\x06" or comment or disk or first_disk or here != count:
        raise _Refused("broken", "")
    if count == 0xFFFF or 0xFFFFFFFF in {length, at} or at + length + _END.size != size:
        raise _Refused("broken", "")
    if length > _MAX_DIRECTORY_BYTES:
        raise _Refused("size", "")


def _check_entry(entry: zipfile.ZipInfo) -> None:
    name = entry.orig_filename
    parts = name.removesuffix("/").split("/")
    if name.startswith("/") or any(letter in name for letter in "\\:") or len(parts) > _MAX_DEPTH:
        raise _Refused("name", name)
    if any(not part.strip(" .") or part != part.lstrip(" ").rstrip(" .") for part in parts):
        raise _Refused("name", name)
    if len(name.encode()) > _MAX_NAME_BYTES or any(unicodedata.category(letter)[0] == "C" for letter in name):
        raise _Refused("name", name)
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in {0, stat.S_IFREG, stat.S_IFDIR} or (kind == stat.S_IFDIR and not entry.is_dir()):
        raise _Refused("link", name)
    if entry.flag_bits & _ENCRYPTED or entry.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        raise _Refused("broken", name)
    if entry.file_size > max(_RATIO_FREE_BYTES, entry.compress_size * _MAX_RATIO):
        raise _Refused("size", name)


def main() -> None:
    """Unpack the wheels that standard input names."""
    task: UnpackTask = json.load(sys.stdin)
    unpacking = _Unpacking(task)
    for wheel in task["wheels"]:
        try:
            unpacking.unpack(Path(task["folder"], wheel["sha256"]))
        except _Refused as refused:
            reason, entry = refused.args
            sys.stdout.write(json.dumps({"reason": reason, "name": wheel["name"], "said": entry[:100]}) + "\n")
            sys.stdout.flush()
            os._exit(1)


if __name__ == "__main__":
    main()
