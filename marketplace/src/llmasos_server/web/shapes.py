"""A JSON Schema as the fields of a form. What a form cannot express is written as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, TypeAlias, TypeGuard, cast

Schema: TypeAlias = Mapping[str, Any]
TextKind: TypeAlias = Literal["line", "text", "area"]
Kind: TypeAlias = (
    TextKind
    | Literal["number", "choice", "choices", "switch", "yes-no", "date", "instant", "file", "group", "list", "json"]
)

# Deeper and larger ones are written as JSON: nobody finds their way in such a form.
MAX_DEPTH: Final = 5
MAX_FIELDS: Final = 400
_KEYWORDS_OF_LIST: Final = frozenset({"prefixItems", "contains"})


@dataclass(frozen=True, slots=True)
class Shape:
    """A value's part of a form."""

    key: str
    """Its name in the object that it is in; empty for an item and for the whole."""
    kind: Kind
    schema: Schema
    """With its reference followed, and without the null that it allows."""
    required: bool = True
    nullable: bool = False
    below: tuple[Shape, ...] = ()
    """The fields of a group, or the item of a list."""

    @property
    def has_default(self) -> bool:
        """Whether a default takes its place if it is left out."""
        return "default" in self.schema

    def text(self, key: Literal["title", "description"], locale: str) -> str:
        """A text of the author, in the reader's language or else in English."""
        texts = self.schema.get(f"x-{key}")
        found: object = None
        if is_object(texts):
            found = texts.get("zh" if locale.startswith("zh") else "en") or texts.get("en")
        text = found if isinstance(found, str) else self.schema.get(key)
        return text if isinstance(text, str) else ""


def shape_of(schema: Schema) -> Shape:
    """The form of an object that a schema describes."""
    definitions: Any = schema.get("$defs")
    reader = _Reader(definitions if is_object(definitions) else {})
    shape = reader.shape("", schema, required=True, depth=0)
    if sum(1 for _ in _all(shape)) > MAX_FIELDS or shape.kind != "group":
        return Shape("", "json", schema)
    return shape


def _all(shape: Shape) -> Iterator[Shape]:
    yield shape
    for each in shape.below:
        yield from _all(each)


class _Reader:
    """Reads schemas whose references are into `definitions`."""

    def __init__(self, definitions: Schema) -> None:
        self._definitions = definitions

    def shape(self, key: str, unresolved: object, *, required: bool, depth: int) -> Shape:
        """The shape of a value."""
        schema, nullable = self._without_null(self._resolved(unresolved))
        kind = self._kind(schema, depth)
        below: tuple[Shape, ...] = ()
        if kind == "group":
            needed = cast("list[str]", schema.get("required", ()))
            below = tuple(
                self.shape(name, each, required=name in needed, depth=depth + 1)
                for name, each in cast("Schema", schema.get("properties", {})).items()
            )
        elif kind == "list":
            item = self.shape("", schema.get("items"), required=True, depth=depth + 1)
            if item.kind == "choice" and not item.nullable:
                kind, below = "choices", (item,)
            elif item.nullable or item.kind in ("list", "choices"):
                kind = "json"
            else:
                below = (item,)
        shape = Shape(key, kind, schema, required=required, nullable=nullable, below=below)
        return replace(shape, kind="yes-no") if kind == "switch" and nullable else shape

    def _resolved(self, schema: object) -> Schema:
        found: Schema = schema if is_object(schema) else {}
        while isinstance(target := found.get("$ref"), str):
            rest = {key: value for key, value in found.items() if key != "$ref"}
            definition = self._definitions.get(target.removeprefix("#/$defs/"))
            found = {**(definition if is_object(definition) else {}), **rest}
        return found

    def _without_null(self, schema: Schema) -> tuple[Schema, bool]:
        """A schema of one type, and whether null is allowed besides."""
        kinds = schema.get("type")
        if is_list(kinds):
            others = [each for each in kinds if each != "null"]
            return {**schema, "type": others[0] if len(others) == 1 else others}, len(others) < len(kinds)
        branches = schema.get("anyOf", schema.get("oneOf"))
        if not is_list(branches):
            return schema, False
        resolved = [self._resolved(each) for each in branches]
        others = [each for each in resolved if each.get("type") != "null"]
        if len(others) == 1 and len(resolved) == 2:
            rest = {key: value for key, value in schema.items() if key not in ("anyOf", "oneOf")}
            return {**others[0], **rest}, True
        return schema, False

    def _kind(self, schema: Schema, depth: int) -> Kind:
        kind = schema.get("type")
        if is_list(schema.get("enum")) and kind not in ("object", "array"):
            return "choice"
        if schema.get("x-ui") == "file" and kind in ("object", "string"):
            return "file"
        if kind == "object":
            return "group" if depth < MAX_DEPTH and _is_form(schema) else "json"
        if kind == "array":
            return "list" if depth < MAX_DEPTH and _is_plain_list(schema) else "json"
        return _text_kind(schema) if kind == "string" else _SCALARS.get(str(kind), "json")


_SCALARS: Final[Mapping[str, Kind]] = {"integer": "number", "number": "number", "boolean": "switch"}


def _text_kind(schema: Schema) -> Kind:
    by_format: dict[object, Kind] = {"date": "date", "date-time": "instant"}
    by_ui: dict[object, Kind] = {"textarea": "area", "text": "line"}
    return by_format.get(schema.get("format")) or by_ui.get(schema.get("x-ui"), "text")


def _is_form(schema: Schema) -> bool:
    """Whether an object has the fields that it names and no others."""
    named = schema.get("properties")
    if not is_object(named):
        return schema.get("additionalProperties") is False
    return bool(named) or schema.get("additionalProperties") is False


def _is_plain_list(schema: Schema) -> bool:
    return is_object(schema.get("items")) and not _KEYWORDS_OF_LIST & schema.keys()


def is_object(value: object) -> TypeGuard[Mapping[str, Any]]:
    """Whether a decoded JSON value is an object."""
    return isinstance(value, Mapping)


def is_list(value: object) -> TypeGuard[list[Any]]:
    """Whether a decoded JSON value is a list."""
    return isinstance(value, list)
