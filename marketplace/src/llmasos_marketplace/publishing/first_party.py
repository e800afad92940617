"""The apps that come with LLMasOS.

A checkout has their sources in `plugins/`. An installed package has their finished bundles, made from those sources
and checked in the sandbox when the package was built (`python -m llmasos_marketplace.publishing.first_party SOURCES
OUT`, which `hatch_build.py` runs), and an index with the results of the checks:

    _first_party/index.json                {"llmasos/triage": {"file", "version", "digest", "imports"}, …}
    _first_party/triage-0.1.1.llmapp
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
import sys
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from llmasos.authoring.build import build
from llmasos.authoring.describe import in_runners
from llmasos.authoring.project import files_beside_code, open_project, source_files
from llmasos.bundles.reader import read_bundle
from llmasos.errors import Unavailable
from llmasos.i18n import _
from llmasos.runtimes.runtime import Runtime
from llmasos.settings import Settings
from llmasos_marketplace.publishing.checks import check_release, raise_failures

Build: TypeAlias = Callable[[Path, Path], Awaitable[Path]]
"""Builds the bundle of an app's folder into another folder."""

INDEX: Final = "index.json"


@dataclass(frozen=True, slots=True)
class FirstPartyApp:
    """One app that comes with LLMasOS."""

    app_id: str
    version: str
    digest: str
    """The SHA-256 of the bundle, or of the sources if it is not built yet."""
    path: Path
    """The bundle, or the folder of the sources."""
    imports: tuple[str, ...] | None = None
    """The binary's imports, if the bundle was checked when this package was built."""

    async def bundle(self, make: Build, folder: Path) -> Path:
        """Return the finished bundle, built into `folder` if there is none."""
        if self.imports is not None:
            return self.path
        prebuilt = prebuilt_bundle(self.path)
        if prebuilt is not None:
            return prebuilt
        # A build writes beside its source, but the sources may be read-only.
        ignored = shutil.ignore_patterns("tests")
        copy = await asyncio.to_thread(shutil.copytree, self.path, folder / self.path.name, ignore=ignored)
        return await make(Path(copy), folder)


def first_party_folder() -> Path:
    """The folder of the bundles in an installed package, or of the sources in a checkout."""
    installed = Path(__file__).parents[1] / "_first_party"
    return installed if installed.is_dir() else Path(__file__).parents[4] / "plugins"


def first_party_apps(folder: Path) -> list[FirstPartyApp]:
    """The apps in a folder of bundles with their index, or in a folder of sources.

    Raises:
        Unavailable: There are none.
        ManifestRejected: A source's manifest has faults.
    """
    index = folder / INDEX
    if index.is_file():
        listed = json.loads(index.read_text(encoding="utf-8"))
        return [
            FirstPartyApp(name, app["version"], app["digest"], folder / app["file"], tuple(app["imports"]))
            for name, app in listed.items()
        ]
    # An operator plugin's folder has no manifest.
    found = [_of_source(path.parent) for path in sorted(folder.glob("*/llmapp.toml"))]
    if not found:
        raise Unavailable(
            _("The first-party apps are not in {folder}: install LLMasOS again.", folder=folder),
        )
    return found


def _of_source(folder: Path) -> FirstPartyApp:
    manifest = open_project(folder).manifest
    return FirstPartyApp(manifest.id, manifest.version, source_digest(folder), folder)


def source_digest(app: Path) -> str:
    """The SHA-256 of the names and contents of a bundle's sources."""
    total = hashlib.sha256()
    for path in (*source_files(app), *files_beside_code(app), *sorted(app.glob("prebuilt/*.llmapp"))):
        total.update(f"{path.relative_to(app).as_posix()}\0{path.stat().st_size}\0".encode())
        total.update(path.read_bytes())
    return total.hexdigest()


def prebuilt_bundle(app: Path) -> Path | None:
    """The finished bundle beside a source whose build needs more than Python packages, such as Node.js."""
    return max(app.glob("prebuilt/*.llmapp"), default=None)


async def make_bundles(sources: Path, out: Path, make: Build, runtime_of: Callable[[str], Runtime]) -> None:
    """Build the bundle of every app, check it as publishing does, and list it in the index.

    Args:
        sources: The folder of the apps' folders.
        out: The folder of the bundles and the index; an existing one is replaced.
        make: Builds a bundle.
        runtime_of: Returns the runtime of a kind, in which each is checked.

    Raises:
        ComponentRejected: A check failed.
        Unavailable: A check could not run.
    """
    await asyncio.to_thread(_empty, out)
    index: dict[str, object] = {}
    for app in first_party_apps(sources):
        with tempfile.TemporaryDirectory(prefix="llmasos-first-party-") as folder:
            made = await app.bundle(make, Path(folder))
            bundle = read_bundle(made)
            report = await check_release(bundle, runtime_of)
            raise_failures(bundle, report)
            if report.reason:
                raise Unavailable(report.reason)
            shutil.copyfile(made, out / made.name)
        imports = list(report.imports)
        index[app.app_id] = {
            "file": made.name,
            "version": app.version,
            "digest": bundle.digest,
            "imports": imports,
        }
    (out / INDEX).write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")


def _empty(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)


async def _main(sources: Path, out: Path) -> None:
    async with in_runners(Settings()) as runners:

        async def make(app: Path, folder: Path) -> Path:
            return await build(app, folder, describe=runners.describe)

        await make_bundles(sources, out, make, runners.of)


if __name__ == "__main__":
    asyncio.run(_main(Path(sys.argv[1]), Path(sys.argv[2])))
