"""Type hints as JSON Schema, JSON as typed values, and typed values as JSON.

The hints that an action may use: `str int float bool None`, `list[T]`, `dict[str, T]`, `Literal`, `Optional`, `File`,
a dataclass, `Any`, and `Annotated[T, Field(...)]` over each of these. What JSON cannot say without a convention of its
own (tuples, sets, bytes, dates, unions of several types) is refused when the action is described.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Union, cast, get_args, get_origin

from llmasos_sdk import docstrings
from llmasos_sdk.errors import SchemaMismatch
from llmasos_sdk.files import File, file_schema
from llmasos_sdk.hints import Hint, hints_of
from llmasos_sdk.host import JsonValue
from llmasos_sdk.messages import Listing, listing
from llmasos_sdk.messages import message as _

Schema = dict[str, JsonValue]

UNIONS: tuple[object, ...] = (Union, types.UnionType)
SUPPORTED = "str, int, float, bool, list[T], dict[str, T], Literal, Optional, File, a dataclass, or Annotated of these"
SCALARS: dict[Hint, str] = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null"}


@dataclass(frozen=True, slots=True)
class Field:
    """What a form shows of one input, and how far it goes. Used as `Annotated[str, Field(title="Text")]`.

    Args:
        title: The label; a text, or texts by locale: {"en": "Text", "zh": "文本"}.
        description: The help below it; a text, or texts by locale.
        ui: How the form takes it; None leaves it to the type. A `file` comes as base64 in a string.
        min: The least value of a number, or the least length of a text or list.
        max: The greatest value of a number, or the greatest length.
    """

    title: str | Mapping[str, str] | None = None
    description: str | Mapping[str, str] | None = None
    ui: Literal["text", "textarea", "file"] | None = None
    min: float | None = None
    max: float | None = None

    def __hash__(self) -> int:  # hints are kept in sets and caches; texts by locale alone have no hash
        return hash((str(self.title), str(self.description), self.ui, self.min, self.max))


BOUNDS = {
    "string": ("minLength", "maxLength"),
    "array": ("minItems", "maxItems"),
    "integer": ("minimum", "maximum"),
    "number": ("minimum", "maximum"),
}


def localized(key: str, text: str | Mapping[str, str] | None) -> Schema:
    """A text as JSON Schema: `key` holds the English one, `x-key` every locale where there are several."""
    if text is None:
        return {}
    if isinstance(text, str):
        return {key: text}
    texts: dict[str, JsonValue] = dict(text)
    return {key: text.get("en", next(iter(text.values()), "")), f"x-{key}": texts}


def _inputs(cls: Any) -> list[dataclasses.Field[Any]]:
    """The fields that JSON carries: those that the constructor takes."""
    return [each for each in dataclasses.fields(cls) if each.init]


def schema_of(hint: Hint) -> Schema:
    """The JSON Schema (2020-12) of a type hint.

    Raises:
        TypeError: JSON has no such type.
    """
    return _schema(hint, ())


def _schema(hint: Hint, inside: tuple[Hint, ...]) -> Schema:  # noqa: PLR0911 (a return a kind of hint)
    if hint is Any:
        return {}
    if hint in SCALARS:
        return {"type": SCALARS[hint]}
    if hint is File:
        return file_schema()
    if hint is list or hint is dict:
        return {"type": "array" if hint is list else "object"}
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return _dataclass_schema(hint, inside)
    arguments = get_args(hint)
    origin_of_hint: object = get_origin(hint)
    match origin_of_hint:
        case typing.Annotated:
            return _annotated_schema(arguments[0], arguments[1:], inside)
        case typing.Literal:
            return _literal_schema(arguments)
        case origin if (origin is list or origin is dict) and not arguments:  # `List` and `Dict`, as typing has them
            return _schema(origin, inside)
        case origin if origin is list:
            return {"type": "array", "items": _schema(arguments[0], inside)}
        case origin if origin is dict and arguments[0] is str:
            return {"type": "object", "additionalProperties": _schema(arguments[1], inside)}
        case origin if origin in UNIONS and type(None) in arguments and len(arguments) == 2:
            return {"anyOf": [_schema(_only(arguments), inside), {"type": "null"}]}
        case _:
            raise TypeError(f"{_name(hint)} has no JSON Schema here; use {SUPPORTED}")


def _only(arguments: tuple[Hint, ...]) -> Hint:
    """The other half of an Optional."""
    return next(argument for argument in arguments if argument is not type(None))


def _name(hint: Hint) -> str:
    return hint.__name__ if isinstance(hint, type) else str(hint)


def _annotated_schema(inner: Hint, notes: tuple[object, ...], inside: tuple[Hint, ...]) -> Schema:
    schema = _schema(inner, inside)
    for note in notes:
        if isinstance(note, Field):
            schema = {**schema, **localized("title", note.title), **localized("description", note.description)}
            if note.ui is not None:
                schema["x-ui"] = note.ui
            _bound(schema, note, inner)
    return schema


def _bound(schema: Schema, note: Field, inner: Hint) -> None:
    """Write `min` and `max` under the names that the type has for them; an Optional's stand on its value."""
    options = schema.get("anyOf")
    target = cast("Schema", options[0]) if isinstance(options, list) else schema
    for value, place in ((note.min, 0), (note.max, 1)):
        if value is None:
            continue
        names = BOUNDS.get(str(target.get("type")))
        if names is None:
            raise TypeError(f"{_name(inner)} takes no min or max")
        target[names[place]] = int(value) if float(value).is_integer() else value


