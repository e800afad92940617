"""Stores the code of installed releases as files that a runtime prepares: one folder per digest, complete or absent.

<root>/<digest>/app.wasm                        of a component
<root>/<digest>/<wheel>, requirements.txt       of a native app
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from llmasos.bundles import layout
from llmasos.bundles.reader import Bundle, code_digest
from llmasos.errors import Unavailable
from llmasos.home import make_private_folder
from llmasos.i18n import _
from llmasos.machine import unwritable
from llmasos.runtimes.prepared import size_bytes

_TEMPORARY: Final = ".tmp-"
# An install that has not finished writing its code by then has died.
_ABANDONED_SECONDS: Final = 3600


class CodeStore:
    """Keeps code by its digest.

    Args:
        root: The folder, created when it is first needed.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    @classmethod
    def in_home(cls, home: Path) -> CodeStore:
        """The store of a host."""
        return cls(home / "code")

    def put(self, bundle: Bundle) -> Path:
        """Store a bundle's code, and return the path that a runtime prepares. Idempotent and concurrency-safe.

        Raises:
            Unavailable: It cannot be written.
        """
        folder = self.root / bundle.component_digest
        try:
            if self.is_whole(bundle.component_digest):
                os.utime(folder)  # refresh the mtime so that the sweeper skips it before it is installed
            else:
                self._write(folder, bundle.code)
        except OSError as error:
            raise unwritable(error) or Unavailable(
                _("the app's code cannot be written to {root}: {reason}", root=self.root, reason=error.strerror),
            ) from error
        return self.path(bundle.component_digest)

    def path(self, digest: str) -> Path:
        """The path that a runtime prepares: the component, or the folder with the wheel and its lock."""
        component = self.root / digest / layout.COMPONENT
        return component if component.exists() else component.parent

    def is_whole(self, digest: str) -> bool:
        """Whether the code is stored and matches its digest."""
        try:
            files = {path.name: path.read_bytes() for path in (self.root / digest).iterdir() if path.is_file()}
        except OSError:
            return False
        return bool(files) and code_digest(files) == digest

    def require(self, digest: str, app_id: str) -> Path:
        """Return the path that a runtime prepares for an installed app.

        Raises:
            Unavailable: It is gone or damaged; the message says how to restore it.
        """
        if not self.is_whole(digest):
            raise Unavailable(
                _("The code of {app} is gone or damaged: run `llmasos install {app}` to restore it.", app=app_id),
            )
        return self.path(digest)

    def digests(self) -> Iterator[str]:
        """Every stored digest."""
        if self.root.is_dir():
            yield from (path.name for path in self.root.iterdir() if not path.name.startswith(_TEMPORARY))

    def sweep(self, wanted: frozenset[str]) -> int:
        """Remove code that no installation needs, and leftovers of dead installs.

        Code younger than an hour stays: an install may be about to need it.

        Returns:
            The number of bytes freed.
        """
        freed = 0
        if not self.root.is_dir():
            return freed
        for path in self.root.iterdir():
            try:
                young = time.time() - path.stat().st_mtime < _ABANDONED_SECONDS
            except FileNotFoundError:
                continue
            if path.name not in wanted and not young:
                freed += size_bytes(path)
                shutil.rmtree(path, ignore_errors=True)
        return freed

    def _write(self, folder: Path, files: Mapping[str, bytes]) -> None:
        make_private_folder(self.root)
        temporary = Path(tempfile.mkdtemp(prefix=_TEMPORARY, dir=self.root))
        try:
            for name, content in files.items():
                with (temporary / name).open("wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
            if folder.exists() and not self.is_whole(folder.name):  # damaged, so it is replaced
                folder.rename(temporary.with_name(f"{temporary.name}-damaged"))
            try:
                temporary.rename(folder)
            except OSError:
                # Another install of the same code finished first.
                if not self.is_whole(folder.name):
                    raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
            shutil.rmtree(temporary.with_name(f"{temporary.name}-damaged"), ignore_errors=True)
