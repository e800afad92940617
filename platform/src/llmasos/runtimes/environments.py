"""An app's own environment: its wheel and the wheels that its lock pins, and what the runner itself imports.

    <root>/<key>/app/       the packages, installed by `uv` from wheels whose hashes the lock names
    <root>/<key>/runner/    llmasos_runner, llmasos_sdk and pluggy, copied: a native runner sees no other host package
    <root>/<key>/complete   written last: a folder without it is a build that was interrupted, and is built again

It is built in a folder beside, made read-only and renamed, so that there is either a whole one or none. Files are
copied from `uv`'s cache, never linked: one app that could write its environment would change that of every other.
"""

from __future__ import annotations

import compileall
import hashlib
import importlib.util
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from filelock import FileLock
from packaging.utils import InvalidWheelFilename, parse_wheel_filename

from llmasos.bundles.layout import LOCK, WHEEL
from llmasos.bundles.lock import check_lock
from llmasos.bundles.reader import code_digest
from llmasos.errors import AppFailed, BundleRejected, LlmasosError, Unavailable
from llmasos.i18n import _
from llmasos.machine import disk_full
from llmasos.uv import configuration

_MARKER: Final = "complete"
_BUILDING: Final = ".building-"
_RUNNER_PACKAGES: Final = ("llmasos_runner", "llmasos_sdk", "pluggy")
# A large scientific stack over a slow line; what waits longer has hung.
_INSTALL_SECONDS: Final = 1800
_MAX_REPORT_CHARACTERS: Final = 600


@dataclass(frozen=True, slots=True)
class Environment:
    """A built environment."""

    folder: Path

    @property
    def packages(self) -> Path:
        """Where the app and what it needs are imported from."""
        return self.folder / "app"

    @property
    def runner(self) -> Path:
        """Where the runner's own modules are imported from."""
        return self.folder / "runner"


