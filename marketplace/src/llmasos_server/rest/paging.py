"""Paged lists. A cursor marks the start of the next page, and is opaque to the client."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Iterable
from typing import Annotated, Generic, TypeVar, cast

from fastapi import Query
from pydantic import BaseModel

from llmasos_server.rest.problems import InvalidCursor

Item = TypeVar("Item")
Row = TypeVar("Row")

PageLimit = Annotated[int, Query(ge=1, le=200, description="How many items at most.")]
PageCursor = Annotated[str | None, Query(max_length=512, description="`next` of the page before.")]
DEFAULT_LIMIT = 50


class Page(BaseModel, Generic[Item]):
    """Some items of a list, and the cursor of those that follow."""

    items: list[Item]
    next: str | None = None
    """The cursor of the next page; null on the last one."""


def encode_cursor(*key: str | int) -> str:
    """Encode a cursor for the items after `key`, the sort key of the last item on the page."""
    return base64.urlsafe_b64encode(json.dumps(key, separators=(",", ":")).encode()).decode().rstrip("=")


def page_of(
    rows: Iterable[Row],
    key: Callable[[Row], tuple[str | int, ...]],
    limit: int,
    cursor: str | None,
    *types: type[str] | type[int],
) -> tuple[list[Row], str | None]:
    """Return a page of rows that fit in memory, and the cursor of the next page.

    Args:
        rows: All rows, in any order.
        key: Returns a row's unique sort key.
        limit: The largest number of rows.
        cursor: A cursor from this function; None for the first page.
        types: The type of each part of the key, in order.

    Raises:
        InvalidCursor: It is not one, or is of another list.
    """
    keyed = sorted(((key(row), row) for row in rows), key=lambda pair: pair[0])
    if cursor is not None:
        after = decode_cursor(cursor, *types)
        keyed = [pair for pair in keyed if pair[0] > after]
    following = encode_cursor(*keyed[limit - 1][0]) if len(keyed) > limit else None
    return [row for _, row in keyed[:limit]], following


def decode_cursor(cursor: str, *types: type[str] | type[int]) -> tuple[str | int, ...]:
    """Decode the sort key in a cursor.

    Args:
        cursor: A cursor from `encode_cursor`.
        types: The type of each part of the key, in order.

    Raises:
        InvalidCursor: It is not one, or is of another list.
    """
    try:
        key: object = json.loads(base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True))
    except (ValueError, binascii.Error, RecursionError) as error:
        raise InvalidCursor from error
    if not isinstance(key, list):
        raise InvalidCursor
    parts = tuple(cast("list[str | int]", key))
    if [type(part) for part in parts] != list(types) or not all(map(_is_storable, parts)):
        raise InvalidCursor
    return parts


def _is_storable(part: str | int) -> bool:
    """Whether a database can compare it: a text without NUL and lone surrogates, or an integer of 64 bits."""
    if isinstance(part, int):
        return -(1 << 63) <= part < 1 << 63
    return "\0" not in part and not any("\ud800" <= letter <= "\udfff" for letter in part)
