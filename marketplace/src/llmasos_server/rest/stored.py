"""`/api/v1/apps/{publisher}/{name}/storage`: what an app stores for the caller."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request
from pydantic import Field

from llmasos.capabilities import stored_data
from llmasos.capabilities.storage import Area, check_key
from llmasos.errors import Invalid, NotFound, Unauthenticated
from llmasos.invocations.run import not_installed
from llmasos_server.rest.context import PREFIX, host_of
from llmasos_server.rest.identity import Caller, MayInstall, MayRead
from llmasos_server.rest.paging import DEFAULT_LIMIT, Page, PageCursor, PageLimit, decode_cursor, encode_cursor
from llmasos_server.rest.problems import InvalidCursor, ScopeMissing, responses
from llmasos_server.rest.schemas import ApiModel

router = APIRouter(prefix=f"{PREFIX}/apps/{{publisher}}/{{name}}/storage", tags=["installations"])

Publisher = Annotated[str, Path(max_length=64)]
AppName = Annotated[str, Path(max_length=64)]


class StorageView(ApiModel):
    """What an app stores for the caller. It stays if the app is removed with its data kept."""

    app: str
    values: int = Field(description="How many values there are.", examples=[12])
    size_bytes: int = Field(description="Their size, keys counted.", examples=[18_204])


class StoredKeyView(ApiModel):
    """A stored value, by its key."""

    key: str = Field(description="The app's own name for it.", examples=["notes/1"])


class DeletedView(ApiModel):
    """How much was deleted."""

    deleted: int = Field(description="How many values.", examples=[1])


@router.get(
    "", operation_id="read_storage", summary="Read size", responses=responses(Unauthenticated, ScopeMissing, NotFound)
)
def read_storage(request: Request, caller: MayRead, publisher: Publisher, name: AppName) -> StorageView:
    """How much an app stores for the caller; nothing, if there is no such app."""
    area, app = _area(request, caller, publisher, name)
    with area.database.read() as session:
        values, size_bytes = stored_data.stored(session, area.owner)
    return StorageView(app=app, values=values, size_bytes=size_bytes)


@router.get(
    "/keys",
    operation_id="list_stored_keys",
    summary="List keys",
    responses=responses(Unauthenticated, ScopeMissing, NotFound, InvalidCursor),
)
def list_stored_keys(
    request: Request,
    caller: MayRead,
    *,
    publisher: Publisher,
    name: AppName,
    limit: PageLimit = DEFAULT_LIMIT,
    cursor: PageCursor = None,
) -> Page[StoredKeyView]:
    """The keys of what an app stores for the caller, in their order."""
    after = str(decode_cursor(cursor, str)[0]) if cursor is not None else None
    area, _app = _area(request, caller, publisher, name)
    keys = area.keys("", after, limit + 1)
    following = encode_cursor(keys[limit - 1]) if len(keys) > limit else None
    return Page(items=[StoredKeyView(key=key) for key in keys[:limit]], next=following)


@router.delete(
    "",
    operation_id="delete_stored",
    summary="Delete stored data",
    responses=responses(Unauthenticated, ScopeMissing, NotFound, Invalid),
)
async def delete_stored(
    request: Request,
    caller: MayInstall,
    publisher: Publisher,
    name: AppName,
    key: Annotated[
        str | None, Query(max_length=512, description="Only the value of this key; else every value of the caller's.")
    ] = None,
) -> DeletedView:
    """Delete what an app stores for the caller: one value, or all. Nothing brings it back."""
    area, _app = _area(request, caller, publisher, name)
    if key is None:
        return DeletedView(deleted=await asyncio.to_thread(_clear, area))
    check_key(key)
    return DeletedView(deleted=int(await area.delete(key)))


def _clear(area: Area) -> int:
    with area.database.write() as session:
        return stored_data.clear(session, area.owner)


def _area(request: Request, caller: Caller, publisher: str, name: str) -> tuple[Area, str]:
    app, me = f"{publisher}/{name}", caller.principal
    if not caller.reaches(app):
        raise not_installed(app)
    return Area(host_of(request).database, (me.workspace, app, me.user), 0), app