class Environments:
    """Builds environments once a digest, and keeps them.

    Args:
        root: The folder that holds them.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def prepare(self, digest: str, code: Path) -> Environment:
        """The environment of an app, built where it is not there yet. Safe to call at once from many processes.

        Args:
            digest: SHA-256 of the wheel and lock together, as the bundle's reader makes it.
            code: A folder that holds just the wheel and `requirements.txt`.

        Raises:
            BundleRejected: The files are not those of the digest, or the lock is not wholly pinned and hashed.
            AppFailed: A package of the lock is not to be had as a wheel with the hash that the lock names.
            Unavailable: There is no `uv`, or it cannot reach its index.
        """
        environment = self.find(digest)
        if environment is not None:
            return environment
        files = {path.name: path.read_bytes() for path in sorted(code.iterdir()) if path.is_file()}
        wheel = _check(digest, files)
        self._root.mkdir(parents=True, exist_ok=True)
        with FileLock(self._root / f".{digest}.lock"):
            return self.find(digest) or self._build(digest, wheel, files)

    def find(self, digest: str) -> Environment | None:
        """The environment, if it is built."""
        folder = self._root / _key(digest)
        return Environment(folder) if (folder / _MARKER).is_file() else None

    def remove(self, digest: str) -> None:
        """Remove the environments of an app, whatever Python they are for."""
        for folder in self._root.glob(f"{digest}-*"):
            _remove(folder)

    def _build(self, digest: str, wheel: str, files: Mapping[str, bytes]) -> Environment:
        for left_over in self._root.glob(f"{_BUILDING}{digest[:16]}-*"):
            _remove(left_over)
        final = self._root / _key(digest)
        if final.exists():  # renamed by hand, or its marker is gone: never used as it is
            _remove(final)
        with _temporary(self._root, f"{_BUILDING}{digest[:16]}-") as building:
            for name, content in files.items():
                (building / name).write_bytes(content)
            _install(building, [*_LOCKED, str(building / LOCK)])
            _install(building, ["--no-index", str(building / wheel)])
            for name in files:
                (building / name).unlink()
            _copy_runner(building / "runner")
            compileall.compile_dir(building, quiet=2, workers=1, stripdir=str(building), prependdir=str(final))
            _make_read_only(building)
            (building / _MARKER).write_text(digest)
            building.rename(final)
        return Environment(final)


# Only what the lock names, only as wheels, only with its hashes.
_LOCKED: Final = ("--require-hashes", "--requirements")


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


def find_uv() -> str:
    """The path of `uv`.

    Raises:
        Unavailable: There is none.
    """
    beside = Path(sys.executable).with_name("uv")
    found = str(beside) if beside.is_file() else shutil.which("uv")
    if found is None:
        raise Unavailable(
            _("native Python apps need `uv` to install their packages: run `pip install uv`"),
        )
    return found


def base_python() -> str:
    """The interpreter that runners are started with: the one beneath a virtual environment."""
    return getattr(sys, "_base_executable", None) or sys.executable


def _install(building: Path, what: list[str]) -> None:
    command = [
        find_uv(), "pip", "install", "--quiet", "--no-progress", "--python", base_python(),
        "--target", str(building / "app"), "--no-deps", "--only-binary", ":all:", "--link-mode", "copy",
        *configuration(), *what,
    ]  # fmt: skip
    # From the cache alone first: what was fetched once needs no network again.
    for offline in (["--offline"], []):
        done = subprocess.run(
            [*command, *offline], cwd=building, capture_output=True, text=True, timeout=_INSTALL_SECONDS, check=False
        )
        if done.returncode == 0:
            (building / "app").mkdir(exist_ok=True)  # a lock of nothing installs nothing
            return
    raise _failure(done.stderr)


def _failure(report: str) -> LlmasosError:
    said = " ".join(report.replace("╰─▶", " ").replace("×", " ").split())[:_MAX_REPORT_CHARACTERS]
    lowered = said.lower()
    if "hash mismatch" in lowered:
        return AppFailed(
            _("a package is not the one that the lock pins, and is not installed: {said}", said=said),
        )
    if "no wheels" in lowered or "no usable wheels" in lowered or "only-binary" in lowered or "no-build" in lowered:
        return AppFailed(
            _("a package has no wheel for this machine, and nothing is built here: {said}", said=said),
        )
    if "no space left" in lowered or "disk quota" in lowered:
        return disk_full()
    if "failed to fetch" in lowered or "dns" in lowered or "connect" in lowered:
        return Unavailable(_("the packages of the app cannot be fetched now: {said}", said=said))
    return AppFailed(_("the app's environment cannot be built: {said}", said=said))


@cache
def _key_suffix() -> str:
    """What else than the app an environment depends on: the Python, and the runner's own modules."""
    told = hashlib.sha256(f"{sys.version}\n{base_python()}\n".encode())
    for package in _RUNNER_PACKAGES:
        for path in sorted(_source(package).rglob("*.py")):
            told.update(path.read_bytes())
    return told.hexdigest()[:16]


def _key(digest: str) -> str:
    return f"{digest}-{_key_suffix()}"


def _source(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise Unavailable(_("{package} is not installed beside the host", package=package))
    return Path(next(iter(spec.submodule_search_locations)))


def _copy_runner(target: Path) -> None:
    for package in _RUNNER_PACKAGES:
        shutil.copytree(_source(package), target / package, ignore=shutil.ignore_patterns("__pycache__", "*.wit"))


def _make_read_only(folder: Path) -> None:
    """Readable to every user, since root's runners are users of their own, and writable to none."""
    for path in _everything(folder):
        if not path.is_symlink():
            path.chmod(0o555 if path.is_dir() or path.stat().st_mode & stat.S_IXUSR else 0o444)
    folder.chmod(0o755)  # the marker is still to come


def _everything(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder):
        for name in (*folders, *names):
            yield Path(parent, name)


def _remove(folder: Path) -> None:
    for path in _everything(folder):
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o700)
    shutil.rmtree(folder)


@contextmanager
def _temporary(root: Path, prefix: str) -> Generator[Path]:
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=root))
    try:
        yield folder
    finally:
        if folder.exists():
            _remove(folder)
