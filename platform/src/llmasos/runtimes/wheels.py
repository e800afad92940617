"""The wheels of locks: which ones an app needs, and those that are kept for the next app.

A kept wheel is a file that is named by its SHA-256, was unpacked by the strict reader before, and is hashed again
whenever it is taken. Beside the wheels lies, for each lock, where its wheels are, so that an app whose packages were
fetched before is installed without a network. Both are a cache with a bound: anything may be removed at any time.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
import time
import tomllib
from collections.abc import Generator, Iterable
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, Final, cast
from urllib.parse import unquote, urlsplit

from packaging.requirements import Requirement
from packaging.tags import Tag, sys_tags
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

from llmasos.bundles.lock import locked_lines
from llmasos.errors import AppFailed
from llmasos.home import make_private_folder
from llmasos.i18n import _
from llmasos.runtimes.prepared import SPARE_BYTES, remove_tree
from llmasos_runner.protocol import WheelSource

_SCRATCH: Final = ".scratch-"
# Longer than an installation may take.
_ABANDONED_SECONDS: Final = 7200.0


class NoWheel(AppFailed):
    """A package has no wheel for this machine, and nothing is built here."""

    code = "no-wheel"


def chosen_wheels(pylock: str, lock: str, *, pure: bool) -> list[WheelSource]:
    """For each package, the wheel that fits best.

    Args:
        pylock: What the indexes offer (PEP 751).
        lock: The lock, whose hashes alone are believed.
        pure: Whether only wheels without machine code fit.

    Raises:
        NoWheel: A package has none.
        AppFailed: None of a package's wheels has a hash of the lock.
    """
    pinned = _hashes(lock)
    return [_chosen(package, pinned, pure=pure) for package in tomllib.loads(pylock).get("packages", [])]


def _hashes(lock: str) -> dict[str, frozenset[str]]:
    """The hashes of a lock that `check_lock` accepted, by package."""
    pinned: dict[str, frozenset[str]] = {}
    for line in locked_lines(lock):
        name = canonicalize_name(Requirement(re.split(r"\s+--", line)[0]).name)
        pinned[name] = pinned.get(name, frozenset()) | frozenset(re.findall(r"sha256:([0-9a-f]{64})", line))
    return pinned


def _chosen(package: dict[str, Any], pinned: dict[str, frozenset[str]], *, pure: bool) -> WheelSource:
    name = canonicalize_name(str(package["name"]))
    fitting: list[tuple[int, WheelSource, bool]] = []
    for offered in cast("list[dict[str, Any]]", package.get("wheels", [])):
        url = str(offered.get("url", ""))
        file = unquote(urlsplit(url).path.rpartition("/")[2])
        rank = _rank(file, name, pure=pure)
        digest = str(offered.get("hashes", {}).get("sha256", ""))
        if rank is not None:
            fitting.append((rank, {"name": file, "url": url, "sha256": digest}, digest in pinned.get(name, ())))
    if not fitting:
        raise NoWheel(
            _(
                "a package has no wheel for this machine, and nothing is built here: {said}",
                said=f"{name}=={package.get('version')} has no usable wheels",
            ),
        )
    matching = [(rank, wheel) for rank, wheel, matches in fitting if matches]
    if not matching:
        raise AppFailed(
            _("a package is not the one that the lock pins, and is not installed: {said}", said=fitting[0][1]["name"]),
        )
    return min(matching, key=lambda each: each[0])[1]


def _rank(file: str, package: str, *, pure: bool) -> int | None:
    """How well a wheel fits, 0 best; None if it does not, or is of another package."""
    try:
        named, _version, _build, tags = parse_wheel_filename(file)
    except InvalidWheelFilename:
        return None
    if named != package:
        return None
    if pure:  # `uv` has found that it fits that Python
        return 0 if all(tag.abi == "none" and tag.platform == "any" for tag in tags) else None
    return min((_ranks().get(tag, len(_ranks())) for tag in tags), default=None)


@cache
def _ranks() -> dict[Tag, int]:
    return {tag: rank for rank, tag in enumerate(sys_tags())}


class WheelStore:
    """The wheels that are kept in a folder. Safe to use from many processes at once.

    Args:
        folder: It, made if it is missing.
        max_bytes: What is kept at most; the least recently used goes first.
    """

    def __init__(self, folder: Path, *, max_bytes: int = SPARE_BYTES) -> None:
        self._folder = folder
        self._max_bytes = max_bytes

    @contextmanager
    def scratch(self) -> Generator[Path]:
        """A folder for one installation, removed with all that is in it."""
        make_private_folder(self._folder)
        for left_over in self._folder.glob(f"{_SCRATCH}*"):  # of a killed host
            with suppress(OSError):
                if time.time() - left_over.stat().st_mtime > _ABANDONED_SECONDS:
                    remove_tree(left_over)
        folder = Path(tempfile.mkdtemp(prefix=_SCRATCH, dir=self._folder))
        try:
            yield folder
        finally:
            remove_tree(folder)

    def take(self, digest: str, folder: Path) -> bool:
        """Copy a wheel into `folder` if it is kept; a damaged one is removed."""
        kept, copy = self._folder / digest, folder / digest
        try:
            shutil.copyfile(kept, copy)
            os.utime(kept)
        except OSError:
            copy.unlink(missing_ok=True)
            return False
        with copy.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() == digest:
                return True
        copy.unlink()
        kept.unlink(missing_ok=True)
        return False

    def keep(self, digests: Iterable[str], folder: Path) -> None:
        """Keep wheels of `folder` that the strict reader unpacked."""
        for digest in digests:
            with suppress(OSError):  # another installation kept it, or the disk is full
                (folder / digest).chmod(0o600)
                (folder / digest).replace(self._folder / digest)

    def pylock(self, lock: str, *platform: str) -> str | None:
        """Where the wheels of a lock are, if it was installed before."""
        file = self._pylock(lock, *platform)
        try:
            os.utime(file)
            text = file.read_text()
            tomllib.loads(text)
        except (OSError, ValueError):
            return None
        return text

    def keep_pylock(self, pylock: str, lock: str, *platform: str) -> None:
        """Keep where the wheels of a lock are."""
        with suppress(OSError):
            handle, name = tempfile.mkstemp(prefix=_SCRATCH, dir=self._folder)
            with os.fdopen(handle, "w") as file:
                file.write(pylock)
            Path(name).replace(self._pylock(lock, *platform))

    def trim(self) -> int:
        """Remove what was least recently used, down to the bound, and return how many bytes that freed."""
        kept: list[tuple[float, int, Path]] = []
        for path in self._folder.iterdir() if self._folder.is_dir() else ():
            with suppress(FileNotFoundError):
                status = path.stat()
                if path.is_file():
                    kept.append((status.st_mtime, status.st_size, path))
        total = sum(each[1] for each in kept)
        freed = 0
        for _used, size, path in sorted(kept):
            if total - freed <= self._max_bytes:
                break
            path.unlink(missing_ok=True)
            freed += size
        return freed

    def _pylock(self, lock: str, *platform: str) -> Path:
        tag = next(sys_tags())
        key = "\n".join((lock, *platform, str(tag)))
        return self._folder / f"{hashlib.sha256(key.encode()).hexdigest()}.toml"
