"""Answers of apps by their type: text as Markdown, objects as lists of facts, records as tables, files as cards.

Everything here was written by an app or a model: templates escape it, `markdown` cleans it, and a picture is shown by
`<img>` alone, in which nothing runs.
"""

from __future__ import annotations

import base64
import csv
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count
from typing import Final, Literal

from llmasos.i18n import Message, _, render
from llmasos.printable import one_line, printable
from llmasos_server.answers import AnswerFile, as_file, files_in, is_list, is_object, records_of
from llmasos_server.web.formats import Formats
from llmasos_server.web.markdown import to_html

# Below this, separators only disturb: a year, a port.
_SEPARATED_FROM: Final = 10_000
# What a page can show; the whole of it can be downloaded.
MAX_ROWS: Final = 500
MAX_COLUMNS: Final = 50
MAX_PARTS: Final = 2000
MAX_DEPTH: Final = 8
_PICTURES: Final = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp", "image/svg+xml"})
# A spreadsheet takes a cell that begins so for a formula.
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True, slots=True)
class Fact:
    """A field of an object."""

    label: str
    part: Part


@dataclass(frozen=True, slots=True)
class Part:
    """A part of an answer, as its template shows it."""

    kind: Literal["markdown", "text", "facts", "items", "table", "picture", "file", "cut"]
    text: str = ""
    html: str = ""
    """Cleaned, of Markdown."""
    facts: tuple[Fact, ...] = ()
    items: tuple[Part, ...] = ()
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    left_out: int = 0
    """Rows of a table that are not shown."""
    source: str = ""
    """Of a picture: a `data:` URL."""
    number: int = 0
    """Of a file, counted from 0 in its answer."""
    size: str = ""


def present(output: object, locale: str) -> Part:
    """An answer, in a language."""
    return _Presenter(locale).part(output, 0)


class _Presenter:
    def __init__(self, locale: str) -> None:
        self._locale = locale
        self._formats = Formats(locale)
        self._files = count()
        self._left = MAX_PARTS

    def part(self, value: object, depth: int) -> Part:
        """A value, with a value's parts."""
        self._left -= 1
        if self._left < 0 or depth > MAX_DEPTH:
            for _ in files_in(value):
                next(self._files)
            return Part("cut")
        if (file := as_file(value)) is not None:
            return self._file(file)
        if isinstance(value, str):
            return Part("markdown", text=value, html=to_html(printable(value)))
        return self._several(value, depth) if is_object(value) or is_list(value) else Part("text", self._words(value))

    def _several(self, value: Mapping[str, object] | list[object], depth: int) -> Part:
        if not value:
            return Part("text", text="-")
        if isinstance(value, Mapping):
            facts = (Fact(label(name), self.part(each, depth + 1)) for name, each in value.items())
            return Part("facts", facts=tuple(facts))
        if (records := records_of(value)) is not None and not any(True for _ in files_in(value)):
            return self._table(records)
        return Part("items", items=tuple(self.part(each, depth + 1) for each in value))

    def _file(self, file: AnswerFile) -> Part:
        number = next(self._files)
        name = file.name or named(file, number)
        size = f"{self._formats.number(max(1, len(file.content) // 1000))} kB"
        if file.media_type not in _PICTURES:
            return Part("file", text=name, number=number, size=size)
        source = f"data:{file.media_type};base64,{base64.b64encode(file.content).decode()}"
        return Part("picture", text=name, source=source, number=number, size=size)

    def _table(self, records: list[Mapping[str, object]]) -> Part:
        names = list(dict.fromkeys(name for row in records for name in row))[:MAX_COLUMNS]
        room = min(MAX_ROWS, max(1, MAX_PARTS * 5 // max(1, len(names))))
        rows = tuple(tuple(self._words(row.get(name)) for name in names) for row in records[:room])
        columns = tuple(label(name) for name in names)
        return Part("table", columns=columns, rows=rows, left_out=len(records) - len(rows))

    def _words(self, value: object) -> str:
        """One value on one line."""
        match value:
            case None:
                return "-"
            case bool():
                return self._told(_("Yes") if value else _("No"))
            case int():
                return self._formats.number(value) if abs(value) >= _SEPARATED_FROM else str(value)
            case float():
                return self._formats.number(value) if 0.001 <= abs(value) < 1e15 or not value else f"{value:.4g}"
            case str():
                return one_line(value)
            case _:
                return one_line(json.dumps(value, ensure_ascii=False))

    def _told(self, message: Message) -> str:
        return render(message, self._locale)


def label(name: str) -> str:
    """A field's name as a label."""
    return one_line(name).replace("_", " ")


def named(file: AnswerFile, number: int) -> str:
    """A name for a file that has none."""
    ending = file.media_type.rpartition("/")[2].partition("+")[0]
    ending = ending if ending.isalnum() and len(ending) <= 8 else "bin"
    return f"answer-{number + 1}.{ending}"


@dataclass(frozen=True, slots=True)
class Download:
    """An answer or a file of it, to be saved."""

    name: str
    media_type: str
    content: bytes


def download_of(output: object, stem: str, *, as_csv: bool = False) -> Download:
    """An answer as a file: a text as Markdown, records as CSV if asked, everything else as JSON."""
    if as_csv and (records := records_of(output)) is not None:
        return Download(f"{stem}.csv", "text/csv; charset=utf-8", _csv(records).encode("utf-8-sig", "replace"))
    if isinstance(output, str):
        return Download(f"{stem}.md", "text/markdown; charset=utf-8", output.encode(errors="replace"))
    text = json.dumps(output, ensure_ascii=False, indent=2)
    return Download(f"{stem}.json", "application/json", text.encode(errors="replace"))


def _csv(records: list[Mapping[str, object]]) -> str:
    names = list(dict.fromkeys(name for row in records for name in row))
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow([_cell(name) for name in names])
    writer.writerows([_cell(row.get(name)) for name in names] for row in records)
    return text.getvalue()


def _cell(value: object) -> object:
    if value is None or isinstance(value, int | float):
        return value
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return f"'{text}" if text.startswith(_FORMULA) else text


def file_of(output: object, number: int) -> Download | None:
    """A file of an answer, counted from 0; None if there is none."""
    for place, each in enumerate(files_in(output)):
        if place == number:
            return Download(each.name or named(each, number), "application/octet-stream", each.content)
    return None
