"""Every query of the catalog's tables."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from packaging.version import Version
from sqlalchemy import ColumnElement, String, func, text
from sqlalchemy import cast as sql_cast
from sqlmodel import Session, col, select

from llmasos.bundles.manifest import Manifest
from llmasos.bundles.reader import Bundle
from llmasos.database.engine import WriteSession
from llmasos_marketplace.catalog import reader, spelling
from llmasos_marketplace.catalog.tables import CatalogApp, Publisher, Release, ReleaseDependency, ReleasePermission


@dataclass(frozen=True, slots=True)
class NewRelease:
    """A checked bundle, and the result of the checks."""

    bundle: Bundle
    imports: list[str]
    """What its binary imports, by WIT name."""
    published_by: str
    state: str
    state_reason: str = ""


def app_ids(session: Session) -> list[str]:
    """Every app's id."""
    return list(session.exec(select(CatalogApp.id)))


def app(session: Session, app_id: str) -> CatalogApp | None:
    """One app."""
    return session.get(CatalogApp, app_id)


def publisher(session: Session, publisher_id: str) -> Publisher | None:
    """One publisher."""
    return session.get(Publisher, publisher_id)


def release(session: Session, app_id: str, version: str) -> Release | None:
    """One release."""
    return session.exec(select(Release).where(Release.app_id == app_id, Release.version == version)).one_or_none()


def releases(session: Session, app_id: str) -> list[Release]:
    """Every release of an app, newest first."""
    found = session.exec(select(Release).where(Release.app_id == app_id)).all()
    return sorted(found, key=lambda row: Version(row.version), reverse=True)


def release_digests(session: Session) -> list[tuple[str, str, str]]:
    """App, version and digest of every release."""
    rows = session.exec(select(Release.app_id, Release.version, Release.digest).order_by(Release.app_id))
    return [(row[0], row[1], row[2]) for row in rows]


def visible() -> ColumnElement[bool]:
    """Restrict to apps with an installable release."""
    offered = select(Release.id).where(Release.app_id == CatalogApp.id, Release.state == "available")
    return offered.exists()


def apps(
    session: Session, *, after: str, limit: int, category: str | None = None, publisher_id: str | None = None
) -> Sequence[CatalogApp]:
    """Apps ordered by id, those after `after`."""
    query = select(CatalogApp).where(CatalogApp.id > after, visible()).order_by(CatalogApp.id).limit(limit)
    if category is not None:
        # The column is a JSON list of plain words, so its text contains a word in quotes if the list contains it.
        query = query.where(sql_cast(col(CatalogApp.categories), String).contains(f'"{category}"', autoescape=True))
    if publisher_id is not None:
        query = query.where(CatalogApp.publisher_id == publisher_id)
    return session.exec(query).all()


def apps_by_id(session: Session, ids: Sequence[str]) -> Sequence[CatalogApp]:
    """The apps with these ids, in any order."""
    return session.exec(select(CatalogApp).where(col(CatalogApp.id).in_(ids))).all()


def categories(session: Session) -> dict[str, int]:
    """Each category of the offered apps, with the number of its apps; it reads every app."""
    kept = sql_cast(col(CatalogApp.categories), String)
    counted: dict[str, int] = {}
    for listed, count in session.exec(select(kept, func.count()).where(visible()).group_by(kept)):
        for category in json.loads(listed):
            counted[category] = counted.get(category, 0) + count
    return dict(sorted(counted.items()))


def last_change(session: Session) -> tuple[object, object]:
    """What differs after every change of what the catalog offers."""
    changed = session.exec(select(func.max(col(CatalogApp.updated_at)))).one()
    return changed, session.exec(select(func.max(col(Release.id)))).one()


def search(session: Session, words: str, *, after: tuple[int, str] | None, limit: int) -> list[dict[str, Any]]:
    """Apps that match every word, or the most likely intended words; the best match first.

    `rank` and `id` of the last one lead to the next page.
    """
    found = _search(session, words, after, limit)
    if not found:
        rows = session.connection().execute(text(reader.texts_statement()))
        meant = spelling.respelled(words, (str(part) for row in rows for part in row))
        found = _search(session, meant, after, limit) if meant else []
    return found


def _search(session: Session, words: str, after: tuple[int, str] | None, limit: int) -> list[dict[str, Any]]:
    sql, values = reader.search_statement(words, after=after, limit=limit)
    return [dict(row) for row in session.connection().execute(text(sql), values).mappings()]


def publishers(session: Session, *, after: str, limit: int) -> Sequence[Publisher]:
    """Publishers in the order of their ids."""
    return session.exec(select(Publisher).where(Publisher.id > after).order_by(Publisher.id).limit(limit)).all()


def count_apps(session: Session, publisher_id: str) -> int:
    """How many offered apps a publisher has."""
    query = select(func.count()).select_from(CatalogApp).where(CatalogApp.publisher_id == publisher_id, visible())
    return session.exec(query).one()


def add_release(session: WriteSession, new: NewRelease, at: datetime) -> Release:
    """Add a release, with its app and publisher if they are new."""
    bundle, manifest = new.bundle, new.bundle.manifest
    publisher_id = manifest.id.partition("/")[0]
    if session.get(Publisher, publisher_id) is None:
        session.add(Publisher(id=publisher_id, created_at=at))
        session.flush()
    known = session.get(CatalogApp, manifest.id)
    if known is None:
        known = CatalogApp(
            id=manifest.id,
            publisher_id=publisher_id,
            name_en=manifest.name.en,
            summary_en=manifest.summary.en,
            latest_version=manifest.version,
            created_at=at,
            updated_at=at,
        )
        session.add(known)
        session.flush()
    row = Release(
        app_id=manifest.id,
        version=manifest.version,
        digest=bundle.digest,
        size_bytes=bundle.size_bytes,
        runtime=manifest.runtime.kind,
        component_digest=bundle.component_digest,
        manifest=manifest.model_dump(mode="json"),
        actions=bundle.actions_json,
        imports=new.imports,
        readme=bundle.readme,
        state=new.state,
        state_reason=new.state_reason,
        published_by=new.published_by,
        published_at=at,
    )
    session.add(row)
    session.flush()
    if row.id is None:  # pragma: no cover - the database gives every row a number
        raise RuntimeError("a release got no number")
    for permission in manifest.permissions:
        session.add(
            ReleasePermission(
                release_id=row.id,
                capability=permission.capability,
                optional=permission.optional,
                scope=permission.model_dump(mode="json", exclude={"capability", "optional"}),
            )
        )
    for dependency, specifier in manifest.dependencies.items():
        session.add(ReleaseDependency(release_id=row.id, app_id=dependency, specifier=specifier))
    refresh_app(session, known, at)
    return row


def refresh_app(session: WriteSession, known: CatalogApp, at: datetime) -> None:
    """Copy the newest release into the app's row; prefers available to yanked, and final to pre-release."""
    session.flush()
    rows = releases(session, known.id)
    best = max(
        rows, key=lambda row: (row.state == "available", not Version(row.version).is_prerelease, Version(row.version))
    )
    manifest = Manifest.model_validate(best.manifest)
    known.name_en, known.name_zh = manifest.name.en, manifest.name.zh or ""
    known.summary_en, known.summary_zh = manifest.summary.en, manifest.summary.zh or ""
    known.categories = list(manifest.categories)
    known.latest_version = best.version
    known.updated_at = at
    session.add(known)
