"""`/catalog/v1`: the catalog, read-only, without a token.

The server keeps its `Catalog` in `app.state.catalog`.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, cast

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import FileResponse
from packaging.version import InvalidVersion, Version
from pydantic import BaseModel

from llmasos.errors import NotFound
from llmasos.i18n import _, from_text
from llmasos_marketplace.catalog import repository
from llmasos_marketplace.catalog.reader import no_such_app
from llmasos_marketplace.catalog.schemas import (
    AppDetail,
    AppSummary,
    Category,
    PublisherDetail,
    ReleaseDetail,
    ReleaseSummary,
    app_summary,
    release_detail,
    release_summary,
)
from llmasos_marketplace.catalog.service import Catalog
from llmasos_server.rest.paging import DEFAULT_LIMIT, Page, PageCursor, PageLimit, decode_cursor, encode_cursor
from llmasos_server.rest.problems import InvalidCursor, responses

router = APIRouter(prefix="/catalog/v1", tags=["catalog"])

# A bundle's bytes never change under its address, and a yanked one still resolves, so caches may keep it forever.
IMMUTABLE = "public, max-age=31536000, immutable"
# An app's releases change, so a cache revalidates each time, usually without a change.
REVALIDATE = "no-cache"

NOT_FOUND = responses(NotFound)
BAD_CURSOR = responses(InvalidCursor)


def catalog_of(request: Request) -> Catalog:
    """The server's catalog."""
    return cast("Catalog", request.app.state.catalog)


def _same(request: Request, tag: str) -> bool:
    sent = request.headers.get("if-none-match", "")
    return sent.strip() == "*" or tag in {part.strip().removeprefix("W/") for part in sent.split(",")}


def _tagged(request: Request, body: BaseModel) -> Response:
    """The response with an entity tag of its bytes, or 304 if the caller has them."""
    content = body.model_dump_json().encode()
    tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    headers = {"etag": tag, "cache-control": REVALIDATE}
    if _same(request, tag):
        return Response(status_code=304, headers=headers)
    return Response(content, media_type="application/json", headers=headers)


# The plain functions below run in threads: reading is fast, but decoding the rows of many releases is not.


@router.get("/apps", response_model=Page[AppSummary], responses=BAD_CURSOR)
def list_apps(
    request: Request,
    limit: PageLimit = DEFAULT_LIMIT,
    cursor: PageCursor = None,
    category: Annotated[str | None, Query(max_length=40, description="Only apps of this category.")] = None,
    publisher: Annotated[str | None, Query(max_length=64, description="Only apps of this publisher.")] = None,
) -> Response:
    """Apps with an offered release, by id."""
    after = str(decode_cursor(cursor, str)[0]) if cursor else ""
    with catalog_of(request).database.read() as session:
        found = repository.apps(session, after=after, limit=limit + 1, category=category, publisher_id=publisher)
        items = [app_summary(row) for row in found[:limit]]
    following = encode_cursor(items[-1].id) if len(found) > limit else None
    return _tagged(request, Page[AppSummary](items=items, next=following))


@router.get("/search", response_model=Page[AppSummary], responses=BAD_CURSOR)
def search(
    request: Request,
    q: Annotated[str, Query(max_length=200, description="Words; each must stand in id, names, summary or categories.")],
    limit: PageLimit = DEFAULT_LIMIT,
    cursor: PageCursor = None,
) -> Response:
    """Apps that match every word, the best match first."""
    after: tuple[int, str] | None = None
    if cursor:
        rank, last = decode_cursor(cursor, int, str)
        after = (int(rank), str(last))
    with catalog_of(request).database.read() as session:
        ranked = repository.search(session, q, after=after, limit=limit + 1)
        rows = {row.id: row for row in repository.apps_by_id(session, [str(each["id"]) for each in ranked[:limit]])}
        items = [app_summary(rows[str(each["id"])]) for each in ranked[:limit]]
    following = None
    if len(ranked) > limit:
        following = encode_cursor(int(ranked[limit - 1]["rank"]), str(ranked[limit - 1]["id"]))
    return _tagged(request, Page[AppSummary](items=items, next=following))


