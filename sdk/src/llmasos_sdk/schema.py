"""Type hints as JSON Schema.

`decoding.py` reads JSON as the values that the hints name, `encoding.py` writes them, and `unions.py` says which
unions can be read. What JSON cannot say without a convention of its own (tuples, sets, bytes, times of day) is refused
when the action is described.
"""

from __future__ import annotations

import typing
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from enum import Flag
from typing import Any, cast, get_args

from llmasos_sdk import docstrings
from llmasos_sdk.decoding import unsupported
from llmasos_sdk.encoding import encode_as
from llmasos_sdk.errors import SchemaMismatch
from llmasos_sdk.fields import Field
from llmasos_sdk.files import File, file_schema
from llmasos_sdk.hints import UNIONS, Hint, aliased, bare, dict_value, list_item, members_of, name_of, origin_of
from llmasos_sdk.host import JsonValue
from llmasos_sdk.kinds import choices_of, tags_of
from llmasos_sdk.records import Record, record_of
from llmasos_sdk.unions import check_union

Schema = dict[str, JsonValue]

SCALARS: dict[Hint, str] = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null"}
FORMATS: dict[Hint, str] = {date: "date", datetime: "date-time"}
BOUNDS = {
    "string": ("minLength", "maxLength"),
    "array": ("minItems", "maxItems"),
    "integer": ("minimum", "maximum"),
    "number": ("minimum", "maximum"),
}


def localized(key: str, text: str | Mapping[str, str] | None) -> Schema:
    """A text as JSON Schema: `key` holds the English one, `x-key` every locale if there are several."""
    if text is None:
        return {}
    if isinstance(text, str):
        return {key: text}
    texts: dict[str, JsonValue] = dict(text)
    return {key: text.get("en", next(iter(text.values()), "")), f"x-{key}": texts}


def schema_of(hint: Hint) -> Schema:
    """The JSON Schema (2020-12) of a type hint.

    Raises:
        TypeError: JSON has no such type, or could not tell the members of a union apart.
    """
    return _schema(hint, ())


def _schema(hint: Hint, inside: tuple[Hint, ...]) -> Schema:  # noqa: PLR0911 (a return a kind of hint)
    target = aliased(hint)
    if target is not None:
        return _schema(target, _entered(hint, inside))
    if hint is Any:
        return {}
    if hint in SCALARS:
        return {"type": SCALARS[hint]}
    if hint in FORMATS:
        return {"type": "string", "format": FORMATS[hint]}
    if hint is File:
        return file_schema()
    if origin_of(hint) is typing.Annotated:
        inner, *notes = get_args(hint)
        return _annotated_schema(inner, notes, inside)
    if origin_of(hint) in UNIONS:
        return _union_schema(hint, inside)
    return _compound_schema(hint, inside)


def _compound_schema(hint: Hint, inside: tuple[Hint, ...]) -> Schema:
    if (choices := choices_of(hint)) is not None:
        return _choices_schema(hint, choices)
    if (record := record_of(hint)) is not None:
        return _record_schema(record, _entered(hint, inside))
    for kind, key, inner in (("array", "items", list_item(hint)), ("object", "additionalProperties", dict_value(hint))):
        if inner is not None:
            return {"type": kind, key: _schema(inner, inside)} if get_args(hint) else {"type": kind}
    raise unsupported(hint)


def _entered(hint: Hint, inside: tuple[Hint, ...]) -> tuple[Hint, ...]:
    if any(hint is each for each in inside):
        raise TypeError(f"{name_of(hint)} holds itself; JSON forms have no end for that")
    return (*inside, hint)


def _annotated_schema(inner: Hint, notes: Sequence[object], inside: tuple[Hint, ...]) -> Schema:
    schema = _schema(inner, inside)
    for note in notes:
        if isinstance(note, Field):
            schema = {**schema, **localized("title", note.title), **localized("description", note.description)}
            if note.ui is not None:
                schema["x-ui"] = note.ui
            _bound(schema, note, inner)
            if note.examples:
                schema["examples"] = [_fitting("an example", inner, each) for each in note.examples]
    return schema


