"""Writes bundles reproducibly: the same files give the same bytes."""

from __future__ import annotations

import hashlib
import os
import tempfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from llmasos.bundles import archive
from llmasos.bundles.archive import CENTRAL, CENTRAL_MAGIC, DEFLATED, END, END_MAGIC, LOCAL, LOCAL_MAGIC, STORED

# The earliest time of the format: midnight of 1 January 1980.
DATE: Final = (1 << 5) | 1
VERSION_NEEDED: Final = 20
MADE_BY_UNIX: Final = (3 << 8) | VERSION_NEEDED
REGULAR_FILE: Final = 0o100644 << 16
LEVEL: Final = 9


def pack(files: Mapping[str, bytes]) -> bytes:
    """Make a bundle of files, checked by the reader's own rules.

    Raises:
        BundleRejected: The reader would refuse it.
    """
    bodies: list[bytes] = []
    directory: list[bytes] = []
    offset = 0
    for name in sorted(files):
        content = files[name]
        method, packed = _compress(content)
        raw_name = name.encode()
        flags = 0 if name.isascii() else archive.UTF8_FLAG
        shared = (VERSION_NEEDED, flags, method, 0, DATE, zlib.crc32(content), len(packed), len(content), len(raw_name))
        header = LOCAL.pack(LOCAL_MAGIC, *shared, 0)
        directory.append(
            CENTRAL.pack(CENTRAL_MAGIC, MADE_BY_UNIX, *shared, 0, 0, 0, 0, REGULAR_FILE, offset) + raw_name
        )
        bodies += (header, raw_name, packed)
        offset += len(header) + len(raw_name) + len(packed)
    tail = b"".join(directory)
    end = END.pack(END_MAGIC, 0, 0, len(directory), len(directory), len(tail), offset, 0)
    data = b"".join((*bodies, tail, end))
    archive.unpack(data)
    return data


def _compress(content: bytes) -> tuple[int, bytes]:
    packer = zlib.compressobj(LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS, 8, zlib.Z_DEFAULT_STRATEGY)
    packed = packer.compress(content) + packer.flush()
    # Stored if deflating does not make it smaller.
    return (DEFLATED, packed) if len(packed) < len(content) else (STORED, content)


def write_bundle(files: Mapping[str, bytes], destination: Path) -> str:
    """Write a bundle atomically.

    Args:
        files: Its files by name, as `layout` names them.
        destination: Its path; the folder is created, and an existing file is replaced.

    Returns:
        The SHA-256 of its bytes, hexadecimal.

    Raises:
        BundleRejected: The reader would refuse it.
        OSError: It cannot be written.
    """
    data = pack(files)
    destination.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=".tmp-", dir=destination.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(destination)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return hashlib.sha256(data).hexdigest()
