"""What answers of actions hold, whoever shows them: files and records."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, TypeGuard

from llmasos.printable import one_line
from llmasos_sdk.files import plain_name

_DATA_URL: Final = re.compile(r"data:([a-z]+/[a-z0-9.+-]+);base64,")


@dataclass(frozen=True, slots=True)
class AnswerFile:
    """A picture or another file within an answer."""

    media_type: str
    content: bytes
    name: str | None = None
    """As the app named it, without a folder."""


def files_in(output: object) -> Iterator[AnswerFile]:
    """The files anywhere in an answer, in its order."""
    found = as_file(output)
    if found is not None:
        yield found
    elif is_object(output):
        for each in output.values():
            yield from files_in(each)
    elif is_list(output):
        for each in output:
            yield from files_in(each)


def as_file(value: object) -> AnswerFile | None:
    """A file that a value is: SVG, a `data:` URL, or an object with a media type and base64."""
    if isinstance(value, str):
        if value.lstrip()[:5] == "<svg " or (value.startswith("<?xml") and "<svg" in value[:1000]):
            return AnswerFile("image/svg+xml", value.encode(errors="replace"))
        found = _DATA_URL.match(value)
        content = _decoded(value[found.end() :]) if found else None
        return AnswerFile(found[1], content) if found and content is not None else None
    if is_object(value):
        content, kind, name = _decoded(value.get("base64")), value.get("media_type"), value.get("name")
        if content is not None and isinstance(kind, str):
            return AnswerFile(one_line(kind), content, plain_name(name) if isinstance(name, str) else None)
    return None


def records_of(value: object) -> list[Mapping[str, object]] | None:
    """The records of a table; None if it is not a list of records."""
    rows = value if is_list(value) else []
    records = [row for row in rows if is_object(row) and as_file(row) is None]
    return records if records and len(records) == len(rows) else None


def is_object(value: object) -> TypeGuard[Mapping[str, object]]:
    """Whether a decoded JSON value is an object."""
    return isinstance(value, Mapping)


def is_list(value: object) -> TypeGuard[list[object]]:
    """Whether a decoded JSON value is a list."""
    return isinstance(value, list)


def _decoded(text: object) -> bytes | None:
    try:
        return base64.b64decode(text, validate=True) if isinstance(text, str) else None
    except (binascii.Error, ValueError):
        return None