def _bound(schema: Schema, note: Field, inner: Hint) -> None:
    """Write `min` and `max` under the names that the type has for them; an Optional's stand on its value."""
    branches = cast("list[Schema]", schema.get("anyOf", [schema]))
    valued = [each for each in branches if each.get("type") != "null"]
    for value, place in ((note.min, 0), (note.max, 1)):
        if value is None:
            continue
        if len(valued) != 1:
            raise TypeError(f"{name_of(inner)} takes no min or max: write Annotated around one of its types")
        names = BOUNDS.get(str(valued[0].get("type")))
        if names is None or "enum" in valued[0] or "format" in valued[0]:
            raise TypeError(f"{name_of(inner)} takes no min or max")
        valued[0][names[place]] = int(value) if float(value).is_integer() else value


def _union_schema(hint: Hint, inside: tuple[Hint, ...]) -> Schema:
    members = members_of(hint)
    members.sort(key=lambda each: bare(each) is type(None))  # what an Optional may hold comes first
    branches = [(member, _schema(member, inside)) for member in members]
    check_union(members)
    tags = tags_of(members)
    for member, schema in branches:
        record = record_of(bare(member))
        if record is not None:
            needed = record.required | tags.get(record.cls, frozenset())
            schema["required"] = [name for name in record.hints if name in needed]
    return branches[0][1] if len(branches) == 1 else {"anyOf": [schema for _member, schema in branches]}


def _choices_schema(hint: Hint, choices: Sequence[JsonValue]) -> Schema:
    kinds = {type(value) for value in choices}
    if isinstance(hint, type) and issubclass(hint, Flag):
        raise TypeError(f"{name_of(hint)} is a Flag, whose members combine: use a list of an Enum")
    if not kinds <= {str, int, bool, type(None)} or not choices:
        raise TypeError(f"{name_of(hint)}: a Literal or an Enum holds texts, whole numbers, booleans or None here")
    schema: Schema = {"enum": list(choices)}
    if len(kinds) == 1:
        schema["type"] = SCALARS[kinds.pop()]
    return schema


def _record_schema(record: Record, inside: tuple[Hint, ...]) -> Schema:
    properties: Schema = {}
    for name, hint in record.hints.items():
        described = _with_description(_schema(hint, inside), record.told, name)
        if name in record.defaults:
            described["default"] = encode_default(name, hint, record.defaults[name])
        if name in record.factories:
            encode_default(name, hint, record.factories[name]())
        properties[name] = described
    schema: Schema = {"type": "object", "title": record.name}
    if record.told.summary:
        schema["description"] = record.told.summary
    required: list[JsonValue] = [name for name in record.hints if name in record.required]
    return {**schema, "properties": properties, "required": required, "additionalProperties": False}


def _with_description(schema: Schema, told: docstrings.Docstring, name: str) -> Schema:
    text = told.arguments.get(name)
    return {**schema, "description": text} if text and "description" not in schema else schema


def object_schema(hints: Mapping[str, Hint], defaults: Mapping[str, object], told: docstrings.Docstring) -> Schema:
    """The schema of a function's arguments, by name. Those in `defaults` may be left out."""
    properties: Schema = {}
    for name, hint in hints.items():
        schema = _with_description(schema_of(hint), told, name)
        if name in defaults:
            schema["default"] = encode_default(name, hint, defaults[name])
        properties[name] = schema
    return {
        "type": "object",
        "properties": properties,
        "required": [name for name in hints if name not in defaults],
        "additionalProperties": False,
    }


def encode_default(name: str, hint: Hint, default: object) -> JsonValue:
    """Encode a default as JSON, checked against its own hint, so that calls without the input do not fail.

    Raises:
        TypeError: It does not fit.
    """
    return _fitting(f"the default of {name!r}", hint, default, name)


def _fitting(what: str, hint: Hint, value: object, place: str = "") -> JsonValue:
    try:
        return encode_as(hint, value, place)
    except SchemaMismatch as error:
        raise TypeError(f"{what} does not fit its type hint: {error}") from error
