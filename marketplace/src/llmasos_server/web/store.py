"""`/store`: finding apps, and the page of each."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Final
from urllib.parse import urlencode

from fastapi import Query
from packaging.version import Version
from sqlmodel import Session
from starlette.responses import Response

from llmasos.bundles.actions import checked_actions
from llmasos.bundles.layout import MAX_TEXT_BYTES
from llmasos.bundles.manifest import Manifest
from llmasos.bundles.parts import Permission
from llmasos.errors import NotFound
from llmasos.i18n import Message, _, from_text
from llmasos.installs import repository as installs
from llmasos.installs.risk import Risk, risks_of
from llmasos.installs.wording import describe, describe_limits, describe_risk
from llmasos_marketplace.catalog import reader, repository, shelves
from llmasos_marketplace.catalog.names import FIRST_PARTY
from llmasos_marketplace.catalog.tables import Release
from llmasos_server.rest.context import host_of
from llmasos_server.rest.identity import TokenScope
from llmasos_server.rest.paging import decode_cursor, encode_cursor
from llmasos_server.web.cards import AppCard, bundled, card, catalog_of, category_text
from llmasos_server.web.markdown import to_html
from llmasos_server.web.page import Shown, View, pages

router = pages()

ON_SHELF: Final = 6
ON_PAGE: Final = 24
SHOWN_VERSIONS: Final = 50


@dataclass(frozen=True, slots=True)
class Shelf:
    """A row of the store."""

    title: Message
    apps: list[AppCard]


@dataclass(frozen=True, slots=True)
class Found:
    """Apps of a search or category, and the address of the following ones."""

    apps: list[AppCard]
    more: str | None


@dataclass(frozen=True, slots=True)
class PermissionLine:
    """A permission in plain words."""

    capability: str
    text: str
    reason: str
    optional: bool


@dataclass(frozen=True, slots=True)
class RiskLine:
    """What a combination of permissions can lead to."""

    level: str
    text: str


@dataclass(frozen=True, slots=True)
class VersionLine:
    """A release in the list of an app's page."""

    version: str
    state: str
    reason: str | Message
    published_at: datetime


@dataclass(frozen=True, slots=True)
class AppState:
    """An app in this workspace."""

    installed: str | None
    newer: str | None
    """A newer release that can be installed in its place."""


@router.get("/store")
async def store(
    view: Shown,
    q: Annotated[str, Query(max_length=200)] = "",
    category: Annotated[str, Query(max_length=40)] = "",
    after: Annotated[str | None, Query(max_length=512)] = None,
) -> Response:
    """The store's shelves; or what a search or a category holds."""
    view.require(TokenScope.READ)
    words = " ".join(q.split())

    def read() -> dict[str, Any]:
        host = host_of(view.request)
        with host.database.read() as session:
            counted = catalog_of(view.request).categories()
            context: dict[str, Any] = {
                "categories": [(name, category_text(name, view.locale), count) for name, count in counted.items()],
                "category_text": category_text(category, view.locale),
            }
            if words or category:
                return context | {"found": _found(session, view, words, category, after), "shelves": []}
            models = host.gateway.registry.models.values()
            rows = (
                (_("New"), shelves.newest(session, ON_SHELF)),
                (_("Popular"), shelves.popular(session, ON_SHELF)),
                (_("Works on this computer without a key"), shelves.working_here(session, models, ON_SHELF)),
            )
            return context | {
                "found": None,
                "shelves": [Shelf(title, _cards(session, ids, view.locale)) for title, ids in rows if ids],
            }

    return view.render("store.html.jinja", q=words, category=category, **await asyncio.to_thread(read))


@router.get("/store/{publisher}/{name}")
async def app_page(view: Shown, publisher: str, name: str) -> Response:
    """Everything about an app that one may want to know before installing it."""
    view.require(TokenScope.READ)
    app_id = f"{publisher}/{name}"
    return view.render("app.html.jinja", **await asyncio.to_thread(_app_context, view, app_id))


