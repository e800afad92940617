"""The embedded catalog: the apps that come with LLMasOS, built and published here at first use.

They stand in `plugins/` of the checkout, or in the installed package. A folder's source digest is remembered, so that
the next time does nothing.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias, cast

from llmasos.authoring.project import open_project, source_files
from llmasos.errors import Conflict, LlmasosError
from llmasos_marketplace.catalog.names import FIRST_PARTY
from llmasos_marketplace.catalog.service import Catalog
from llmasos_marketplace.publishing.service import Publishing

Outcome: TypeAlias = Literal["published", "unchanged", "skipped"]
Build: TypeAlias = Callable[[Path, Path], Awaitable[Path]]
"""Builds the bundle of an app's folder into another folder."""

# A build takes one core and 300 MB for six seconds; more than two at once only wait for each other.
AT_ONCE = 2


@dataclass(frozen=True, slots=True)
class Seeded:
    """What became of one first-party app; `detail` says why it was skipped."""

    app_id: str
    version: str
    outcome: Outcome
    detail: str = ""
    detail_zh: str = ""


def plugins_folder() -> Path:
    """Where the first-party apps are: in the installed package, or in the checkout."""
    installed = Path(__file__).parents[1] / "_plugins"
    return installed if installed.is_dir() else Path(__file__).parents[4] / "plugins"


def first_party_apps(folder: Path) -> list[Path]:
    """The folders of apps; those of operator plugins have no manifest."""
    return sorted(path.parent for path in folder.glob("*/llmapp.toml"))


def source_digest(app: Path) -> str:
    """The SHA-256 of all that a bundle is made from: names and contents."""
    total = hashlib.sha256()
    for path in (*source_files(app), *sorted(app.glob("prebuilt/*.llmapp"))):
        total.update(f"{path.relative_to(app).as_posix()}\0{path.stat().st_size}\0".encode())
        total.update(path.read_bytes())
    return total.hexdigest()


def prebuilt_bundle(app: Path) -> Path | None:
    """The finished bundle beside a source that needs a tool which is not everywhere, such as Node."""
    return max(app.glob("prebuilt/*.llmapp"), default=None)


_SAME = ("skipped before, and nothing changed since", "之前已跳过，此后没有变化")


def _skipped(source: str) -> str:
    """What is remembered of a source that could not be built here: with other tools it is worth another try."""
    return f"skipped {source} {'with' if shutil.which('node') else 'without'} node"


class Seeding:
    """Publishes the first-party apps to a catalog.

    Args:
        home: Where the digests are remembered.
        catalog: Where they are published.
        publishing: How.
        build: Builds one that has no prebuilt bundle.
    """

    def __init__(self, home: Path, catalog: Catalog, publishing: Publishing, build: Build) -> None:
        self._memory = home / "seeded.json"
        self._catalog = catalog
        self._publishing = publishing
        self._build = build

    async def seed(self, folder: Path, done: Callable[[Seeded], None]) -> list[Seeded]:
        """Build and publish what is new, up to two at once.

        An app that cannot be built here, such as one in JavaScript where there is no Node, is skipped with the
        reason; the others go on.

        Args:
            folder: The folder of first-party apps.
            done: Told each as it ends.
        """
        remembered = self._remembered()
        room = asyncio.Semaphore(AT_ONCE)

        async def one(app: Path) -> Seeded:
            async with room:
                seeded = await self._seed(app, remembered)
            done(seeded)
            return seeded

        results = await asyncio.gather(*(one(app) for app in first_party_apps(folder)))
        self._remember(remembered)
        return list(results)

    def is_done(self, folder: Path) -> bool:
        """Whether nothing there is new. Reads the sources, and nothing else."""
        remembered = self._remembered()
        for app in first_party_apps(folder):
            manifest = open_project(app).manifest
            source = source_digest(app)
            if remembered.get(manifest.id) not in (source, _skipped(source)):
                return False
        return True

    async def _seed(self, app: Path, remembered: dict[str, str]) -> Seeded:
        manifest = open_project(app).manifest
        name, version = manifest.id, manifest.version
        source = await asyncio.to_thread(source_digest, app)
        there = any(release.version == version for release in self._catalog.releases(name))
        if there and remembered.get(name) == source:
            return Seeded(name, version, "unchanged")
        if remembered.get(name) == _skipped(source):
            return Seeded(name, version, "unchanged", *_SAME)
        try:
            with tempfile.TemporaryDirectory(prefix="llmasos-seed-") as out:
                bundle = prebuilt_bundle(app) or await self._built(app, Path(out))
                done = await self._publishing.publish(bundle, by=FIRST_PARTY, first_party=True)
        except Conflict as error:
            if not there:
                raise
            # The same source does not always compile to the same bytes; the release that is there stays.
            remembered[name] = source
            return Seeded(name, version, "unchanged", error.message, error.message_zh)
        except (LlmasosError, OSError) as error:
            remembered[name] = _skipped(source)
            said_zh = error.message_zh if isinstance(error, LlmasosError) else str(error)
            return Seeded(name, version, "skipped", str(error), said_zh)
        remembered[name] = source
        return Seeded(name, version, "published" if done.changed else "unchanged")

    async def _built(self, app: Path, out: Path) -> Path:
        # A build writes beside its source, and an installed package may be read-only.
        copy = await asyncio.to_thread(shutil.copytree, app, out / app.name, ignore=shutil.ignore_patterns("tests"))
        return await self._build(Path(copy), out)

    def _remembered(self) -> dict[str, str]:
        try:
            return cast("dict[str, str]", json.loads(self._memory.read_text()))
        except (OSError, ValueError):
            return {}

    def _remember(self, digests: dict[str, str]) -> None:
        if digests == self._remembered():
            return
        handle, name = tempfile.mkstemp(prefix=".tmp-", dir=self._memory.parent)
        with os.fdopen(handle, "w") as file:
            json.dump(digests, file, indent=1, sort_keys=True)
        Path(name).replace(self._memory)
