"""JSON as typed values."""

from __future__ import annotations

import typing
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from enum import Enum
from typing import Any, cast, get_args

from llmasos_sdk.dates import NotADate, read_date, read_time
from llmasos_sdk.errors import SchemaMismatch
from llmasos_sdk.fields import Field
from llmasos_sdk.files import File
from llmasos_sdk.hints import Hint, bare, dict_value, list_item, members_of, name_of, origin_of, resolved
from llmasos_sdk.host import JsonValue
from llmasos_sdk.kinds import SCALARS, choices_of, kind_of, kinds_of, tags_of
from llmasos_sdk.messages import Listing, Message, Parameter, listing
from llmasos_sdk.messages import message as _
from llmasos_sdk.records import Record, record_of

SUPPORTED = (
    "str, int, float, bool, date, datetime, list[T], dict[str, T], Literal, Enum, Optional, a union, a dataclass, "
    "a TypedDict, File, or Annotated of these"
)


def unsupported(hint: Hint) -> TypeError:
    """The error for a hint that has no JSON Schema."""
    return TypeError(f"{name_of(hint)} has no JSON Schema here; use {SUPPORTED}")


def decode(hint: Hint, value: JsonValue, place: str = "") -> Any:
    """Decode a JSON value as the type that the hint names.

    Args:
        hint: One that `schema_of` accepts.
        value: The JSON value, decoded.
        place: Its place, for the message: `items[2].name`.

    Raises:
        SchemaMismatch: The value does not fit.
    """
    hint = resolved(hint)
    if hint is Any:
        return value
    if hint in SCALARS:
        return _scalar(hint, value, place)
    if hint is File:
        return File.from_json(value, place)
    if hint is date or hint is datetime:
        return _date(hint, value, place)
    if origin_of(hint) is typing.Annotated:
        inner, *notes = get_args(hint)
        decoded = decode(inner, value, place)
        _check_bounds(decoded, notes, place)
        return decoded
    return _compound(hint, value, place)


def _compound(hint: Hint, value: JsonValue, place: str) -> Any:
    if (choices := choices_of(hint)) is not None:
        return _choice(hint, choices, value, place)
    if (record := record_of(hint)) is not None:
        return _record(record, value, place, frozenset())
    if (inner := list_item(hint)) is not None:
        if not isinstance(value, list):
            raise mismatch(place, expected(hint), value)
        return [decode(inner, item, f"{place}[{index}]") for index, item in enumerate(value)]
    if (inner := dict_value(hint)) is not None:
        if not isinstance(value, dict):
            raise mismatch(place, expected(hint), value)
        return {key: decode(inner, item, _join(place, key)) for key, item in value.items()}
    members = members_of(hint)
    if len(members) == 1:
        raise unsupported(hint)
    return _union(members, value, place)


def fits(hint: Hint, value: JsonValue) -> bool:
    """Whether a hint reads a JSON value."""
    try:
        decode(hint, value)
    except SchemaMismatch:
        return False
    return True


def _scalar(hint: Hint, value: JsonValue, place: str) -> object:
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    # JSON Schema counts 3.0 as an integer, and JavaScript writes it so.
    if hint is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if type(value) is hint:
        return value
    raise mismatch(place, expected(hint), value)


def _date(hint: Hint, value: JsonValue, place: str) -> object:
    if not isinstance(value, str):
        raise mismatch(place, expected(hint), value)
    try:
        return read_date(value) if hint is date else read_time(value)
    except NotADate as error:
        raise mismatch(place, error.expected, value) from None


def _choice(hint: Hint, choices: Sequence[JsonValue], value: JsonValue, place: str) -> object:
    typed: list[object] = list(cast("type[Enum]", hint)) if isinstance(hint, type) else list(get_args(hint))
    for choice, of_author in zip(choices, typed, strict=True):
        # 1.0 is 1 in JSON, and true is not.
        if kind_of(choice) == kind_of(value) and choice == value:
            return of_author
    raise mismatch(place, expected(hint), value)


def _check_bounds(value: object, notes: Sequence[object], place: str) -> None:
    if value is None or isinstance(value, bool):
        return
    size = value if isinstance(value, int | float) else len(cast("str", value)) if hasattr(value, "__len__") else 0
    of_length = not isinstance(value, int | float)
    for note in notes:
        if not isinstance(note, Field):
            continue
        if note.min is not None and size < note.min:
            bound = f"{note.min:g}"
            words = _("a length of at least {bound}", bound=bound) if of_length else _("at least {bound}", bound=bound)
        elif note.max is not None and size > note.max:
            bound = f"{note.max:g}"
            words = _("a length of at most {bound}", bound=bound) if of_length else _("at most {bound}", bound=bound)
        else:
            continue
        raise _unexpected(place, words, str(size))


