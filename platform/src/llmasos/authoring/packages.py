"""The Python packages that an app needs: locked by hash in its project, installed into a component or for its tests.

The lock, `requirements.lock`, pins every package to a version and the hashes of its files, and names no address. A
build tomorrow takes the same versions; remove the file to take newer ones. It holds for every platform: a component
takes the pure wheel of a package, a native app the wheel that fits its machine.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from email.parser import Parser
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from llmasos.authoring.process import BuildFailed
from llmasos.authoring.project import LOCK_IN_PROJECT, Project, check_inside, read_file
from llmasos.bundles import layout
from llmasos.bundles.lock import check_lock
from llmasos.errors import Invalid
from llmasos.home import default_home
from llmasos.i18n import _
from llmasos.runtimes.collection import ENVIRONMENTS
from llmasos.runtimes.environments import wheel_folder
from llmasos.runtimes.packages import check_tree, install_locked
from llmasos.runtimes.wheels import NoWheel
from llmasos.uv import configuration, find_uv

PYTHON: Final = "3.11"
# The runner and the component's entry bring these, at their own versions.
_BROUGHT: Final = frozenset({"llmasos-sdk", "llmasos"})
# The Python inside a component. Of the platforms that uv knows, Pyodide's is the one to which only pure wheels fit,
# besides a few of its own, which `_check_pure` refuses.
_COMPONENT: Final = ("--python-version", "3.14", "--python-platform", "wasm32-pyodide2024")
_RESOLVE_SECONDS: Final = 600
# Neither imported nor read by a package, and different on every machine.
_OF_INSTALLERS: Final = frozenset({"RECORD", "INSTALLER", "REQUESTED", "direct_url.json"})
_FOR_TESTS: Final = Path(".llmasos") / "packages"
_LOCKED: Final = Path(".llmasos") / "locked"


def lock(project: Path, requirements: Iterable[str]) -> str:
    """Lock what an app needs, and write the lock into its project; empty if it needs nothing.

    A lock is resolved again only if it or the requirements changed.

    Raises:
        Invalid: There is no set of wheels that fits.
        Unavailable: There is no `uv`.
    """
    wanted = sorted(requirements)
    mark = project / _LOCKED
    with suppress(FileNotFoundError, UnicodeDecodeError):
        text = read_file(project, project / LOCK_IN_PROJECT).decode()
        if wanted and read_file(project, mark).decode() == _inputs(wanted, text):
            check_lock(text)
            return text
    text = resolve(project, wanted)
    if text:
        write_text(project / LOCK_IN_PROJECT, text)
        _make_own_folder(project)
        write_text(mark, _inputs(wanted, text))
    return text


def _inputs(requirements: list[str], text: str) -> str:
    """What a lock was resolved from, and the lock: while it is the same, there is nothing to resolve."""
    return hashlib.sha256("\n".join([PYTHON, *requirements, text]).encode()).hexdigest()


def _make_own_folder(project: Path) -> None:
    """Make the folder of what LLMasOS keeps in a project, which git leaves out."""
    folder = project / _FOR_TESTS.parent
    check_inside(project, folder)
    folder.mkdir(exist_ok=True)
    if not (folder / ".gitignore").exists():
        (folder / ".gitignore").write_text("*\n")


def resolve(project: Path, requirements: Iterable[str]) -> str:
    """Resolve what an app needs to pinned and hashed wheels, preferring the versions of the project's lock.

    Raises:
        Invalid: There is no set of wheels that fits.
        Unavailable: There is no `uv`.
    """
    wanted = sorted(r for r in requirements if canonicalize_name(Requirement(r).name) not in _BROUGHT)
    if not wanted:
        return ""
    # In a folder of its own: uv follows a link at the path that it writes to.
    with tempfile.TemporaryDirectory(prefix="llmasos-lock-") as folder:
        made = Path(folder) / LOCK_IN_PROJECT
        with suppress(FileNotFoundError):
            made.write_bytes(read_file(project, project / LOCK_IN_PROJECT))
        text = _compiled(wanted, made)
    check_lock(text)
    return text


def _compiled(wanted: list[str], made: Path) -> str:
    command = [
        find_uv(), "pip", "compile", "-", "--quiet", "--generate-hashes", "--universal", "--python-version", PYTHON,
        "--only-binary", ":all:", "--no-emit-index-url", "--no-emit-find-links", "--no-header", "--no-annotate",
        "--output-file", str(made), *configuration(),
    ]  # fmt: skip
    done = subprocess.run(
        command, input="\n".join(wanted), cwd=made.parent, capture_output=True, text=True,
        timeout=_RESOLVE_SECONDS, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        said = " ".join(done.stderr.replace("╰─▶", " ").replace("×", " ").split())[:600]
        raise Invalid(_("the app's requirements cannot be locked to wheels: {said}", said=said))
    return made.read_text()


def write_text(path: Path, text: str) -> None:
    """Write a file of a project, whole or not at all; not if it has that text: `llmasos dev` watches it."""
    if path.is_file() and not path.is_symlink() and path.read_bytes() == text.encode():
        return
    handle, name = tempfile.mkstemp(prefix=".tmp-", dir=path.parent)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
    Path(name).chmod(0o644)
    Path(name).replace(path)


async def install_pure(text: str, target: Path) -> None:
    """Install the packages of a lock as they go into a component.

    Args:
        text: The lock.
        target: A folder, which is made.

    Raises:
        BuildFailed: A package is not pure Python.
        AppFailed: The packages are too large, or are not those that the lock pins.
        Unavailable: They cannot be fetched.
    """
    try:
        await _install(text, target, *_COMPONENT)
    except NoWheel as error:
        named = re.search(r"([\w.-]+)==\S+ has no ", error.message)
        raise _not_pure(named[1] if named else error.message) from error
    _check_pure(target)
    for path in target.glob("*.dist-info/*"):
        if path.name in _OF_INSTALLERS:
            path.unlink()


async def _install(text: str, target: Path, *platform: str) -> None:
    target.mkdir(parents=True, exist_ok=True)
    await install_locked(text, target, wheel_folder(default_home() / ENVIRONMENTS), *platform)
    check_tree(target)


def _check_pure(folder: Path) -> None:
    for path in folder.glob("*.dist-info/WHEEL"):
        wheel = Parser().parsestr(path.read_text(encoding="utf-8"))
        if any(not str(tag).endswith("-none-any") for tag in wheel.get_all("Tag", [])):
            raise _not_pure(path.parent.name.partition("-")[0])


def _not_pure(package: str) -> BuildFailed:
    return BuildFailed(
        _(
            "{package} is not pure Python, and a component takes only packages that are. A native app takes it: "
            'write kind = "python" in {manifest}, or begin one with `llmasos new NAME --runtime python`.',
            package=package,
            manifest=layout.MANIFEST,
        ),
    )


def installed_packages(project: Project) -> Path | None:
    """The folder with the packages of the project's lock, if its tests have installed them."""
    try:
        text = read_file(project.root, project.root / LOCK_IN_PROJECT)
    except FileNotFoundError:
        return None
    folder = _for_tests(project, text)
    return folder if folder.is_dir() else None


def _for_tests(project: Project, text: bytes) -> Path:
    return project.root / _FOR_TESTS / hashlib.sha256(text).hexdigest()[:16]


async def packages_for_tests(project: Project) -> Path | None:
    """The folder with the packages that an app's tests import, installed for this Python; None if it needs none.

    It stays in the project until the lock changes.

    Raises:
        Invalid: The requirements cannot be locked, or a package has no wheel for this machine.
        Unavailable: There is no `uv`, or it cannot reach its index.
    """
    text = lock(project.root, project.manifest.runtime.requirements)
    if not text:
        return None
    ready = _for_tests(project, text.encode())
    if ready.is_dir():
        return ready
    _make_own_folder(project.root)
    shutil.rmtree(ready.parent, ignore_errors=True)
    ready.parent.mkdir()
    making = Path(tempfile.mkdtemp(prefix=".tmp-", dir=ready.parent))
    await _install(text, making)
    making.rename(ready)
    return ready
