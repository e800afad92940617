"""The queries of the store's pages: what stands on its shelves, and what a card of an app shows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import func
from sqlalchemy.orm import load_only
from sqlmodel import Session, col, select

from llmasos.bundles.manifest import Manifest
from llmasos.bundles.parts import ModelPermission
from llmasos.gateway.models import ModelEntry
from llmasos.installs.tables import Installation
from llmasos_marketplace.catalog import repository
from llmasos_marketplace.catalog.tables import CatalogApp, Release, ReleasePermission


@dataclass(frozen=True, slots=True)
class Shown:
    """The newest release of an app."""

    app_id: str
    version: str
    manifest: Manifest
    installs: int
    """In how many workspaces of this host the app is installed."""


def newest(session: Session, limit: int) -> list[str]:
    """The apps that came into the catalog last."""
    query = (
        select(CatalogApp.id)
        .where(repository.visible())
        .order_by(col(CatalogApp.created_at).desc(), col(CatalogApp.id).desc())
    )
    return list(session.exec(query.limit(limit)))


def popular(session: Session, limit: int) -> list[str]:
    """The apps that most workspaces installed."""
    query = (
        select(Installation.app_id)
        .join(CatalogApp, col(CatalogApp.id) == col(Installation.app_id))
        .where(repository.visible())
        .group_by(col(Installation.app_id))
        .order_by(func.count().desc(), col(Installation.app_id))
    )
    return list(session.exec(query.limit(limit)))


def working_here(session: Session, models: Iterable[ModelEntry], limit: int) -> list[str]:
    """The newest apps that need nothing but this computer: no key, no other server, and no model elsewhere."""
    needs_more = (
        select(ReleasePermission.release_id)
        .join(Release, col(Release.id) == col(ReleasePermission.release_id))
        .where(
            col(Release.app_id) == col(CatalogApp.id),
            col(Release.version) == col(CatalogApp.latest_version),
            col(ReleasePermission.capability).in_(("secrets", "http", "apps")),
            col(ReleasePermission.optional).is_(False),
        )
        .exists()
    )
    query = (
        select(col(CatalogApp.id))
        .where(repository.visible(), ~needs_more)
        .order_by(col(CatalogApp.created_at).desc(), col(CatalogApp.id).desc())
        .limit(limit * 4)
    )
    found = list(session.exec(query))
    local = [each for each in models if each.goes_to == "local"]
    works = {each.app_id for each in shown(session, found) if works_with(each.manifest, local)}
    return [app_id for app_id in found if app_id in works][:limit]


def works_with(manifest: Manifest, models: Iterable[ModelEntry]) -> bool:
    """Whether one of these models is one that the app may ask, if it needs any."""
    permission = manifest.permission("model")
    if not isinstance(permission, ModelPermission) or permission.optional:
        return True
    return any(each.tier in permission.tiers or each.name in permission.models for each in models)


def shown(session: Session, ids: Sequence[str]) -> list[Shown]:
    """The newest release of each of these apps, in their order."""
    counted = select(Installation.app_id, func.count()).where(col(Installation.app_id).in_(ids))
    installs = {str(row[0]): int(row[1]) for row in session.exec(counted.group_by(col(Installation.app_id)))}
    query = (
        select(Release)
        .join(CatalogApp, col(CatalogApp.id) == col(Release.app_id))
        .where(col(Release.version) == col(CatalogApp.latest_version), col(CatalogApp.id).in_(ids))
        # The rest is large.
        .options(load_only(Release.app_id, Release.version, Release.manifest))  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    )
    found = {
        row.app_id: Shown(row.app_id, row.version, Manifest.model_validate(row.manifest), installs.get(row.app_id, 0))
        for row in session.exec(query)
    }
    return [found[app_id] for app_id in ids if app_id in found]