def _record(record: Record, value: JsonValue, place: str, tags: frozenset[str]) -> Any:
    if not isinstance(value, dict):
        raise mismatch(place, expected(record.cls), value)
    arguments = decode_arguments(record.hints, record.required | tags, value, place)
    try:
        return record.build(arguments)
    except ValueError as error:  # an error of __post_init__ is the caller's mistake, not the app's
        raise SchemaMismatch(_("{place}: {error}", place=place or record.name, error=error)) from error


def decode_arguments(
    hints: Mapping[str, Hint], required: typing.AbstractSet[str], value: Mapping[str, JsonValue], place: str = ""
) -> dict[str, Any]:
    """Decode the values of an object, each by its hint. A missing key stays missing.

    Raises:
        SchemaMismatch: A key is unknown or missing, or a value does not fit.
    """
    for key in value:
        if key not in hints:
            raise SchemaMismatch(
                _(
                    "{place}: there is no such input; known are: {known}",
                    place=_join(place, key),
                    known=list(hints) or _("none"),
                )
            )
    for name in hints:
        if name in required and name not in value:
            raise _missing(_join(place, name))
    return {name: decode(hints[name], item, _join(place, name)) for name, item in value.items()}


def _missing(place: str) -> SchemaMismatch:
    return SchemaMismatch(_("{place}: this input is needed", place=place))


def _union(members: Sequence[Hint], value: JsonValue, place: str) -> Any:
    """The value as the member that reads it; `unions.check_union` ensures that no two members disagree."""
    tags = tags_of(members)
    likely = [each for each in members if kind_of(value) in kinds_of(each)]
    if isinstance(value, dict):
        likely = _with_its_tags(likely, tags, value, place)
    # 3 is an int before it is a float, and 3.0 a float before it is an int.
    likely.sort(key=lambda member: bare(member) is not type(value))
    errors: list[SchemaMismatch] = []
    for member in likely:
        record = record_of(bare(member))
        try:
            if record is None:
                return decode(member, value, place)
            return _record(record, value, place, tags.get(record.cls, frozenset()))
        except SchemaMismatch as error:
            errors.append(error)
    if len(errors) == 1:
        raise errors[0]
    raise mismatch(place, listing([expected(each) for each in likely or members], " or "), value)


def _with_its_tags(
    likely: list[Hint], tags: Mapping[Any, frozenset[str]], value: Mapping[str, JsonValue], place: str
) -> list[Hint]:
    """The members that an object's tags allow.

    Raises:
        SchemaMismatch: A tag that they all have is missing, or has a value that none of them allows.
    """
    records = [record_of(bare(each)) for each in likely]
    named = [record for record in records if record is not None]
    if named and len(named) == len(records):
        for name in sorted(frozenset[str].intersection(*(tags.get(each.cls, frozenset()) for each in named))):
            if name not in value:
                raise _missing(_join(place, name))
            decode(typing.Union[tuple(each.hints[name] for each in named)], value[name], _join(place, name))  # noqa: UP007
    return [
        member
        for member, record in zip(likely, records, strict=True)
        if record is None
        or all(name in value and fits(record.hints[name], value[name]) for name in tags.get(record.cls, ()))
    ]


def expected(hint: Hint) -> Parameter:
    """What a hint reads, in words."""
    named: dict[Any, Message] = {
        str: _("a text"),
        int: _("a whole number"),
        float: _("a number"),
        bool: _("true or false"),
        type(None): _("null"),
        date: _("a date such as 2026-11-28"),
        datetime: _("a time such as 2026-11-28T09:30:00Z"),
        File: _("a file"),
    }
    hint = bare(hint)
    if hint in named:
        return named[hint]
    choices = choices_of(hint)
    if choices is not None:
        return listing(["null" if each is None else repr(each) for each in choices], " or ")
    record = record_of(hint)
    if record is not None:
        return _("an object ({name})", name=record.name)
    members = members_of(hint)
    if len(members) > 1:
        return listing([expected(each) for each in members], " or ")
    return _("a list") if list_item(hint) is not None else _("an object")


def _join(place: str, key: str) -> str:
    return f"{place}.{key}" if place else key


def mismatch(place: str, expected: Parameter, value: object) -> SchemaMismatch:
    """The error for a value that is not what was expected."""
    shown = "null" if value is None else repr(value)
    return _unexpected(place, expected, shown if len(shown) <= 60 else shown[:57] + "...")


def _unexpected(place: str, expected: Parameter | Listing, shown: str) -> SchemaMismatch:
    place = place or _("the value")
    return SchemaMismatch(_("{place}: expected {expected}, got {shown}", place=place, expected=expected, shown=shown))
