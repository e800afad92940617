"""How the members of a union are told apart by the JSON that each reads."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from datetime import date, datetime
from enum import Enum
from typing import Any, Literal, cast, get_args

from llmasos_sdk.files import File
from llmasos_sdk.hints import Hint, alternatives_of, bare, dict_value, list_item, name_of, origin_of
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
FILE_FIELDS = frozenset({"name", "media_type", "base64"})


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


def check_union(members: Sequence[Hint]) -> None:
    """Check that no JSON value could be read as two different values.

    Raises:
        TypeError: It could; the message says what to declare instead.
    """
    tags = tags_of(members)
    for index, one in enumerate(members):
        for other in members[index + 1 :]:
            if _clash(one, other, tags):
                raise TypeError(f"{name_of(one)} | {name_of(other)} is ambiguous: {_cure(bare(one), bare(other))}")


def _cure(one: Hint, other: Hint) -> str:
    if record_of(one) is not None and record_of(other) is not None:
        first, second = name_of(one), name_of(other)
        return (
            f"one JSON object could be either. Give each a field that tells them apart, such as "
            f'`kind: Literal["{first.lower()}"]` in {first} and `kind: Literal["{second.lower()}"]` in {second}'
        )
    return "one JSON value could be either. Declare one of the two, or two inputs"


Tags = dict[Any, frozenset[str]]


def _clash(one: Hint, other: Hint, tags: Tags) -> bool:
    return any(_alternatives_clash(a, b, tags) for a in alternatives_of(one) for b in alternatives_of(other))


def _alternatives_clash(one: Hint, other: Hint, tags: Tags) -> bool:
    """Whether some JSON value fits both and would be read as two different values."""
    if one == other or (_is_verbatim(one) and _is_verbatim(other)) or _disjoint(one, other, tags):
        return False
    # An empty list and an empty dict are the same in both.
    for inner in (list_item, dict_value):
        ours, theirs = inner(one), inner(other)
        if ours is not None and theirs is not None:
            return _clash(ours, theirs, {})
    return True


def _is_verbatim(hint: Hint) -> bool:
    """Whether the typed value is the JSON value itself, so that it does not matter which member reads it."""
    for each in alternatives_of(hint):
        record, inner = record_of(each), (list_item(each) or dict_value(each))
        if each in SCALARS or each is Any:
            continue
        if origin_of(each) is Literal:
            if any(isinstance(value, Enum) for value in get_args(each)):
                return False
        elif inner is not None:
            if not _is_verbatim(inner):
                return False
        elif record is None or not issubclass(record.cls, dict) or not all(map(_is_verbatim, record.hints.values())):
            return False
    return True


def _disjoint(one: Hint, other: Hint, tags: Tags) -> bool:
    """Whether no JSON value fits both."""
    return all(_alternatives_disjoint(a, b, tags) for a in alternatives_of(one) for b in alternatives_of(other))


def _alternatives_disjoint(one: Hint, other: Hint, tags: Tags) -> bool:
    from llmasos_sdk.decoding import fits  # noqa: PLC0415 (decoding a union needs this module)

    if not kinds_of(one) & kinds_of(other):
        return True
    for first, second in ((one, other), (other, one)):
        choices = choices_of(first)
        if choices is not None:
            return not any(fits(second, value) for value in choices)
    if one in (date, datetime) and other in (date, datetime):
        return one is not other
    return _objects_disjoint(one, other, tags) or _objects_disjoint(other, one, tags)


def _objects_disjoint(one: Hint, other: Hint, tags: Tags) -> bool:
    """Whether a field that `one` always has keeps each object of `one` from being one of `other`."""
    ours = _fields(one)
    if ours is None:
        return False
    needed = _needed(one) | tags.get(one, frozenset())
    value = dict_value(other)
    if value is not None:
        return any(_disjoint(ours[name], value, {}) for name in needed)
    theirs = _fields(other)
    return theirs is not None and any(name not in theirs or _disjoint(ours[name], theirs[name], {}) for name in needed)


def _fields(hint: Hint) -> dict[str, Hint] | None:
    if hint is File:
        return dict.fromkeys(FILE_FIELDS, str)
    record = record_of(hint)
    return None if record is None else dict(record.hints)


def _needed(hint: Hint) -> frozenset[str]:
    record = None if hint is File else record_of(hint)
    return FILE_FIELDS if record is None else record.required
