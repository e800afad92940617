"""Adds packages to an app: to its manifest, or its `package.json`, and to its lock."""

from __future__ import annotations

import asyncio
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from llmasos.authoring import javascript, npm, tools
from llmasos.authoring.packages import install_pure, resolve, write_text
from llmasos.authoring.project import LOCK_IN_PROJECT, Project, open_project, read_file
from llmasos.bundles import layout
from llmasos.bundles.manifest import parse_manifest
from llmasos.errors import Invalid
from llmasos.i18n import _


async def add(path: Path, packages: Sequence[str]) -> list[str]:
    """Add packages to the app in a folder; if one cannot be added, the project stays as it was.

    Args:
        path: The folder, or its `llmapp.toml`.
        packages: Requirements such as `python-slugify` or `numpy>=2`; npm's `name@version` for a JavaScript app.

    Returns:
        What the app names now, each with its version.

    Raises:
        NotFound, ManifestRejected: Of the manifest.
        Invalid: The app has no source, or a package is not available.
        BuildFailed: A package does not go into a component.
        Unavailable: A tool is missing, or packages cannot be fetched.
    """
    project = open_project(path)
    suffix = Path(project.manifest.runtime.source or "").suffix
    if suffix in javascript.SUFFIXES:
        return await npm.add(project.root, list(packages))
    if suffix == ".py":
        return await _add_python(project, packages)
    raise Invalid(_("the app is made from a finished binary: add packages where that is built"))


async def _add_python(project: Project, packages: Sequence[str]) -> list[str]:
    wanted = [_requirement(text) for text in packages]
    names = {canonicalize_name(each.name) for each in wanted}
    kept = [
        each for each in project.manifest.runtime.requirements if canonicalize_name(Requirement(each).name) not in names
    ]
    locked = await asyncio.to_thread(resolve, project.root, [*kept, *map(str, wanted)])
    if project.manifest.runtime.kind == "wasm":
        with tempfile.TemporaryDirectory(prefix="llmasos-add-") as folder:
            await install_pure(locked, Path(folder) / "packages")
    added = [_bounded(each, locked) for each in wanted]
    manifest = read_file(project.root, project.root / layout.MANIFEST).decode()
    text = _with_requirements(manifest, sorted([*kept, *added]))
    parse_manifest(text)
    write_text(project.root / LOCK_IN_PROJECT, locked)
    write_text(project.root / layout.MANIFEST, text)
    return added


def _with_requirements(manifest: str, requirements: list[str]) -> str:
    try:
        import tomlkit  # noqa: PLC0415 (a build tool, which hosts do not have)
    except ImportError:
        raise tools.missing("tomlkit") from None
    document = tomlkit.parse(manifest)
    cast("dict[str, object]", document["runtime"])["requirements"] = requirements
    return tomlkit.dumps(document)


def _requirement(text: str) -> Requirement:
    try:
        return Requirement(text)
    except InvalidRequirement:
        raise Invalid(_("{text!r} is not a package: write it as `name` or `name>=1.2`", text=text)) from None


def _bounded(requirement: Requirement, locked: str) -> str:
    """The requirement; with its locked version as the least if it names none."""
    if requirement.specifier or requirement.url:
        return str(requirement)
    name = re.escape(canonicalize_name(requirement.name))
    # A lock may pin one version for older Pythons, and another for newer ones.
    pinned = re.findall(rf"^{name}==([^\s;]+)", locked, re.MULTILINE)
    return f"{requirement}>={min(pinned, key=Version)}" if pinned and requirement.marker is None else str(requirement)