def permission_lines(permissions: Iterable[Permission], locale: str) -> list[PermissionLine]:
    """What an app may touch, in plain words."""
    return [
        PermissionLine(each.capability, describe(each, locale), each.reason.in_locale(locale), each.optional)
        for each in permissions
    ]


def risk_lines(risks: tuple[Risk, ...], locale: str) -> list[RiskLine]:
    """What that adds up to."""
    return [RiskLine(each.level, describe_risk(each, locale)) for each in risks]


def state_of(session: Session, workspace: str, app_id: str) -> AppState:
    """Whether an app is installed in a workspace, and whether the catalog has a newer release."""
    current = installs.current(session, workspace, app_id)
    if current is None:
        return AppState(None, None)
    installed = Version(current[1].version)
    newer = [
        version
        for version in (
            Version(row.version) for row in repository.releases(session, app_id) if row.state == "available"
        )
        if version > installed and (installed.is_prerelease or not version.is_prerelease)
    ]
    return AppState(str(installed), str(max(newer)) if newer else None)


def _found(session: Session, view: View, words: str, category: str, after: str | None) -> Found:
    if words:
        last = decode_cursor(after, int, str) if after is not None else None
        key = None if last is None else (int(last[0]), str(last[1]))
        rows = repository.search(session, reader.queryable(words), after=key, limit=ON_PAGE + 1)
        ids = [str(row["id"]) for row in rows]
        cursor = encode_cursor(int(rows[ON_PAGE - 1]["rank"]), ids[ON_PAGE - 1]) if len(ids) > ON_PAGE else None
    else:
        start = str(decode_cursor(after, str)[0]) if after is not None else ""
        wanted = reader.queryable(category)
        ids = [row.id for row in repository.apps(session, after=start, limit=ON_PAGE + 1, category=wanted)]
        cursor = encode_cursor(ids[ON_PAGE - 1]) if len(ids) > ON_PAGE else None
    asked = {"q": words} if words else {"category": category}
    more = f"/store?{urlencode({**asked, 'after': cursor})}" if cursor is not None else None
    return Found(_cards(session, ids[:ON_PAGE], view.locale), more)


def _cards(session: Session, ids: list[str], locale: str) -> list[AppCard]:
    return [card(each.manifest, locale, each.installs) for each in shelves.shown(session, ids)]


def _app_context(view: View, app_id: str) -> dict[str, Any]:
    catalog, locale = catalog_of(view.request), view.locale
    known = catalog.app(app_id)
    with catalog.database.read() as session:
        releases = repository.releases(session, app_id)
        newest = next(row for row in releases if row.version == known.latest_version)
        state = state_of(session, view.principal.workspace, app_id)
        installs_ = shelves.shown(session, [app_id])[0].installs
    manifest = Manifest.model_validate(newest.manifest)
    return {
        "card": card(manifest, locale, installs_),
        "manifest": manifest,
        "release": newest,
        "first_party": app_id.startswith(f"{FIRST_PARTY}/"),
        "published_by": newest.published_by,
        "state": state,
        "actions": _actions(newest, locale),
        "permissions": permission_lines(manifest.permissions, locale),
        "risks": risk_lines(risks_of(manifest.permissions, manifest.limits), locale),
        "limits": describe_limits(manifest.limits, locale),
        "versions": [
            VersionLine(row.version, row.state, from_text(row.state_reason), row.published_at)
            for row in releases[:SHOWN_VERSIONS]
        ],
        "readme": to_html(_readme(view, newest)),
    }


def _actions(release: Release, locale: str) -> list[tuple[str, str]]:
    return [(each.title(locale), each.description(locale)) for each in checked_actions(release.actions)]


def _readme(view: View, release: Release) -> str:
    """The README in the reader's language, if the author wrote one, or else in English."""
    if view.locale == "zh":
        try:
            path = catalog_of(view.request).bundle(release.digest)
            return bundled(path, "README.zh.md", MAX_TEXT_BYTES).decode(errors="replace")
        except NotFound:
            pass
    return release.readme
