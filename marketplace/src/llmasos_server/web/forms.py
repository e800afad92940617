"""Forms made from JSON Schemas: one renderer for the actions of apps and for their settings.

form = form_of(schema, locale, filled(shape_of(schema), {}))       shown by `fields.html.jinja`
submitted = read(shape_of(schema), sent_of((await view.form()).multi_items()))
form = form_of(schema, locale, sent, submitted.faults)              the same form again, each fault at its field
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, cast

from llmasos.bundles.manifest import ConfigField
from llmasos.i18n import Message, render
from llmasos.printable import one_line
from llmasos_server.web.form_values import Sent, below, is_optional, option_of, part, rows_of, used_name
from llmasos_server.web.shapes import Kind, Schema, Shape, is_list, shape_of

MAX_EXAMPLES: Final = 4


@dataclass(frozen=True, slots=True)
class Option:
    """A choice."""

    value: str
    text: str
    chosen: bool


@dataclass(frozen=True, slots=True)
class FormField:
    """A field as its template shows it."""

    name: str
    kind: Kind
    label: str
    help: str = ""
    fault: str = ""
    required: bool = False
    value: str = ""
    chosen: bool = False
    """Of a switch."""
    attributes: Mapping[str, str] = field(default_factory=dict[str, str])
    options: tuple[Option, ...] = ()
    examples: tuple[str, ...] = ()
    fields: tuple[FormField, ...] = ()
    """Of a group, or the rows of a list; the last row is empty."""
    use: str = ""
    """The name of the switch of a group that may be left out."""
    used: bool = False

    @property
    def described_by(self) -> str:
        """The ids of what explains it, for screen readers."""
        found = [f"{self.name}-help"] if self.help else []
        return " ".join([*found, f"{self.name}-fault"] if self.fault else found)


@dataclass(frozen=True, slots=True)
class Form:
    """A form as its template shows it."""

    fields: tuple[FormField, ...]
    fault: str = ""
    """One of the whole."""
    has_files: bool = False


def form_of(
    schema: Schema,
    locale: str,
    sent: Sent,
    faults: Mapping[str, Message] | None = None,
    *,
    prefix: str = "in",
) -> Form:
    """A form.

    Args:
        schema: Of the object that the form stands for.
        locale: The reader's language.
        sent: What it holds.
        faults: What is wrong, by the names of fields.
        prefix: What the names of its fields begin with.
    """
    shape = shape_of(schema)
    renderer = _Renderer(sent, faults or {}, locale)
    whole = renderer.field(shape, prefix)
    fields = whole.fields if shape.kind == "group" else (whole,)
    of_all = "" if shape.kind != "group" else (faults or {}).get("", (faults or {}).get(prefix, ""))
    return Form(fields, render(of_all, locale), _has_files(whole))


def _has_files(shown: FormField) -> bool:
    return shown.kind == "file" or any(map(_has_files, shown.fields))


class _Renderer:
    """Shows shapes with what was sent."""

    def __init__(self, sent: Sent, faults: Mapping[str, Message], locale: str) -> None:
        self._sent = sent
        self._faults = faults
        self._locale = locale

    def field(self, shape: Shape, name: str, label: str | None = None) -> FormField:
        """A field."""
        title = one_line(shape.text("title", self._locale)) if shape.key or label is None else ""
        fault = self._faults.get(name)
        texts = [each for each in self._sent.get(name, ()) if isinstance(each, str)]
        return FormField(
            name,
            shape.kind,
            title or label or one_line(shape.key).replace("_", " "),
            one_line(shape.text("description", self._locale)),
            render(fault, self._locale) if fault else "",
            required=shape.required and not shape.nullable and not shape.has_default,
            value=texts[0] if texts else "",
            chosen=bool(texts) and texts[0] in ("on", "true", "yes"),
            attributes=_attributes(shape),
            options=tuple(self._options(shape, texts)),
            examples=_examples(shape),
            fields=self._below(shape, name),
            use=used_name(name) if is_optional(shape) else "",
            used=bool(self._sent.get(used_name(name))),
        )

    def _below(self, shape: Shape, name: str) -> tuple[FormField, ...]:
        if shape.kind == "group":
            return tuple(self.field(each, part(name, each.key)) for each in shape.below)
        if shape.kind != "list":
            return ()
        rows = rows_of(self._sent, name)
        rows.append(rows[-1] + 1 if rows else 0)
        return tuple(self.field(shape.below[0], below(name, str(row)), str(place)) for place, row in enumerate(rows, 1))

    def _options(self, shape: Shape, texts: list[str]) -> list[Option]:
        if shape.kind not in ("choice", "choices"):
            return []
        choice = shape if shape.kind == "choice" else shape.below[0]
        values = [option_of(choice, each) for each in cast("list[Any]", choice.schema["enum"]) if each is not None]
        return [Option(each, one_line(each), each in texts) for each in values]


# Keywords of JSON Schema, and what HTML calls them.
_ATTRIBUTES: Final = {"minimum": "min", "maximum": "max", "minLength": "minlength", "maxLength": "maxlength"}


def _attributes(shape: Shape) -> dict[str, str]:
    found = {html: str(shape.schema[key]) for key, html in _ATTRIBUTES.items() if _is_number(shape.schema.get(key))}
    if shape.kind == "number":
        found["step"] = "1" if shape.schema.get("type") == "integer" else "any"
    return {} if shape.kind == "file" else found


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _examples(shape: Shape) -> tuple[str, ...]:
    examples = shape.schema.get("examples")
    if not is_list(examples) or shape.kind not in ("line", "text", "area", "number", "date", "instant", "json"):
        return ()
    texts = (each if isinstance(each, str) else json.dumps(each, ensure_ascii=False) for each in examples)
    return tuple(texts)[:MAX_EXAMPLES]


def config_schema(config: Mapping[str, ConfigField]) -> Schema:
    """The schema of an app's settings, as its manifest lists them."""
    properties: dict[str, Any] = {}
    for name, each in config.items():
        schema: dict[str, Any] = {"type": each.type, "x-title": each.title.model_dump(exclude_none=True)}
        if each.description is not None:
            schema["x-description"] = each.description.model_dump(exclude_none=True)
        items = {"type": "string"} if each.enum is None else {"type": "string", "enum": list(each.enum)}
        if each.type == "array":
            schema["items"] = items
        elif each.enum is not None:
            schema["enum"] = list(each.enum)
        if each.default is not None:
            schema["default"] = list(each.default) if each.type == "array" else each.default
        if each.type == "string":
            schema["x-ui"] = each.ui
        properties[name] = schema
    needed = [name for name, each in config.items() if each.default is None]
    return {"type": "object", "properties": properties, "required": needed, "additionalProperties": False}