def _literal_schema(values: tuple[object, ...]) -> Schema:
    kinds = {type(value) for value in values}
    if not kinds <= {str, int, bool}:
        raise TypeError("a Literal holds texts, whole numbers or booleans here")
    schema: Schema = {"enum": [cast("JsonValue", value) for value in values]}
    if len(kinds) == 1:
        schema["type"] = SCALARS[kinds.pop()]
    return schema


def _dataclass_schema(cls: type, inside: tuple[Hint, ...]) -> Schema:
    if cls in inside:
        raise TypeError(f"{cls.__name__} holds itself; JSON forms have no end for that")
    hints = hints_of(cls)
    told = docstrings.read(cls)
    properties: Schema = {}
    required: list[JsonValue] = []
    for each in _inputs(cls):
        properties[each.name] = _with_description(_schema(hints[each.name], (*inside, cls)), told, each.name)
        if each.default is not dataclasses.MISSING:
            default = encode_default(each.name, hints[each.name], each.default)
            cast("Schema", properties[each.name])["default"] = default
        elif each.default_factory is dataclasses.MISSING:
            required.append(each.name)
        else:
            encode_default(each.name, hints[each.name], each.default_factory())
    schema: Schema = {"type": "object", "title": cls.__name__}
    # A dataclass without a docstring gets its own signature for one, which tells a reader nothing.
    if told.summary and not told.summary.startswith(f"{cls.__name__}("):
        schema["description"] = told.summary
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
    try:
        encoded = encode(default)
        decode(hint, encoded, name)
    except SchemaMismatch as error:
        raise TypeError(f"the default of {name!r} does not fit its type hint: {error}") from error
    return encoded


def decode(hint: Hint, value: JsonValue, place: str = "") -> Any:  # noqa: PLR0911 (a return a kind of hint)
    """A JSON value as the type that the hint names.

    Args:
        hint: One that `schema_of` accepts.
        value: The JSON value, decoded.
        place: Where it stands, for the message: `items[2].name`.

    Raises:
        SchemaMismatch: The value does not fit.
    """
    if hint is Any:
        return value
    if hint in SCALARS or hint is File:
        return _decode_scalar(hint, value, place)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return _decode_dataclass(hint, value, place)
    arguments = get_args(hint)
    origin: object = get_origin(hint) or hint
    if origin is typing.Annotated:
        decoded = decode(arguments[0], value, place)
        _check_bounds(decoded, arguments[1:], place)
        return decoded
    if origin is typing.Literal:
        for allowed in arguments:
            if type(allowed) is type(value) and allowed == value:
                return allowed
        raise _mismatch(place, listing([repr(allowed) for allowed in arguments], " or "), value)
    if origin is list:
        if not isinstance(value, list):
            raise _mismatch(place, _("a list"), value)
        inner = arguments[0] if arguments else Any
        return [decode(inner, item, f"{place}[{index}]") for index, item in enumerate(value)]
    if origin is dict:
        if not isinstance(value, dict):
            raise _mismatch(place, _("an object"), value)
        inner = arguments[1] if arguments else Any
        return {key: decode(inner, item, _join(place, key)) for key, item in value.items()}
    if origin in UNIONS:
        return None if value is None else decode(_only(arguments), value, place)
    raise TypeError(f"{_name(hint)} has no JSON Schema here; use {SUPPORTED}")


