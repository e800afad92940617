"""Which unions can be read: those in which no JSON value could mean two different values."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from enum import Enum
from typing import Any, Literal, get_args

from llmasos_sdk.decoding import fits
from llmasos_sdk.files import File
from llmasos_sdk.hints import Hint, alternatives_of, bare, dict_value, list_item, name_of, origin_of
from llmasos_sdk.kinds import SCALARS, choices_of, kinds_of, tags_of
from llmasos_sdk.records import record_of

FILE_FIELDS = frozenset({"name", "media_type", "base64"})
Tags = dict[Any, frozenset[str]]


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
