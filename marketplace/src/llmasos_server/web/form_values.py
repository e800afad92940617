"""What forms hold, and the values that it stands for.

A field is named by its place: `in/person/name` for `{"person": {"name": …}}` and `in/tags/0` for the first tag, the
segments escaped as in a JSON pointer. So a form that was sent and an address that prefills one are of one kind, a table
of names and texts: `sent_of` takes one from either, `filled` makes one from a value, `read` makes the value from it.
"""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any, Final, TypeAlias

import msgspec
from starlette.datastructures import UploadFile

from llmasos.i18n import Message, _
from llmasos.invocations.actions import InputFault
from llmasos_sdk.files import BYTES, MAX_FILE_BYTES, File
from llmasos_server.web.shapes import Shape, is_list, is_object

Sent: TypeAlias = Mapping[str, list[str | UploadFile]]

# A list of more rows is not filled in by hand.
MAX_ROWS: Final = 200
_WHOLE: Final = re.compile(r"[+-]?[0-9]{1,300}")
_DECIMAL: Final = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,3})?")
_MEDIA_TYPE: Final = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]{0,62}/[a-z0-9][a-z0-9!#$&^_.+-]{0,62}")
# The segment of the switch that says whether an optional group is filled in. No property's escaped name has it.
_USED: Final = "~use"
_MISSING: Final = _("is missing")


class _Absent:
    """The value of a field that is left out."""


ABSENT: Final = _Absent()


@dataclass(slots=True)
class Submitted:
    """What a form holds, read as its schema says."""

    value: Any = None
    faults: dict[str, Message] = field(default_factory=dict[str, Message])
    """By the name of the field."""
    names: dict[str, str] = field(default_factory=dict[str, str])
    """By JSON pointer into the value, the name of the field."""

    def refuse(self, found: Iterable[InputFault]) -> None:
        """Add what the schema's check found, each at its field or the nearest one above it."""
        for each in found:
            pointer = each.pointer
            while pointer and pointer not in self.names:
                pointer = pointer.rpartition("/")[0]
            self.faults.setdefault(self.names.get(pointer, ""), each.message)


def sent_of(items: Iterable[tuple[str, str | UploadFile]], prefix: str = "in") -> Sent:
    """The part of a form or address whose names begin with `prefix`."""
    found: dict[str, list[str | UploadFile]] = {}
    for name, value in items:
        if name == prefix or name.startswith(f"{prefix}/"):
            found.setdefault(name, []).append(value)
    return found


def filled(shape: Shape, value: Any, name: str = "in") -> Sent:
    """A value as a form would send it."""
    return dict(_filled(shape, value, name))


def _filled(shape: Shape, value: Any, name: str) -> Iterator[tuple[str, list[str | UploadFile]]]:
    if value is ABSENT:
        return
    if shape.kind == "group":
        if is_object(value):
            yield from _filled_group(shape, value, name)
    elif shape.kind == "list":
        for number, item in enumerate(value[:MAX_ROWS] if is_list(value) else ()):
            yield from _filled(shape.below[0], item, below(name, str(number)))
    elif shape.kind == "choices":
        yield name, [option_of(shape.below[0], each) for each in (value if is_list(value) else ())]
    elif shape.kind == "switch":
        if value is True:
            yield name, ["on"]
    elif shape.kind != "file":
        yield name, [_text_of(shape, value)]


def _filled_group(shape: Shape, value: Mapping[str, Any], name: str) -> Iterator[tuple[str, list[str | UploadFile]]]:
    if is_optional(shape):
        yield used_name(name), ["on"]
    for each in shape.below:
        yield from _filled(each, value.get(each.key, each.schema.get("default", ABSENT)), part(name, each.key))


def _text_of(shape: Shape, value: Any) -> str:
    if shape.kind == "json":
        return json.dumps(value, ensure_ascii=False, indent=2)
    if shape.kind == "choice":
        return "" if value is None and shape.nullable else option_of(shape, value)
    if value is None:
        return ""
    if shape.kind == "yes-no":
        return "yes" if value else "no"
    text = value if isinstance(value, str) else json.dumps(value)
    return text.removesuffix("Z").removesuffix("+00:00") if shape.kind == "instant" else text


def part(name: str, key: str) -> str:
    """The name of a property's field."""
    return below(name, escaped(key))


def below(name: str, segment: str) -> str:
    """The name of the field below another."""
    return f"{name}/{segment}"


def escaped(key: str) -> str:
    """A key as a segment of a JSON pointer."""
    return key.replace("~", "~0").replace("/", "~1")


def read(shape: Shape, sent: Sent, name: str = "in") -> Submitted:
    """The value that a form holds. The schema itself is checked by who takes the value."""
    submitted = Submitted()
    reader = _FormReader(sent, submitted)
    value = reader.value(shape, name, "")
    submitted.value = {} if value is ABSENT else value
    return submitted


def rows_of(sent: Sent, name: str) -> list[int]:
    """The rows of a list that were sent, in order."""
    start = f"{name}/"
    segments = {each[len(start) :].partition("/")[0] for each in sent if each.startswith(start)}
    return sorted(int(each) for each in segments if each.isascii() and each.isdecimal() and len(each) < 6)[:MAX_ROWS]


class _FormReader:
    """Reads texts as values, strictly: a fault for each that is not of its type."""

    def __init__(self, sent: Sent, submitted: Submitted) -> None:
        self._sent = sent
        self._faults = submitted.faults
        self._names = submitted.names

    def value(self, shape: Shape, name: str, pointer: str) -> Any:
        """The value of a field; `ABSENT` if it is left out."""
        self._names[pointer] = name
        match shape.kind:
            case "group":
                return self._group(shape, name, pointer)
            case "list":
                return self._list(shape, name, pointer)
            case "choices":
                return [self._choice(shape.below[0], text, name) for text in self._texts(name)]
            case "switch":
                return self._text(name) in ("on", "true", "yes")
            case "file":
                return self._file(shape, name)
            case _:
                return self._single(shape, name)

    def _texts(self, name: str) -> list[str]:
        # A browser writes the ends of lines as CRLF, whatever was typed.
        return [text.replace("\r\n", "\n") for text in self._sent.get(name, ()) if isinstance(text, str)]

    def _text(self, name: str) -> str:
        return next(iter(self._texts(name)), "")

    def _group(self, shape: Shape, name: str, pointer: str) -> Any:
        if is_optional(shape) and not self._text(used_name(name)):
            return None if shape.nullable else ABSENT
        values: dict[str, Any] = {}
        for each in shape.below:
            value = self.value(each, part(name, each.key), f"{pointer}/{escaped(each.key)}")
            if value is not ABSENT:
                values[each.key] = value
        return values

    def _list(self, shape: Shape, name: str, pointer: str) -> Any:
        item = shape.below[0]
        values: list[Any] = []
        for row in rows_of(self._sent, name):
            place = below(name, str(row))
            if self._is_empty(item, place):
                continue
            value = self.value(item, place, f"{pointer}/{len(values)}")
            if value is not ABSENT:
                values.append(value)
        if values or shape.has_default or (shape.required and not shape.nullable):
            return values
        return None if shape.nullable else ABSENT

    def _is_empty(self, item: Shape, name: str) -> bool:
        """Whether nothing was filled in in a row: a row is left out so."""
        start = f"{name}/"
        if item.kind == "switch":
            return False
        own = [each for key, each in self._sent.items() if key == name or key.startswith(start)]
        return not any(_holds(value) for values in own for value in values)

    def _single(self, shape: Shape, name: str) -> Any:
        text = self._text(name)
        if text.strip() == "" and not (text and shape.kind in ("line", "text", "area")):
            return self._empty(shape, name)
        readers: dict[str, Callable[[Shape, str, str], Any]] = {
            "number": self._number,
            "choice": self._choice,
            "date": self._date,
            "instant": self._instant,
            "json": self._json,
        }
        reader = readers.get(shape.kind)
        if reader is not None:
            return reader(shape, text.strip(), name)
        return text == "yes" if shape.kind == "yes-no" else text

    def _empty(self, shape: Shape, name: str) -> Any:
        if shape.nullable:
            return None
        default = shape.schema.get("default")
        if shape.kind in ("line", "text", "area") and isinstance(default, str):
            return ""  # it was cleared
        if not shape.required or shape.has_default:
            return ABSENT
        if shape.key == "" and shape.kind == "json":
            return ABSENT
        return self._fault(name, _MISSING)

    def _number(self, shape: Shape, text: str, name: str) -> Any:
        if shape.schema.get("type") == "integer":
            if _WHOLE.fullmatch(text):
                return int(text)
            return self._fault(name, _("Write a whole number, such as 12."))
        if _WHOLE.fullmatch(text) and len(text) <= 15:
            return int(text)
        if _DECIMAL.fullmatch(text) and math.isfinite(float(text)):
            return float(text)
        return self._fault(name, _("Write a number, such as 1.5."))

    def _choice(self, shape: Shape, text: str, name: str) -> Any:
        for each in shape.schema["enum"]:
            if option_of(shape, each) == text:
                return each
        return self._fault(name, _("Choose one of the list."))

    def _date(self, _shape: Shape, text: str, name: str) -> Any:
        try:
            return date.fromisoformat(text).isoformat()
        except ValueError:
            return self._fault(name, _("Write a date such as 2026-11-28."))

    def _instant(self, _shape: Shape, text: str, name: str) -> Any:
        try:
            at = datetime.fromisoformat(text)
        except ValueError:
            return self._fault(name, _("Write a time such as 2026-11-28T09:30."))
        return at.isoformat() + ("" if at.tzinfo else "Z")

    def _json(self, _shape: Shape, text: str, name: str) -> Any:
        try:
            return msgspec.json.decode(text.encode(errors="surrogatepass"))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return self._fault(name, _('This is not JSON. Texts are in double quotes: ["one", "two"].'))

    def _file(self, shape: Shape, name: str) -> Any:
        files = [each for each in self._sent.get(name, ()) if isinstance(each, UploadFile) and each.filename]
        if not files:
            return self._empty(shape, name)
        content = files[0].file.read(MAX_FILE_BYTES + 1)
        if len(content) > MAX_FILE_BYTES:
            return self._fault(
                name, _("The file is larger than the {most} kB that an app takes.", most=MAX_FILE_BYTES // 1000)
            )
        if shape.schema.get("type") == "string":
            return base64.b64encode(content).decode()
        kind = (files[0].content_type or BYTES).partition(";")[0].strip().lower()
        return File(files[0].filename or "file", content, kind if _MEDIA_TYPE.fullmatch(kind) else BYTES).as_json()

    def _fault(self, name: str, message: Message) -> Any:
        self._faults.setdefault(name, message)
        return ABSENT


def _holds(value: str | UploadFile) -> bool:
    return bool(value.strip()) if isinstance(value, str) else bool(value.filename)


def is_optional(shape: Shape) -> bool:
    """Whether a group may be left out as a whole."""
    return shape.kind == "group" and (shape.nullable or (not shape.required and not shape.has_default))


def used_name(name: str) -> str:
    """The name of the switch of an optional group."""
    return below(name, _USED)


def option_of(shape: Shape, value: Any) -> str:
    """A choice as the form sends it: its text if all are texts, else its JSON."""
    if all(isinstance(each, str) for each in shape.schema["enum"]):
        return str(value)
    return json.dumps(value, ensure_ascii=False)
