"""A catalog with releases, for tests: written as by publishing, but without the checks."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from llmasos.bundles.reader import read_bundle
from llmasos.database.engine import Database
from llmasos.database.schema import ensure_schema
from llmasos_marketplace.catalog import repository
from llmasos_marketplace.catalog.repository import NewRelease
from llmasos_marketplace.catalog.service import Catalog
from llmasos_marketplace.catalog.store import BundleStore


def add_bundle(catalog: Catalog, path: Path, *, state: str = "available", at: datetime | None = None) -> str:
    """Put a bundle into the catalog unchecked, and return its digest."""
    bundle = read_bundle(path)
    catalog.store.put(path.read_bytes())
    new = NewRelease(bundle, imports=[], published_by="test", state=state)
    with catalog.database.write() as session:
        repository.add_release(session, new, at or datetime.now(UTC))
    return bundle.digest


def open_catalog(home: Path, url: str = "") -> Catalog:
    """Open the catalog of a home; without a URL, its database is SQLite in the home."""
    url = url or f"sqlite:///{home / 'llmasos.db'}"
    ensure_schema(url, home)
    return Catalog(Database(url), BundleStore(home / "bundles"))
