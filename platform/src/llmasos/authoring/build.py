"""From a folder with a manifest to a bundle.

The same source gives the same bytes. The compilers do not: componentize-py and jco keep the memory of an interpreter
that hashed with random seeds. So a finished component is kept in the home under the digest of all that it was made
from, and a second build takes it from there.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeAlias

from llmasos.authoring import javascript, npm, python, tools, wrap
from llmasos.authoring.native import build_native
from llmasos.authoring.packages import install_pure, lock
from llmasos.authoring.process import BuildFailed
from llmasos.authoring.project import Project, open_project, read_file
from llmasos.bundles import layout
from llmasos.bundles.actions import parse_actions
from llmasos.bundles.writer import write_bundle
from llmasos.home import default_home, make_private_folder
from llmasos.i18n import _

# Returns `actions.json` of a built binary: it runs `describe` in a runner, since app code runs nowhere else.
Describe: TypeAlias = Callable[[Path, frozenset[str], str], Awaitable[str]]
# A build makes 18 MB for Python. Twenty of them serve an author's last days.
KEPT_BUILDS = 20
KEPT_BUILDS_BYTES = 512 << 20
_ABANDONED_SECONDS = 3600


async def build(project: Path, out: Path | None = None, *, describe: Describe) -> Path:
    """Build the bundle of the app in a folder.

    Args:
        project: The folder, or its `llmapp.toml`.
        out: The bundle's path, or a folder for it; None: `dist/` in the project.
        describe: Runs a component's `describe`, or a wheel's actions, in a runner: gets its path, the
            capabilities that the manifest declares, and the kind of the app.

    Returns:
        The bundle's path.

    Raises:
        NotFound, ManifestRejected: Of the manifest.
        BuildFailed: The source does not build; the message has the author's own error.
        BundleRejected: What it describes is not what a bundle may hold.
        Unavailable: A tool is missing, with how to install it.
    """
    opened = open_project(project)
    with tempfile.TemporaryDirectory(prefix="llmasos-build-") as name:
        folder = Path(name)
        files = dict(_texts(opened))
        code = await _code(opened, folder)
        files |= code
        manifest = opened.manifest
        described = await describe(_main(code, folder), manifest.capabilities, manifest.runtime.kind)
    parse_actions(described)
    listed = json.loads(described)
    files[layout.ACTIONS] = (json.dumps(listed, ensure_ascii=False, indent=1, sort_keys=True) + "\n").encode()
    destination = _destination(opened, out)
    write_bundle(files, destination)
    return destination


def _destination(project: Project, out: Path | None) -> Path:
    if out is None:
        return project.root / "dist" / project.bundle_name
    return out if out.suffix == layout.SUFFIX else out / project.bundle_name


def _texts(project: Project) -> dict[str, bytes]:
    """The files that are taken as they are: manifest, README, licence, icon."""
    files = {layout.MANIFEST: read_file(project.root, project.root / layout.MANIFEST)}
    for path in sorted(project.root.iterdir()):
        if layout.TEXTS.fullmatch(path.name):
            files[path.name] = read_file(project.root, path)
    if layout.README not in files:
        raise BuildFailed(
            _(
                "there is no {readme} in {root}: write what the app does, for its page",
                readme=layout.README,
                root=project.root,
            ),
        )
    icon = project.manifest.icon
    if icon is not None:
        files[icon] = read_file(project.root, project.file(icon, "icon"))
    return files


def _main(code: dict[str, bytes], folder: Path) -> Path:
    """Write the code to a place that a runner can read, and return the path of the component or the wheel."""
    place = folder / "code"
    place.mkdir()
    for name, content in code.items():
        (place / name).write_bytes(content)
    return next(place / name for name in code if name != layout.LOCK)


async def _code(project: Project, folder: Path) -> dict[str, bytes]:
    """The bundle's code, by file name."""
    runtime = project.manifest.runtime
    if runtime.component is not None:
        binary = project.file(runtime.component, "component")
        return {layout.COMPONENT: await wrap.component_of(binary, project.manifest.capabilities, folder)}
    if runtime.kind == "wasm":
        return {layout.COMPONENT: await component_from_source(project, folder)}
    native = await asyncio.to_thread(build_native, project.root, project.manifest)
    return {native.wheel_name: native.wheel, layout.LOCK: native.lock.encode()}


