"""The npm packages that a JavaScript app needs: locked by hash in its project, and bundled into its component.

The lock is npm's own `package-lock.json`, written without addresses. npm runs in a folder of its own: a project's
`.npmrc` could name another registry, and no package's install script is ever run.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, cast

from llmasos.authoring import javascript
from llmasos.authoring.packages import write_text
from llmasos.authoring.process import BuildFailed, run_tool
from llmasos.authoring.project import read_file
from llmasos.errors import Conflict, Unavailable
from llmasos.i18n import _

DESCRIPTION: Final = "package.json"
LOCK: Final = "package-lock.json"
_NEW: Final = {"private": True, "type": "module"}
_FLAGS: Final = ("--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error", "--omit=dev", "--omit=optional")
_MACHINE_CODE: Final = ("*.node", "binding.gyp")


async def add(project: Path, packages: list[str]) -> list[str]:
    """Add packages to a project: to `package.json`, and to the lock with all that they need.

    Returns:
        What was added, as `name@version`.

    Raises:
        BuildFailed: There is no such package, or one is not pure JavaScript; then the project is as it was.
        Unavailable: npm is missing.
    """
    with tempfile.TemporaryDirectory(prefix="llmasos-npm-") as name:
        folder = Path(name)
        before = _copy(project, folder)
        await _npm("install", "--save", "--omit-lockfile-registry-resolved", *packages, folder=folder)
        _check(folder)
        description = (folder / DESCRIPTION).read_text(encoding="utf-8")
        locked = _json(folder / LOCK)["packages"]
        write_text(project / LOCK, (folder / LOCK).read_text(encoding="utf-8"))
        write_text(project / DESCRIPTION, description)
        after = _dependencies(folder)
    added = [each for each in after if after[each] != before.get(each) or each in packages]
    return [f"{each}@{locked[f'node_modules/{each}']['version']}" for each in added]


async def install_pure(project: Path, folder: Path) -> None:
    """Install the packages of a project's lock into the `node_modules` of another folder; nothing if it has none.

    Raises:
        Conflict: `package.json` names a package that the lock does not have.
        BuildFailed: A package is not pure JavaScript, or is not the one that the lock pins.
        Unavailable: npm is missing.
    """
    if not _dependencies(project):
        return
    with tempfile.TemporaryDirectory(prefix="llmasos-npm-") as name:
        staged = Path(name)
        _copy(project, staged)
        if not (staged / LOCK).is_file():
            raise Conflict(_("{file} names packages, and no lock pins them: run `llmasos add`", file=DESCRIPTION))
        _check_lock(staged)
        await _npm("ci", folder=staged)
        _check(staged)
        shutil.copytree(staged / "node_modules", folder / "node_modules")


async def packages_for_tests(project: Path) -> None:
    """Install the packages of the lock into the folder that Node searches, unless they are there."""
    installed = project / "node_modules"
    if all((installed / each).is_dir() for each in _dependencies(project)):
        return
    with tempfile.TemporaryDirectory(prefix="llmasos-npm-") as name:
        await install_pure(project, Path(name))
        shutil.copytree(Path(name) / "node_modules", installed, dirs_exist_ok=True)


def _copy(project: Path, folder: Path) -> dict[str, str]:
    """Copy what describes and locks a project's packages; returns those that it names."""
    (folder / DESCRIPTION).write_text(json.dumps(_NEW), encoding="utf-8")
    for name in (DESCRIPTION, LOCK):
        with suppress(FileNotFoundError):
            (folder / name).write_bytes(read_file(project, project / name))
    return _dependencies(folder)


def _dependencies(folder: Path) -> dict[str, str]:
    try:
        return cast("dict[str, str]", _json(folder / DESCRIPTION).get("dependencies", {}))
    except FileNotFoundError:
        return {}


def _json(path: Path) -> dict[str, Any]:
    try:
        return cast("dict[str, Any]", json.loads(path.read_text(encoding="utf-8")))
    except ValueError as error:
        raise BuildFailed(_("{file} is not JSON: {error}", file=path.name, error=error)) from None


async def _npm(*command: str, folder: Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise Unavailable(
            _("npm packages need npm, which comes with Node.js {major} or later", major=javascript.NODE_MAJOR)
        )
    await run_tool([npm, *command, *_FLAGS], cwd=folder, what=f"npm {command[0]}")


def _locked(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The packages of a lock that go into a component, by name."""
    for place, entry in cast("dict[str, dict[str, Any]]", _json(folder / LOCK).get("packages", {})).items():
        if place and not entry.get("dev") and not entry.get("optional"):
            yield place.rpartition("node_modules/")[2], entry


def _check_lock(folder: Path) -> None:
    for name, entry in _locked(folder):
        if entry.get("link") or not str(entry.get("integrity", "")).startswith("sha512-"):
            raise BuildFailed(_("{file} pins no hash of {name}: add it from the registry", file=LOCK, name=name))


def _check(folder: Path) -> None:
    """Refuse packages with machine code, nested ones too: dev and optional packages are not installed here."""
    _check_lock(folder)
    impure = [name for name, entry in _locked(folder) if entry.get("hasInstallScript")]
    for pattern in _MACHINE_CODE:
        for path in (folder / "node_modules").rglob(pattern):
            inside = path.relative_to(folder).as_posix().rpartition("node_modules/")[2].split("/")
            impure.append("/".join(inside[: 2 if inside[0].startswith("@") else 1]))
    if impure:
        raise BuildFailed(
            _(
                "{name} is not pure JavaScript, and a component takes only packages that are. "
                "A native app takes machine code, in Python: `llmasos new NAME --runtime python`.",
                name=impure[0],
            ),
        )
