"""Typed values as JSON."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from datetime import date, datetime
from enum import Enum
from typing import cast

from llmasos_sdk.dates import write_time
from llmasos_sdk.decoding import SUPPORTED, decode
from llmasos_sdk.errors import SchemaMismatch
from llmasos_sdk.files import File
from llmasos_sdk.hints import Hint
from llmasos_sdk.host import JsonValue
from llmasos_sdk.messages import message as _
from llmasos_sdk.records import fields_of


def encode(value: object) -> JsonValue:  # noqa: PLR0911 (a return a kind of value)
    """A typed value as JSON: dataclasses become objects, dates become texts.

    Raises:
        SchemaMismatch: JSON has no such value, such as NaN, a set or bytes.
    """
    if isinstance(value, Enum):  # before str and int, which it may be as well
        return encode(value.value)
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise SchemaMismatch(_("{value} is no number in JSON", value=value))
        return value
    if isinstance(value, datetime):  # before date, which it is as well
        return write_time(value)
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, File):
        return value.as_json()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {each.name: encode(getattr(value, each.name)) for each in fields_of(type(value))}
    if isinstance(value, list | tuple):
        return [encode(item) for item in cast("list[object]", value)]
    if isinstance(value, Mapping):
        items = cast("Mapping[object, object]", value)
        if any(not isinstance(key, str) for key in items):
            raise SchemaMismatch(_("a JSON object has texts for keys"))
        return {cast("str", key): encode(item) for key, item in items.items()}
    raise SchemaMismatch(_("a {kind} has no JSON; return {supported}", kind=type(value).__name__, supported=SUPPORTED))


def encode_as(hint: Hint, value: object, place: str = "the result") -> JsonValue:
    """Encode a value and check it against its hint, so that an action returns what it declares.

    Raises:
        SchemaMismatch: It is something else.
    """
    encoded = encode(value)
    decode(hint, encoded, place)
    return encoded
