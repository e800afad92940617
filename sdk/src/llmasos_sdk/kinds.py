"""What JSON each type hint reads: kinds, choices, and the tags of records in a union."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from datetime import date, datetime
from enum import Enum
from typing import Any, Literal, cast, get_args

from llmasos_sdk.files import File
from llmasos_sdk.hints import Hint, alternatives_of, bare, dict_value, list_item, origin_of
from llmasos_sdk.host import JsonValue
from llmasos_sdk.records import Record, record_of

KINDS: dict[Hint, frozenset[str]] = {
    str: frozenset({"string"}),
    date: frozenset({"string"}),
    datetime: frozenset({"string"}),
    int: frozenset({"number"}),
    float: frozenset({"number"}),
    bool: frozenset({"boolean"}),
    type(None): frozenset({"null"}),
    File: frozenset({"object"}),
    Any: frozenset({"string", "number", "boolean", "null", "array", "object"}),
}
SCALARS: tuple[Hint, ...] = (str, int, float, bool, type(None))


def kind_of(value: JsonValue) -> str:
    """The kind of a JSON value: string, number, boolean, null, array or object."""
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int() | float():
            return "number"
        case str():
            return "string"
        case list():
            return "array"
        case _:
            return "object"


def choices_of(hint: Hint) -> list[JsonValue] | None:
    """The JSON values of a Literal or an Enum, in order; None for another hint."""
    if origin_of(hint) is Literal:
        return [cast("JsonValue", each.value if isinstance(each, Enum) else each) for each in get_args(hint)]
    if isinstance(hint, type) and issubclass(hint, Enum):
        return [cast("JsonValue", each.value) for each in hint]
    return None


def kinds_of(hint: Hint) -> frozenset[str]:
    """The kinds of JSON values that a hint reads."""
    found: frozenset[str] = frozenset()
    for each in alternatives_of(hint):
        choices = choices_of(each)
        if choices is not None:
            found |= {kind_of(value) for value in choices}
        elif list_item(each) is not None:
            found |= {"array"}
        elif dict_value(each) is not None or record_of(each) is not None:
            found |= {"object"}
        else:
            found |= KINDS.get(each, frozenset())
    return found


def tags_of(members: Iterable[Hint]) -> dict[Any, frozenset[str]]:
    """The fields that tell a union's records apart, by record: Literals of one name without a common value."""
    records = [record.cls for each in members if (record := record_of(bare(each))) is not None]
    return _tags(tuple(records)) if len(records) > 1 else {}


@functools.cache
def _tags(classes: tuple[Any, ...]) -> dict[Any, frozenset[str]]:
    found: dict[Any, set[str]] = {each: set() for each in classes}
    for index, one in enumerate(classes):
        for other in classes[index + 1 :]:
            left, right = cast("Record", record_of(one)).hints, cast("Record", record_of(other)).hints
            for name in left.keys() & right.keys():
                ours, theirs = choices_of(bare(left[name])), choices_of(bare(right[name]))
                if ours is not None and theirs is not None and not any(_same(a, b) for a in ours for b in theirs):
                    found[one].add(name)
                    found[other].add(name)
    return {each: frozenset(names) for each, names in found.items()}


def _same(one: JsonValue, other: JsonValue) -> bool:
    return kind_of(one) == kind_of(other) and one == other
