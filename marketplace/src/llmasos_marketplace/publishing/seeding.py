"""Publishes the apps that come with LLMasOS to the catalog of a home, at first use and after an upgrade.

The digest of each published app is recorded, so that the next call does nothing. An app that could not be
published is retried every time.
"""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias, cast

from llmasos.errors import Conflict, LlmasosError
from llmasos_marketplace.catalog.names import FIRST_PARTY
from llmasos_marketplace.catalog.service import Catalog
from llmasos_marketplace.publishing.first_party import Build, FirstPartyApp
from llmasos_marketplace.publishing.service import Publishing

SeedingOutcome: TypeAlias = Literal["published", "unchanged", "skipped"]

# A build uses one core and 300 MB for six seconds; more than two at once only wait for each other.
AT_ONCE = 2


@dataclass(frozen=True, slots=True)
class Seeded:
    """The result for one first-party app; `detail` says why it was skipped."""

    app_id: str
    version: str
    outcome: SeedingOutcome
    detail: str = ""


class Seeding:
    """Publishes first-party apps to a catalog.

    Args:
        home: Records the digests.
        catalog: The catalog to publish to.
        publishing: Publishes to that catalog.
        build: Builds an app that has no finished bundle.
    """

    def __init__(self, home: Path, catalog: Catalog, publishing: Publishing, build: Build) -> None:
        self._memory = home / "seeded.json"
        self._catalog = catalog
        self._publishing = publishing
        self._build = build

    async def seed(self, apps: Sequence[FirstPartyApp], done: Callable[[Seeded], None]) -> list[Seeded]:
        """Publish new apps, up to two at once.

        An app that cannot be built here, such as one in JavaScript without Node.js, is skipped with the reason; the
        others continue.

        Args:
            apps: The first-party apps.
            done: Receives each app's result as it ends.
        """
        remembered = self._remembered()
        room = asyncio.Semaphore(AT_ONCE)

        async def one(app: FirstPartyApp) -> Seeded:
            async with room:
                seeded = await self._seed(app, remembered)
            done(seeded)
            return seeded

        results = await asyncio.gather(*(one(app) for app in apps))
        self._remember(remembered)
        return list(results)

    def is_done(self, apps: Sequence[FirstPartyApp]) -> bool:
        """Whether every app was published before in its present form."""
        remembered = self._remembered()
        return all(remembered.get(app.app_id) == app.digest for app in apps)

    async def _seed(self, app: FirstPartyApp, remembered: dict[str, str]) -> Seeded:
        published = any(release.version == app.version for release in self._catalog.releases(app.app_id))
        if published and remembered.get(app.app_id) == app.digest:
            return Seeded(app.app_id, app.version, "unchanged")
        try:
            with tempfile.TemporaryDirectory(prefix="llmasos-seed-") as folder:
                bundle = await app.bundle(self._build, Path(folder))
                done = await self._publishing.publish(
                    bundle, by=FIRST_PARTY, first_party=True, checked_imports=app.imports
                )
        except Conflict as error:
            if not published:
                raise
            # The same source does not always compile to the same bytes; the existing release stays.
            remembered[app.app_id] = app.digest
            return Seeded(app.app_id, app.version, "unchanged", error.message)
        except (LlmasosError, OSError) as error:
            detail = error.message if isinstance(error, LlmasosError) else str(error)
            return Seeded(app.app_id, app.version, "skipped", detail)
        remembered[app.app_id] = app.digest
        return Seeded(app.app_id, app.version, "published" if done.changed else "unchanged")

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
