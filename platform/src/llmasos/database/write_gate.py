"""The gate of a SQLite database: it admits the writers of all threads and processes one at a time, in order."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from llmasos.i18n import Message, _

if sys.platform != "win32":
    import fcntl

logger = logging.getLogger(__name__)

# A writer needs milliseconds; a process that keeps the lock this long is stopped, or is not one of our writers.
BLOCKED_SECONDS: Final = 5.0


class WriteGate:
    """A lock in a file beside the database.

    SQLite would separate writers as well, but its waiters poll, with sleeps of up to 100 ms, and an unlucky one
    starves: with 16 processes some stalled for seconds. Waiters of an advisory file lock wake immediately. Only
    waiting time depends on it, correctness does not.
    """

    def __init__(self, database_path: str | None) -> None:
        self._lock = threading.Lock()
        in_file = database_path and database_path != ":memory:"
        self.path = Path(f"{database_path}-gate") if in_file else None
        self._file: int | None = None
        self._watch: _Watch | None = None

    def __enter__(self) -> None:
        self._lock.acquire()
        # On Windows SQLite's own lock separates processes, without the fair queue.
        if sys.platform != "win32" and self.path is not None:
            # The home's file system has no locks, or is full: SQLite's own lock still applies, with a better message.
            with suppress(OSError):
                if self._file is None:
                    self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                try:
                    fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    self._wait(self._file, self.path)

    def _wait(self, file: int, path: Path) -> None:
        if self._watch is None:
            self._watch = _Watch(path)
        self._watch.begin()
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        finally:
            self._watch.end()

    def __exit__(self, *_exc: object) -> None:
        try:
            if sys.platform != "win32" and self._file is not None:
                fcntl.flock(self._file, fcntl.LOCK_UN)
        finally:
            self._lock.release()

    def close(self) -> None:
        """Close the lock's file."""
        with self._lock:
            if self._watch is not None:
                self._watch.close()
                self._watch = None
            if self._file is not None:
                os.close(self._file)
                self._file = None


class _Watch:
    """Logs which process holds the lock once a writer has waited for too long. A blocked `flock` cannot."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._waiting_since: float | None = None
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="llmasos-gate-watch", daemon=True)
        self._thread.start()

    def begin(self) -> None:
        """Note that a writer waits."""
        self._waiting_since = time.monotonic()

    def end(self) -> None:
        """Note that it no longer waits."""
        self._waiting_since = None

    def close(self) -> None:
        """End the thread."""
        self._closed.set()
        self._thread.join()

    def _run(self) -> None:
        told: float | None = None
        while not self._closed.wait(BLOCKED_SECONDS / 5):
            since = self._waiting_since
            if since is not None and since != told and time.monotonic() - since >= BLOCKED_SECONDS:
                told = since
                logger.warning("%s", blocked(self._path))


def blocked(path: Path) -> Message:
    """Say which process the writers wait for, and the cure."""
    holder = holder_of(path)
    if holder is None:
        return _(
            "Writing to the database waits: another program holds a lock on {path}. Find it with `fuser {path}`.",
            path=path,
        )
    pid, command = holder
    return _(
        "Writing to the database waits for process {pid} ({command}), which holds a lock on {path}. Wait for it, or "
        "end it: kill {pid}",
        pid=pid,
        command=command,
        path=path,
    )


def holder_of(path: Path) -> tuple[int, str] | None:
    """The process that holds a lock on a file, and its command; None if there is none or it is unknown."""
    try:
        status = path.stat()
        locks = Path("/proc/locks").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    file = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    for line in locks:
        # Such as `1: FLOCK ADVISORY WRITE 6128 fe:00:110337 0 EOF`; waiters have an arrow after the number.
        fields = line.split()
        if fields[1] == "FLOCK" and fields[5] == file and fields[4].isdigit():
            try:
                words = Path(f"/proc/{fields[4]}/cmdline").read_bytes().split(b"\0")
            except OSError:
                return int(fields[4]), "?"
            return int(fields[4]), b" ".join(words).decode(errors="replace").strip()[:200]
    return None