async def component_from_source(project: Project, folder: Path) -> bytes:
    """The component of the manifest's source, from the kept builds if it was built before."""
    staged = folder / "staged"
    staged.mkdir()
    digest = await stage(project, staged)
    return (await built(staged, digest, source_of(project))).read_bytes()


async def stage(project: Project, folder: Path) -> str:
    """Lay out all that a component is built from: the app's files and packages, the SDK, the world.

    Returns:
        The digest of these files and of the tool that builds them: what a build is known by.

    Raises:
        BuildFailed: The source is of no kind that a component is built from.
    """
    source = source_of(project)
    await stage_packages(project, source, folder)
    lay_out = python.stage if source.suffix == ".py" else javascript.stage
    lay_out(source, project.manifest.capabilities, folder)
    return digest_of(folder, tool_of(source))


def source_of(project: Project) -> Path:
    """The source that a component is built from.

    Raises:
        BuildFailed: It is not there, or is in no language that is built here.
    """
    source = project.file(project.manifest.runtime.source or "", "source")
    if source.suffix == ".wasm":
        raise BuildFailed(
            _('{source} is a binary: name it as component = "{source}" instead of source', source=source.name),
        )
    if source.suffix != ".py" and source.suffix not in javascript.SUFFIXES:
        raise BuildFailed(
            _(
                "{source}: source is Python (.py), JavaScript or TypeScript (.js, .ts); a program in another "
                'language names its binary: component = "app.wasm"',
                source=source.name,
            ),
        )
    return source


async def stage_packages(project: Project, source: Path, folder: Path) -> None:
    """Put the packages that the app's lock pins into the folder of a build."""
    if source.suffix != ".py":
        await npm.install_pure(project.root, folder)
    elif locked := await asyncio.to_thread(lock, project.root, project.manifest.runtime.requirements):
        await install_pure(locked, folder / python.PACKAGES)


def tool_of(source: Path) -> str:
    """The tool that builds a source, with its version."""
    if source.suffix == ".py":
        return f"componentize-py {tools.version('componentize-py')}"
    return f"jco {javascript.toolchain_digest()}"


async def built(staged: Path, digest: str, source: Path) -> Path:
    """The component of a staged folder, in the kept builds: built now, unless it was before.

    Args:
        staged: The folder.
        digest: Of the folder and of the tool that builds it.
        source: Whose language says which tool that is.
    """
    kept = default_home() / "builds" / f"{digest}.wasm"
    if kept.is_file():
        os.utime(kept)
    else:
        _keep(kept, await (python if source.suffix == ".py" else javascript).componentize(staged))
    return kept


def digest_of(folder: Path, built_by: str) -> str:
    """The SHA-256 of a staged folder and of the name and version of the tool that builds it."""
    total = hashlib.sha256(built_by.encode())
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            name = path.relative_to(folder).as_posix().encode()
            content = path.read_bytes()
            total.update(b"%d:%s%d:" % (len(name), name, len(content)))
            total.update(content)
    return total.hexdigest()


def _keep(path: Path, content: bytes) -> None:
    """Store a component atomically, and remove the least recently used ones."""
    make_private_folder(path.parent)
    handle, name = tempfile.mkstemp(prefix=".tmp-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        Path(name).replace(path)
    finally:
        Path(name).unlink(missing_ok=True)
    collect_builds(path.parent)


def collect_builds(folder: Path, *, kept: int = KEPT_BUILDS, kept_bytes: int = KEPT_BUILDS_BYTES) -> int:
    """Remove the kept builds that were not used for longest, and what killed builds left.

    Args:
        folder: The home's `builds`.
        kept: How many of the newest may stay.
        kept_bytes: How much of them may stay.

    Returns:
        How many bytes that freed.
    """
    found = [(path, status) for path in folder.glob("*.wasm") if (status := _status(path)) is not None]
    freed = total = 0
    for number, (path, status) in enumerate(sorted(found, key=lambda each: each[1].st_mtime, reverse=True)):
        total += status.st_size
        if number >= kept or total > kept_bytes:
            freed += status.st_size
            path.unlink(missing_ok=True)
    for path in folder.glob(".tmp-*"):
        status = _status(path)
        if status is not None and time.time() - status.st_mtime > _ABANDONED_SECONDS:
            freed += status.st_size
            path.unlink(missing_ok=True)
    return freed


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except FileNotFoundError:  # another build has just removed it
        return None
