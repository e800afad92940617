"""Prepared code on disk, of components and of native apps: its locks, its size, and its removal.

Prepared code is a cache by digest. Under the home's `compiled/` and `environments/` an entry is written by the holder
of its lock only, is put in place by one rename, and is removed by the holder of its lock only. There is a fixed number
of lock files, which are never removed: removing one that another process waits for would let two in.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import stat
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from llmasos.home import make_private_folder

if TYPE_CHECKING:
    import filelock

_READABLE: Final = 0o755
_LOCKS: Final = ".locks"
_POLL_SECONDS: Final = 0.05
# An install uses what it prepared well within an hour.
YOUNG_SECONDS: Final = 3600.0
# How much unneeded but recent code may stay: about ten compiled Python components.
SPARE_BYTES: Final = 512 << 20


@dataclass(frozen=True, slots=True)
class PreparedEntry:
    """Prepared code of one digest, or its remains.

    Args:
        digest: The digest of the code, or a prefix of it.
        is_current: Whether it fits this engine, interpreter and runner, and is whole.
        modified: When it was last prepared or asked for, in seconds since the epoch.
        size_bytes: Its size on disk.
        remove: Removes it; its lock is held. Returns False if it is in use.
    """

    digest: str
    is_current: bool
    modified: float
    size_bytes: int
    remove: Callable[[], bool]


def _lock_of(folder: Path, digest: str) -> filelock.FileLock:
    import filelock  # noqa: PLC0415 - a run spares it

    return filelock.FileLock(folder / _LOCKS / digest[:1], mode=0o600, thread_local=False)


@asynccontextmanager
async def locked(folder: Path, digest: str) -> AsyncGenerator[None]:
    """Hold the lock of a digest, against other tasks and other processes; make the folder if it is missing.

    Raises:
        OSError: The folder or its lock cannot be written.
    """
    await asyncio.to_thread(make_prepared_folder, folder)
    lock = _lock_of(folder, digest)
    while True:
        try:
            lock.acquire(blocking=False)
            break
        except TimeoutError:
            await asyncio.sleep(_POLL_SECONDS)
    try:
        yield
    finally:
        lock.release()


def remove_unneeded(
    folder: Path, entries: Iterable[PreparedEntry], keep: frozenset[str], *, spare_bytes: int, young_seconds: float
) -> int:
    """Remove entries of a folder as `collection.collect` does, and return how many bytes that freed."""
    unneeded = [entry for entry in entries if not (entry.is_current and entry.digest in keep)]
    freed = kept = 0
    for entry in sorted(unneeded, key=lambda entry: entry.modified, reverse=True):
        is_young = time.time() - entry.modified < young_seconds
        if is_young and kept + entry.size_bytes <= spare_bytes:
            kept += entry.size_bytes
        elif _remove(folder, entry):
            freed += entry.size_bytes
        else:
            kept += entry.size_bytes
    return freed


def make_prepared_folder(folder: Path) -> None:
    """Create a folder of prepared code in a private home. It is open itself: runners of root become other users."""
    make_private_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    if folder.stat().st_mode & 0o777 != _READABLE:  # whatever the umask, and in homes in which it was private
        folder.chmod(_READABLE)
    make_private_folder(folder / _LOCKS)


def _remove(folder: Path, entry: PreparedEntry) -> bool:
    make_prepared_folder(folder)
    lock = _lock_of(folder, entry.digest)
    try:
        lock.acquire(blocking=False)
    except TimeoutError:
        return False  # it is being prepared
    try:
        return entry.remove()
    finally:
        lock.release()


def size_bytes(path: Path) -> int:
    """The size of a file or folder on disk; 0 if it does not exist."""
    total = 0
    for each in (path, *everything(path)):
        try:
            total += each.lstat().st_blocks * 512
        except OSError:  # it has just been removed
            continue
    return total


def everything(folder: Path) -> Iterator[Path]:
    """All that is in a folder, at any depth; links are not followed."""
    for parent, folders, names in os.walk(folder):
        for name in (*folders, *names):
            yield Path(parent, name)


def remove_tree(folder: Path) -> None:
    """Remove a folder whose folders may be read-only."""
    for path in everything(folder):
        if stat.S_ISDIR(path.lstat().st_mode):
            path.chmod(0o700)
    shutil.rmtree(folder)
