"""Bundle files, each named by the SHA-256 of its bytes: immutable, complete or absent."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from llmasos.errors import NotFound
from llmasos.home import make_private_folder
from llmasos.i18n import _

SUFFIX: Final = ".llmapp"
_NAME: Final = re.compile(rf"([0-9a-f]{{64}}){re.escape(SUFFIX)}")
_STALE_SECONDS: Final = 3600


class BundleStore:
    """A folder of bundles."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, digest: str) -> Path:
        """Return the file of a bundle.

        Raises:
            NotFound: It is not in the store.
        """
        path = self.folder / f"{digest}{SUFFIX}"
        if not _NAME.fullmatch(path.name) or not path.is_file():
            raise NotFound(
                _(
                    "The bundle {digest} is not in the store: publish it again, or run `llmasos doctor`.",
                    digest=digest[:12],
                ),
            )
        return path

    def put(self, data: bytes) -> str:
        """Store a bundle; the same bytes are stored once.

        It is written to a temporary file, synced and renamed, so that a name in the store always means a complete file,
        even after a power loss. An interrupted write leaves a temporary file, which a later write removes.

        Returns:
            The SHA-256 of its bytes, hexadecimal.

        Raises:
            OSError: The folder cannot be written.
        """
        digest = hashlib.sha256(data).hexdigest()
        path = self.folder / f"{digest}{SUFFIX}"
        if path.is_file() and path.stat().st_size == len(data):
            return digest
        make_private_folder(self.folder)
        self._sweep()
        handle, name = tempfile.mkstemp(dir=self.folder, prefix=".tmp-")
        temporary = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        _sync_folder(self.folder)
        return digest

    def is_sound(self, digest: str) -> bool:
        """Whether the file matches the digest in its name. Reads all of it."""
        with self.path(digest).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == digest

    def collect(self, needed: frozenset[str]) -> int:
        """Remove old bundles without a release, and leftovers, and return how many bytes that freed."""
        freed = 0
        for path in self.folder.iterdir() if self.folder.is_dir() else ():
            try:
                status = path.stat()
            except FileNotFoundError:
                continue
            # A bundle is stored before its release, so a recent one may still get a release.
            is_old = time.time() - status.st_mtime > _STALE_SECONDS
            if path.is_file() and is_old and path.name.removesuffix(SUFFIX) not in needed:
                freed += status.st_size
                path.unlink(missing_ok=True)
        return freed

    def digests(self) -> Iterator[str]:
        """Every stored digest."""
        if self.folder.is_dir():
            for path in sorted(self.folder.iterdir()):
                if matched := _NAME.fullmatch(path.name):
                    yield matched[1]

    def _sweep(self) -> None:
        # Only old ones: another process may be writing a recent one.
        for path in self.folder.glob(".tmp-*"):
            try:
                if time.time() - path.stat().st_mtime > _STALE_SECONDS:
                    path.unlink(missing_ok=True)
            except FileNotFoundError:
                continue


def _sync_folder(folder: Path) -> None:
    # The rename itself must survive a power loss too.
    handle = os.open(folder, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