def _decode_scalar(hint: Hint, value: JsonValue, place: str) -> object:
    if hint is File:
        return File.from_json(value, place)
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    # JSON Schema counts 3.0 as an integer, and JavaScript writes it so.
    if hint is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if type(value) is hint:
        return value
    named: dict[Any, str] = {
        str: _("a text"),
        int: _("a whole number"),
        float: _("a number"),
        bool: _("true or false"),
        type(None): "null",
    }
    raise _mismatch(place, named[hint], value)


def _check_bounds(value: object, notes: tuple[object, ...], place: str) -> None:
    if value is None or isinstance(value, bool):
        return
    size = value if isinstance(value, int | float) else len(cast("str", value)) if hasattr(value, "__len__") else 0
    of_length = not isinstance(value, int | float)
    for note in notes:
        if not isinstance(note, Field):
            continue
        if note.min is not None and size < note.min:
            bound = f"{note.min:g}"
            expected = (
                _("a length of at least {bound}", bound=bound) if of_length else _("at least {bound}", bound=bound)
            )
        elif note.max is not None and size > note.max:
            bound = f"{note.max:g}"
            expected = _("a length of at most {bound}", bound=bound) if of_length else _("at most {bound}", bound=bound)
        else:
            continue
        raise _unexpected(place, expected, str(size))


def _decode_dataclass(cls: type, value: JsonValue, place: str) -> object:
    if not isinstance(value, dict):
        raise _mismatch(place, _("an object ({name})", name=cls.__name__), value)
    hints = hints_of(cls)
    fields = _inputs(cls)
    required = {
        each.name
        for each in fields
        if each.default is dataclasses.MISSING and each.default_factory is dataclasses.MISSING
    }
    arguments = decode_arguments({each.name: hints[each.name] for each in fields}, required, value, place)
    try:
        return cls(**arguments)
    except ValueError as error:  # an error of __post_init__ is the caller's mistake, not the app's
        raise SchemaMismatch(_("{place}: {error}", place=place or cls.__name__, error=error)) from error


def decode_arguments(
    hints: Mapping[str, Hint], required: typing.AbstractSet[str], value: Mapping[str, JsonValue], place: str = ""
) -> dict[str, Any]:
    """The values of an object, each as its hint names it. What is left out stays out.

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
            raise SchemaMismatch(_("{place}: this input is needed", place=_join(place, name)))
    return {name: decode(hints[name], item, _join(place, name)) for name, item in value.items()}


def _join(place: str, key: str) -> str:
    return f"{place}.{key}" if place else key


def _mismatch(place: str, expected: str | Listing, value: object) -> SchemaMismatch:
    shown = "null" if value is None else repr(value)
    shown = shown if len(shown) <= 60 else shown[:57] + "..."
    return _unexpected(place, expected, shown)


def _unexpected(place: str, expected: str | Listing, shown: str) -> SchemaMismatch:
    place = place or _("the value")
    return SchemaMismatch(_("{place}: expected {expected}, got {shown}", place=place, expected=expected, shown=shown))


def encode(value: object) -> JsonValue:
    """A typed value as JSON: dataclasses become objects.

    Raises:
        SchemaMismatch: JSON has no such value, such as NaN, a set or bytes.
    """
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise SchemaMismatch(_("{value} is no number in JSON", value=value))
        return value
    if isinstance(value, File):
        return value.as_json()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {each.name: encode(getattr(value, each.name)) for each in _inputs(type(value))}
    if isinstance(value, list | tuple):
        return [encode(item) for item in cast("list[object]", value)]
    if isinstance(value, Mapping):
        items = cast("Mapping[object, object]", value)
        if any(not isinstance(key, str) for key in items):
            raise SchemaMismatch(_("a JSON object has texts for keys"))
        return {cast("str", key): encode(item) for key, item in items.items()}
    raise SchemaMismatch(_("a {kind} has no JSON; return {supported}", kind=type(value).__name__, supported=SUPPORTED))


def encode_as(hint: Hint, value: object) -> JsonValue:
    """Encode a value and check it against its hint, so that an action returns what it declares.

    Raises:
        SchemaMismatch: It is something else.
    """
    encoded = encode(value)
    decode(hint, encoded, "the result")
    return encoded