@router.get("/categories", response_model=list[Category])
def list_categories(request: Request) -> list[Category]:
    """Every category, with the number of its apps."""
    return [Category(name=name, apps=count) for name, count in catalog_of(request).categories().items()]


@router.get("/publishers/{publisher}", response_model=PublisherDetail, responses=NOT_FOUND)
def show_publisher(request: Request, publisher: str) -> Response:
    """A publisher. Its apps are `/apps?publisher=`."""
    row, count = catalog_of(request).publisher(publisher)
    return _tagged(request, PublisherDetail(id=row.id, created_at=row.created_at, apps=count))


@router.get("/apps/{publisher}/{name}", response_model=AppDetail, responses=NOT_FOUND)
def show_app(request: Request, publisher: str, name: str) -> Response:
    """An app with its releases, newest first; yanked and quarantined ones are marked."""
    app_id = f"{publisher}/{name}"
    with catalog_of(request).database.read() as session:
        row = repository.app(session, app_id)
        if row is None:
            raise no_such_app(app_id, repository.app_ids(session))
        releases = [release_summary(each) for each in repository.releases(session, app_id)]
        return _tagged(request, AppDetail(**app_summary(row).model_dump(), releases=releases))


@router.get("/apps/{publisher}/{name}/releases", response_model=Page[ReleaseSummary], responses=NOT_FOUND | BAD_CURSOR)
def list_releases(
    request: Request, publisher: str, name: str, limit: PageLimit = DEFAULT_LIMIT, cursor: PageCursor = None
) -> Response:
    """The releases of an app, newest first."""
    app_id = f"{publisher}/{name}"
    with catalog_of(request).database.read() as session:
        rows = repository.releases(session, app_id)
        if not rows:
            raise no_such_app(app_id, repository.app_ids(session))
    if cursor:
        last = _version_in(cursor)
        rows = [row for row in rows if Version(row.version) < last]
    items = [release_summary(row) for row in rows[:limit]]
    following = encode_cursor(items[-1].version) if len(rows) > limit else None
    return _tagged(request, Page[ReleaseSummary](items=items, next=following))


def _version_in(cursor: str) -> Version:
    try:
        return Version(str(decode_cursor(cursor, str)[0]))
    except InvalidVersion as error:
        raise InvalidCursor from error


@router.get("/apps/{publisher}/{name}/releases/{version}", response_model=ReleaseDetail, responses=NOT_FOUND)
def show_release(request: Request, publisher: str, name: str, version: str) -> Response:
    """One release: its manifest, its actions with their schemas, and what its binary imports."""
    return _tagged(request, release_detail(catalog_of(request).release(f"{publisher}/{name}", version)))


@router.get(
    "/apps/{publisher}/{name}/releases/{version}/bundle",
    response_class=FileResponse,
    responses={
        **NOT_FOUND,
        206: {"description": "The part that `range` asked for."},
        304: {"description": "The bytes are those that the caller has."},
    },
)
@router.head("/apps/{publisher}/{name}/releases/{version}/bundle", include_in_schema=False)
def download_bundle(request: Request, publisher: str, name: str, version: str) -> Response:
    """The bundle's bytes; the entity tag is their SHA-256. Ranges are supported, so that a download can resume."""
    catalog = catalog_of(request)
    row = catalog.release(f"{publisher}/{name}", version)
    if row.state == "quarantined":
        raise NotFound(
            _(
                "{app} {version} is quarantined, so its bundle is not given out: {state_reason}",
                app=row.app_id,
                version=version,
                state_reason=from_text(row.state_reason),
            ),
        )
    tag = f'"{row.digest}"'
    headers = {"etag": tag, "cache-control": IMMUTABLE}
    if _same(request, tag):
        return Response(status_code=304, headers=headers)
    return FileResponse(
        catalog.bundle(row.digest),
        media_type="application/vnd.llmasos.app+zip",
        filename=f"{name}-{version}.llmapp",
        headers=headers,
    )
