"""The catalog: lists apps and releases, yanks releases, and is the source of installs."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from llmasos.bundles.manifest import Manifest
from llmasos.database.engine import Database
from llmasos.errors import Conflict, NotFound
from llmasos.i18n import _, from_text
from llmasos.installs.resolve import no_such_release
from llmasos.installs.source import Candidate
from llmasos_marketplace.catalog import repository
from llmasos_marketplace.catalog.reader import no_such_app
from llmasos_marketplace.catalog.store import BundleStore
from llmasos_marketplace.catalog.tables import CatalogApp, Publisher, Release


class Catalog:
    """The local catalog: rows in the database, bundles in a folder. A `ReleaseSource` for installs."""

    def __init__(self, database: Database, store: BundleStore) -> None:
        self.database = database
        self.store = store
        # Counting reads every app: 0.3 s for 100,000. It is done anew after each change of the catalog.
        self._counted: tuple[object, Mapping[str, int]] | None = None

    def releases(self, app_id: str) -> list[Candidate]:
        """Every release of an app, newest first; empty if it has none."""
        with self.database.read() as session:
            return [
                Candidate(
                    app_id=row.app_id,
                    version=row.version,
                    digest=row.digest,
                    manifest=Manifest.model_validate(row.manifest),
                    yanked=row.state == "yanked",
                    quarantined=row.state == "quarantined",
                )
                for row in repository.releases(session, app_id)
            ]

    def bundle(self, digest: str) -> Path:
        """The bundle file.

        Raises:
            NotFound: It is not in the store.
        """
        return self.store.path(digest)

    def collect(self) -> int:
        """Remove bundles without a release, and return how many bytes that freed."""
        with self.database.read() as session:
            needed = frozenset(digest for _, _, digest in repository.release_digests(session))
        return self.store.collect(needed)

    def categories(self) -> Mapping[str, int]:
        """Each category of the offered apps, with the number of its apps."""
        with self.database.read() as session:
            state = repository.last_change(session)
            if self._counted is None or self._counted[0] != state:
                self._counted = (state, repository.categories(session))
            return self._counted[1]

    def app(self, app_id: str) -> CatalogApp:
        """Find an app.

        Raises:
            NotFound: It is not in the catalog; the message names the most similar one.
        """
        with self.database.read() as session:
            found = repository.app(session, app_id)
            if found is None:
                raise no_such_app(app_id, repository.app_ids(session))
            return found

    def release(self, app_id: str, version: str) -> Release:
        """Find a release.

        Raises:
            NotFound: There is no such app or release.
        """
        self.app(app_id)
        with self.database.read() as session:
            found = repository.release(session, app_id, version)
            if found is None:
                versions = [row.version for row in repository.releases(session, app_id)]
                raise no_such_release(app_id, version, versions)
        return found

    def publisher(self, publisher_id: str) -> tuple[Publisher, int]:
        """Find a publisher, and count its offered apps.

        Raises:
            NotFound: No publisher has that name.
        """
        with self.database.read() as session:
            found = repository.publisher(session, publisher_id)
            if found is None:
                raise NotFound(_("There is no publisher {publisher!r}.", publisher=publisher_id))
            return found, repository.count_apps(session, publisher_id)

    def yank(self, app_id: str, version: str, reason: str = "") -> bool:
        """Withdraw a release from new installs. Existing and locked installs keep it.

        Returns:
            Whether it changed anything.

        Raises:
            NotFound: There is no such release.
            Conflict: It is quarantined.
        """
        return self._move(app_id, version, "available", "yanked", reason)

    def unyank(self, app_id: str, version: str) -> bool:
        """Offer a yanked release again; returns and raises as `yank`."""
        return self._move(app_id, version, "yanked", "available", "")

    def _move(self, app_id: str, version: str, before: str, after: str, reason: str) -> bool:
        self.release(app_id, version)
        with self.database.write() as session:
            row = repository.release(session, app_id, version)
            known = repository.app(session, app_id)
            if row is None or known is None:  # nothing removes a release
                raise no_such_release(app_id, version, ())
            if row.state == after:
                return False
            if row.state != before:
                raise Conflict(
                    _(
                        "{app} {version} is {state} ({state_reason}): publish it again to have it checked.",
                        app=app_id,
                        version=version,
                        state=row.state,
                        state_reason=from_text(row.state_reason),
                    ),
                )
            row.state, row.state_reason = after, reason
            session.add(row)
            repository.refresh_app(session, known, datetime.now(UTC))
        return True
