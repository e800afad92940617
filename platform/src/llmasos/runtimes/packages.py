"""Puts packages into an environment: those of the lock by `uv`, and the app's own wheel by the strict reader.

Both are a stranger's. The app's wheel is inflated by the reader that counts and refuses, in memory; what `uv` writes
while it unpacks the others is counted from outside, and `uv` is killed past the limit.
"""

from __future__ import annotations

import asyncio
import re
import resource
import shutil
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

from packaging.tags import sys_tags
from packaging.utils import parse_wheel_filename

from llmasos.bundles.archive import unpack
from llmasos.errors import AppFailed, BundleRejected, LlmasosError, Unavailable
from llmasos.i18n import _
from llmasos.machine import disk_full
from llmasos.runtimes.prepared import everything
from llmasos.uv import configuration

# PyTorch for processors takes 800 MiB; nothing that an app needs beside it takes much.
ENVIRONMENT_BYTES: Final = 2 << 30
_MAX_FILES: Final = 200_000
# A large scientific stack over a slow line; what waits longer hangs.
_INSTALL_SECONDS: Final = 1800.0
_CPU_SECONDS: Final = 600
_MEMORY_BYTES: Final = 4 << 30
_WATCH_SECONDS: Final = 0.05
_MAX_REPORT_CHARACTERS: Final = 600
# Only what the lock names, only as wheels, only with its hashes. From a cache files are copied, never linked: an app
# that could write its environment would change that of every other.
_LOCKED: Final = (
    "pip", "install", "--quiet", "--no-progress", "--no-deps", "--only-binary", ":all:", "--link-mode", "copy",
    "--require-hashes", "--requirements",
)  # fmt: skip
# The parts of a wheel's `.data` folder that are imported (the binary distribution format, "the .data directory").
_DATA: Final = re.compile(r"[^/]+\.data/(?P<part>[^/]+)/(?P<rest>.+)")


class NoWheel(AppFailed):
    """A package has no wheel for this machine, and nothing is built here."""

    code = "no-wheel"


