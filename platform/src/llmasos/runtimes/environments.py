"""An app's own environment: its wheel, the wheels that its lock pins, and what the runner itself imports.

    <root>/<key>/app/       the packages
    <root>/<key>/runner/    llmasos_runner, llmasos_sdk and pluggy, copied: a native runner sees no other host package
    <root>/<key>/complete   written last: a folder without it is an interrupted build, and is built again

It is built in a temporary folder, made read-only and renamed, so that it is complete or absent. The host
copies and counts files, and parses none of the app's code. Wheels that an environment was made of are kept for the
next one, in <root>/.wheels.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import importlib.util
import os
import py_compile
import shutil
import stat
import sys
import tempfile
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Final

from packaging.utils import InvalidWheelFilename, parse_wheel_filename

from llmasos.bundles.layout import LOCK, WHEEL
from llmasos.bundles.lock import check_lock
from llmasos.bundles.reader import code_digest
from llmasos.errors import BundleRejected, Unavailable
from llmasos.i18n import _
from llmasos.machine import unwritable
from llmasos.runtimes.building import base_python
from llmasos.runtimes.bytecode import beside, compile_bytecode
from llmasos.runtimes.packages import check_tree, install_locked, install_wheel
from llmasos.runtimes.prepared import PreparedEntry, everything, locked, remove_tree, size_bytes

_MARKER: Final = "complete"
_BUILDING: Final = ".building-"
_REMOVING: Final = ".removing-"
_RUNNER_PACKAGES: Final = ("llmasos_runner", "llmasos_sdk", "pluggy")


@dataclass(frozen=True, slots=True)
class Environment:
    """A built environment."""

    folder: Path

    @property
    def packages(self) -> Path:
        """The folder from which the app and its packages are imported."""
        return self.folder / "app"

    @property
    def runner(self) -> Path:
        """The folder from which the runner's own modules are imported."""
        return self.folder / "runner"

    def hold(self) -> int:
        """Prevent its removal by any process until the returned descriptor is closed.

        Raises:
            FileNotFoundError: It was removed.
        """
        descriptor = os.open(self.folder / _MARKER, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:  # it is being removed
            os.close(descriptor)
            raise FileNotFoundError(self.folder) from None
        return descriptor


def wheel_folder(root: Path) -> Path:
    """The folder that keeps the wheels of the environments in `root`."""
    return root / ".wheels"


class Environments:
    """Builds environments once per digest, and keeps them.

    Args:
        root: The folder that holds them.
        bubblewrap: Whether what compiles their bytecode is started behind bubblewrap.
    """

    def __init__(self, root: Path, *, bubblewrap: bool = False) -> None:
        self._root = root
        self._bubblewrap = bubblewrap

    async def prepare(self, digest: str, code: Path) -> Environment:
        """Return the environment of an app, which is built if missing. Safe to call from many processes at once.

        Args:
            digest: SHA-256 of the wheel and lock together, as computed by the bundle's reader.
            code: A folder with only the wheel and `requirements.txt`.

        Raises:
            BundleRejected: The files are not those of the digest, the lock is not wholly pinned and hashed, or the
                wheel is not safe.
            AppFailed: A package is not available as a wheel with the hash in the lock, or the packages are
                too large.
            Unavailable: There is no `uv`, it cannot reach its index, or the environment cannot be written.
        """
        environment = self.find(digest)
        if environment is None:
            files = await asyncio.to_thread(_files, code)
            wheel = _check(digest, files)
            try:
                async with locked(self._root, digest):
                    environment = self.find(digest) or await self._build(digest, wheel, files)
            except OSError as error:
                raise unwritable(error) or Unavailable(
                    _("The app's environment cannot be written: {error}.", error=error)
                ) from error
        with suppress(OSError):
            os.utime(environment.folder / _MARKER)  # refresh the mtime so that the collector skips it
        return environment

    def find(self, digest: str) -> Environment | None:
        """The environment, if it is built."""
        folder = self._root / _key(digest)
        return Environment(folder) if (folder / _MARKER).is_file() else None

    def entries(self) -> Iterator[PreparedEntry]:
        """The entries for the collector: environments, and the remains of killed hosts."""
        for folder in self._root.iterdir() if self._root.is_dir() else ():
            name = folder.name.removeprefix(_BUILDING).removeprefix(_REMOVING)
            digest = name.partition("-")[0]
            if not folder.is_dir() or not digest.isalnum():
                continue
            marker = folder / _MARKER
            is_current = folder.name == _key(digest) and marker.is_file()
            with suppress(FileNotFoundError):  # it has just been removed
                modified = (marker if marker.exists() else folder).stat().st_mtime
                yield PreparedEntry(digest, is_current, modified, size_bytes(folder), partial(self._remove, folder))

    def _remove(self, folder: Path) -> bool:
        with suppress(FileNotFoundError):
            descriptor = os.open(folder / _MARKER, os.O_RDONLY | os.O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                (folder / _MARKER).unlink()
            except BlockingIOError:  # a runner uses it
                return False
            finally:
                os.close(descriptor)
        leaving = Path(tempfile.mkdtemp(prefix=f"{_REMOVING}{folder.name[:16].lstrip('.')}-", dir=self._root))
        folder.replace(leaving)
        remove_tree(leaving)
        return True

    async def _build(self, digest: str, wheel: str, files: Mapping[str, bytes]) -> Environment:
        for left_over in self._root.glob(f"{_BUILDING}{digest[:16]}-*"):
            await asyncio.to_thread(remove_tree, left_over)
        final = self._root / _key(digest)
        if final.exists():  # its marker is missing, so it is never used in this state
            await asyncio.to_thread(remove_tree, final)
        with _temporary(self._root, f"{_BUILDING}{digest[:16]}-") as building:
            packages = building / "app"
            packages.mkdir()
            if files[LOCK].strip():
                await install_locked(files[LOCK].decode(), packages, wheel_folder(self._root))
            await asyncio.to_thread(install_wheel, wheel, files[wheel], packages)
            await asyncio.to_thread(check_tree, packages)
            await compile_bytecode(packages, final / "app", bubblewrap=self._bubblewrap)
            await asyncio.to_thread(_finish, building, final, digest)
        return Environment(final)


def _files(code: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(code.iterdir()) if path.is_file()}


def _finish(building: Path, final: Path, digest: str) -> None:
    runner = building / "runner"
    _copy_runner(runner)
    # The host's own code, unlike that of the app.
    for source in runner.rglob("*.py"):
        named = final / source.relative_to(building)
        py_compile.compile(str(source), cfile=str(beside(source)), dfile=str(named), quiet=2)
    _make_read_only(building)
    (building / _MARKER).write_text(digest)
    building.rename(final)


def _check(digest: str, files: Mapping[str, bytes]) -> str:
    wheels = [name for name in files if WHEEL.fullmatch(name)]
    if len(wheels) != 1 or LOCK not in files or len(files) != 2:
        raise BundleRejected(
            _("a native app is one wheel and its {lock}, not {files}", lock=LOCK, files=list(files) or _("nothing"))
        )
    if code_digest(files) != digest:
        raise BundleRejected(
            _("the wheel or its lock is not the one that was installed: install the app again"),
        )
    try:
        check_lock(files[LOCK].decode())
        parse_wheel_filename(wheels[0])
    except UnicodeDecodeError:
        raise BundleRejected(_("{lock} is not UTF-8", lock=LOCK)) from None
    except InvalidWheelFilename as error:
        raise BundleRejected(_("{wheels} is not the name of a wheel: {error}", wheels=wheels[0], error=error)) from None
    return wheels[0]


@cache
def _key_suffix() -> str:
    """The other inputs of an environment besides the app: the Python, and the runner's own modules."""
    hashed = hashlib.sha256(f"{sys.version}\n{base_python()}\n".encode())
    for package in _RUNNER_PACKAGES:
        for path in sorted(_source(package).rglob("*.py")):
            hashed.update(path.read_bytes())
    return hashed.hexdigest()[:16]


def _key(digest: str) -> str:
    return f"{digest}-{_key_suffix()}"


def _source(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise Unavailable(_("{package} is not installed with the host", package=package))
    return Path(next(iter(spec.submodule_search_locations)))


def _copy_runner(target: Path) -> None:
    for package in _RUNNER_PACKAGES:
        shutil.copytree(_source(package), target / package, ignore=shutil.ignore_patterns("__pycache__", "*.wit"))


def _make_read_only(folder: Path) -> None:
    """Make it readable for every user, since root's runners are users of their own, and writable for none."""
    for path in everything(folder):
        if not path.is_symlink():
            path.chmod(0o555 if path.is_dir() or path.stat().st_mode & stat.S_IXUSR else 0o444)
    folder.chmod(0o755)  # the marker is written later


@contextmanager
def _temporary(root: Path, prefix: str) -> Generator[Path]:
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=root))
    folder.chmod(0o755)  # the process that compiles bytecode may be another user
    try:
        yield folder
    finally:
        if folder.exists():
            remove_tree(folder)
