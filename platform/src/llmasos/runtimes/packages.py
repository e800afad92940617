"""Puts packages into an environment: those that its lock pins, and the app's own wheel.

All are a stranger's. `uv` looks up in its user's indexes where the wheels of the lock are; they are fetched by hash;
and a strict reader unpacks them. Each of the three is a confined process that can write only where it must (`building`
says how), and the second is the only one that both knows an address and holds a file. The app's own wheel, which came
in its bundle, is inflated by the bundle's reader, in memory.
"""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path
from typing import Final, Literal, cast

from packaging.tags import sys_tags
from packaging.utils import parse_wheel_filename

from llmasos.bundles.archive import unpack
from llmasos.errors import AppFailed, BundleRejected, LlmasosError, Unavailable
from llmasos.i18n import Message, _
from llmasos.machine import disk_full
from llmasos.runtimes.building import WroteTooMuch, base_python, build_step, our_program
from llmasos.runtimes.prepared import everything
from llmasos.runtimes.wheels import NoWheel, WheelStore, chosen_wheels
from llmasos.uv import configuration, environment, find_uv, readable
from llmasos_runner.protocol import BuildFailure, FetchTask, UnpackTask, WheelSource

# PyTorch for processors takes 800 MiB; nothing that an app needs beside it takes much.
ENVIRONMENT_BYTES: Final = 2 << 30
_MAX_FILES: Final = 200_000
# The pages of an index that list the files of 300 packages.
_INDEX_BYTES: Final = 512 << 20
_MAX_REPORT_CHARACTERS: Final = 600
_PYLOCK: Final = "pylock.toml"
# Only what the lock names, only as wheels. It reads the index's pages, and no package.
_LOOK_UP: Final = (
    "pip", "compile", "--quiet", "--no-progress", "--no-deps", "--only-binary", ":all:", "--generate-hashes",
    "--no-header", "--format", _PYLOCK, "--output-file", _PYLOCK,
)  # fmt: skip
# The parts of a wheel's `.data` folder that are imported (the binary distribution format, "the .data directory").
_DATA: Final = re.compile(r"[^/]+\.data/(?P<part>[^/]+)/(?P<rest>.+)")


_UNSAFE: Final[dict[str, Message]] = {
    "name": _("a name in it leads out of it, or is no plain name"),
    "link": _("it holds a link or a device"),
    "clash": _("two of its names, or one of another package, mean the same file"),
    "broken": _("it is no plain wheel, or is damaged"),
}


async def install_locked(lock: str, target: Path, wheels: Path, *platform: str) -> None:
    """Install the packages that a lock pins.

    Args:
        lock: The lock.
        target: The folder that they are installed into.
        wheels: The folder that keeps wheels for the next app that needs them.
        platform: Options of `uv` for another Python or machine than this one. Then pure wheels alone are taken.

    Raises:
        NoWheel: A package has no wheel that fits.
        AppFailed: A package cannot be had as a wheel with the hash that the lock names, is not safe, or they are too
            large.
        Unavailable: There is no `uv`, or it cannot reach its index.
    """
    store = WheelStore(wheels)
    with store.scratch() as folder:
        kept = store.pylock(lock, *platform)
        try:
            pylock = kept or await _look_up(lock, folder, *platform)
            await _install(pylock, lock, target, folder, store, pure=bool(platform))
        except Unavailable:
            if kept is None:
                raise
            # The index may have moved its files since.
            pylock = await _look_up(lock, folder, *platform)
            await _install(pylock, lock, target, folder, store, pure=bool(platform))
        store.keep_pylock(pylock, lock, *platform)
    store.trim()


async def _install(pylock: str, lock: str, target: Path, folder: Path, store: WheelStore, *, pure: bool) -> None:
    chosen = chosen_wheels(pylock, lock, pure=pure)
    missing = [wheel for wheel in chosen if not store.take(wheel["sha256"], folder)]
    if missing:
        await _fetch(missing, folder)
    await _unpack(chosen, folder, target)
    store.keep([wheel["sha256"] for wheel in missing], folder)


async def _look_up(lock: str, folder: Path, *platform: str) -> str:
    """What the indexes offer of a lock's packages for a platform, as `pylock.toml` (PEP 751)."""
    with tempfile.TemporaryDirectory(prefix="uv-", dir=folder) as working:
        (Path(working) / "requirements.txt").write_text(lock)
        options = ["--python", base_python(), "--cache-dir", str(Path(working, "cache")), *platform, *configuration()]
        try:
            ended = await build_step(
                [find_uv(), *_LOOK_UP, "requirements.txt", *options], Path(working),
                max_bytes=_INDEX_BYTES, read=readable(), network=True, environment=environment(),
            )  # fmt: skip
        except WroteTooMuch:
            raise Unavailable(_("the index of packages sends too much, and nothing is installed")) from None
        if ended.code != 0:
            raise _failure(ended.errors.decode(errors="replace"))
        return (Path(working) / _PYLOCK).read_text()


async def _fetch(wheels: list[WheelSource], folder: Path) -> None:
    task: FetchTask = {"folder": str(folder), "wheels": wheels, "max_bytes": ENVIRONMENT_BYTES}
    await _run("fetch.py", task, folder, read=readable(), network=True, environment=environment())


async def _unpack(wheels: list[WheelSource], folder: Path, target: Path) -> None:
    task: UnpackTask = {
        "folder": str(folder), "wheels": wheels, "target": str(target),
        "max_bytes": ENVIRONMENT_BYTES, "max_files": _MAX_FILES,
    }  # fmt: skip
    await _run("wheels.py", task, folder, write=[target])


async def _run(
    program: Literal["fetch.py", "wheels.py"],
    task: FetchTask | UnpackTask,
    folder: Path,
    *,
    read: list[str] | None = None,
    write: list[Path] | None = None,
    network: bool = False,
    environment: dict[str, str] | None = None,
) -> None:
    try:
        ended = await build_step(
            our_program(program), folder, max_bytes=task["max_bytes"], task=task, read=read or (), write=write or (),
            network=network, environment=environment,
        )  # fmt: skip
    except WroteTooMuch:
        raise _too_large() from None
    if ended.code == 0:
        return
    try:
        raise _refusal(cast(BuildFailure, json.loads(ended.output)))
    except ValueError:
        raise _failure(ended.errors.decode(errors="replace") or f"{program}: {ended.code}") from None


def _refusal(failure: BuildFailure) -> LlmasosError:
    name, said = failure["name"][:200], failure["said"][:200]
    match failure["reason"]:
        case "network":
            return Unavailable(
                _("the packages of the app cannot be fetched now: {said}", said=f"{name}: {said}"),
            )
        case "hash":
            return AppFailed(
                _("a package is not the one that the lock pins, and is not installed: {said}", said=f"{name}: {said}"),
            )
        case "size":
            return _too_large()
        case reason:
            return AppFailed(
                _("{name} is not installed: {why} ({entry!r})", name=name, why=_UNSAFE[reason], entry=said),
            )


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
                continue  # scripts and headers, which are not used
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
    """Check the installed files.

    Raises:
        AppFailed: They are too large, or include something other than files and folders.
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