def find_uv() -> str:
    """Return the path of `uv`.

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
    """Return the interpreter that runners are started with: the one beneath a virtual environment."""
    return getattr(sys, "_base_executable", None) or sys.executable


async def install_locked(lock: Path, target: Path, *platform: str) -> None:
    """Install the packages that a lock pins.

    Args:
        lock: The file.
        target: The folder that they are installed into.
        platform: Options of `uv` for another Python or machine than this one.

    Raises:
        NoWheel: A package has no wheel that fits.
        AppFailed: A package cannot be had as a wheel with the hash that the lock names, or they are too large.
        Unavailable: There is no `uv`, or it cannot reach its index.
    """
    where = ["--python", base_python(), "--target", str(target)]
    command = [find_uv(), *_LOCKED, str(lock), *where, *platform, *configuration()]
    # From the cache alone first: what was fetched before needs no network.
    for offline in (["--offline"], []):
        report = await _run(*command, *offline, folder=lock.parent)
        if report is None:
            return
    raise _failure(report or "")


def install_wheel(name: str, wheel: bytes, target: Path) -> None:
    """Install the app's own wheel.

    Raises:
        BundleRejected: The wheel is not safe, or does not fit beside its packages.
        AppFailed: It is for another kind of machine.
    """
    if not parse_wheel_filename(name)[3] & frozenset(sys_tags()):
        raise AppFailed(
            _("{name} is a wheel for another kind of machine or Python, and nothing is built here", name=name),
        )
    try:
        files = unpack(wheel)
    except BundleRejected as error:
        raise BundleRejected(_("{name}: {error}", name=name, error=error.message)) from error
    for path, content in files.items():
        place = path
        if (data := _DATA.fullmatch(path)) is not None:
            if data["part"] not in {"purelib", "platlib"}:
                continue  # scripts and headers, which nothing uses
            place = data["rest"]
        try:
            (target / place).parent.mkdir(parents=True, exist_ok=True)
            (target / place).write_bytes(content)
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            raise BundleRejected(
                _(
                    "{name}: {place!r} is something else in a package that the app needs: rename it",
                    name=name,
                    place=place,
                ),
            ) from None


def check_tree(folder: Path) -> None:
    """Count what was installed.

    Raises:
        AppFailed: It is too large, or holds something else than files and folders.
    """
    size = 0
    for number, path in enumerate(everything(folder)):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise AppFailed(
                _("a package of the app holds {path!r}, which is no file", path=path.name),
            )
        size += path.lstat().st_size
        if size > ENVIRONMENT_BYTES or number > _MAX_FILES:
            raise _too_large()


async def _run(*command: str, folder: Path) -> str | None:
    """Run `uv` under limits; None if it succeeded, else what it reported."""
    child = await asyncio.create_subprocess_exec(
        *command, cwd=folder, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with _limited(child) as watch:
        try:
            _, report = await asyncio.wait_for(child.communicate(), _INSTALL_SECONDS)
        except TimeoutError:
            return f"it took longer than {_INSTALL_SECONDS:g} seconds"
    if watch.done() and not watch.cancelled():
        raise _too_large()
    return None if child.returncode == 0 else report.decode(errors="replace")


@asynccontextmanager
async def _limited(child: asyncio.subprocess.Process) -> AsyncGenerator[asyncio.Task[None]]:
    """Limit a process, and kill it at the end of the block or when it wrote too much; then the task is done."""
    with suppress(ProcessLookupError):
        resource.prlimit(child.pid, resource.RLIMIT_FSIZE, (ENVIRONMENT_BYTES, ENVIRONMENT_BYTES))
        resource.prlimit(child.pid, resource.RLIMIT_CPU, (_CPU_SECONDS, _CPU_SECONDS))
        resource.prlimit(child.pid, resource.RLIMIT_DATA, (_MEMORY_BYTES, _MEMORY_BYTES))
    watch = asyncio.create_task(_kill_if_it_writes_too_much(child))
    try:
        yield watch
    finally:
        if child.returncode is None:
            with suppress(ProcessLookupError):
                child.kill()
            await child.wait()
        watch.cancel()
        await asyncio.wait({watch})


async def _kill_if_it_writes_too_much(child: asyncio.subprocess.Process) -> None:
    # It writes twice what is installed: once into its cache, once into the environment.
    while _written_bytes(child.pid) <= 2 * ENVIRONMENT_BYTES:  # noqa: ASYNC110 -- another process sets no event
        await asyncio.sleep(_WATCH_SECONDS)
    with suppress(ProcessLookupError):
        child.kill()


def _written_bytes(pid: int) -> int:
    """What a process wrote to files and sockets; 0 if it has ended, or the system keeps no account of it."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/io").read_text().splitlines():
            if line.startswith("wchar:"):
                return int(line.split()[1])
    return 0


def _too_large() -> AppFailed:
    mib = ENVIRONMENT_BYTES >> 20
    return AppFailed(
        _(
            "the packages of the app take more than {mib} MiB or {max_files:,} files: leave some out",
            mib=mib,
            max_files=_MAX_FILES,
        ),
    )


def _failure(report: str) -> LlmasosError:
    said = " ".join(report.replace("╰─▶", " ").replace("×", " ").split())[:_MAX_REPORT_CHARACTERS]
    lowered = said.lower()
    if "hash mismatch" in lowered:
        return AppFailed(
            _("a package is not the one that the lock pins, and is not installed: {said}", said=said),
        )
    if "no wheels" in lowered or "no usable wheels" in lowered or "only-binary" in lowered or "no-build" in lowered:
        return NoWheel(
            _("a package has no wheel for this machine, and nothing is built here: {said}", said=said),
        )
    if "no space left" in lowered or "disk quota" in lowered:
        return disk_full()
    if "failed to fetch" in lowered or "dns" in lowered or "connect" in lowered:
        return Unavailable(_("the packages of the app cannot be fetched now: {said}", said=said))
    return AppFailed(_("the app's environment cannot be built: {said}", said=said))
