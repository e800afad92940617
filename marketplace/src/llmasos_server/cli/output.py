"""Output of every command: the shared options, JSON and results on stdout, notes and errors on stderr."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from io import TextIOBase, TextIOWrapper
from typing import Any, cast

from typing_extensions import override

from llmasos.errors import LlmasosError
from llmasos.i18n import _, environment_locale, render
from llmasos.printable import json_safe, one_line, printable


@dataclass(frozen=True, slots=True)
class CommandOptions:
    """What was asked of every command alike."""

    json: bool = False
    debug: bool = False


_options: ContextVar[CommandOptions] = ContextVar("llmasos_cli_options", default=CommandOptions())  # noqa: B039 - it is frozen


def options() -> CommandOptions:
    """`--json` and `--debug` of the command that runs."""
    return _options.get()


def set_options(*, json: bool | None = None, debug: bool | None = None) -> None:
    """Note an option that was given; None leaves it."""
    now = options()
    _options.set(replace(now, json=now.json if json is None else json, debug=now.debug if debug is None else debug))


@contextmanager
def fresh_options() -> Generator[None]:
    """Start a command line without options, and forget the ones it set when it ends."""
    token = _options.set(CommandOptions())
    try:
        yield
    finally:
        _options.reset(token)


def locale() -> str:
    """The language to speak."""
    return environment_locale()


def tr(id_: str, /, **parameters: object) -> str:
    """A message, written as `_` takes it, in the user's language."""
    return render(_(id_, **parameters), locale())


class NullStream(TextIOBase):
    """Takes what is written, and keeps nothing."""

    @override
    def write(self, text: str, /) -> int:
        """Take it."""
        return len(text)


def accept_every_text() -> None:
    """Let what a stream's encoding does not have be printed as `?`, and a stream that was closed take everything."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by whoever started this process
            setattr(sys, name, NullStream())
        elif isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")


def emit_json(value: Any) -> None:
    """Print one JSON document on stdout. What its encoding does not have is escaped, so that the values stay true."""
    document = json_safe(json.dumps(value, ensure_ascii=False, indent=2, default=str))
    try:
        document.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        document = json.dumps(value, indent=2, default=str)
    sys.stdout.write(document + "\n")


def say(text: str = "") -> None:
    """Print a line on stdout. What others wrote of it may have lines: put it through `one_line` first."""
    sys.stdout.write(printable(text) + "\n")


def say_part(text: str) -> None:
    """Print a part of a line on stdout, at once."""
    sys.stdout.write(printable(text))
    sys.stdout.flush()


def note(text: str) -> None:
    """Print a line on stderr: progress and hints, never the result."""
    sys.stderr.write(printable(text) + "\n")
    sys.stderr.flush()


def is_interactive() -> bool:
    """Whether somebody can be asked: stdin and stderr are terminals."""
    try:
        return sys.stdin.isatty() and sys.stderr.isatty()
    except (AttributeError, ValueError):  # closed, or none at all
        return False


def prompt(question: str) -> str:
    """Ask on the terminal for a line. The end of the input ends the command."""
    sys.stderr.write(printable(question))
    sys.stderr.flush()
    line = sys.stdin.readline()
    if not line:
        raise KeyboardInterrupt
    return line.strip()


def message_of(error: LlmasosError) -> str:
    """The error on one line, in the user's language."""
    # The lines of a list are indented.
    return " ".join(render(error.message, locale()).replace("\n  ", " • ").split())


def problem_of(error: LlmasosError) -> dict[str, object]:
    """The error as an RFC 9457 problem document."""
    return {
        "type": "about:blank",
        "title": type(error).__name__,
        "status": error.status,
        "code": error.code,
        "detail": message_of(error),
    }


def width_of(text: str) -> int:
    """How many columns a terminal takes for it: Chinese letters take two."""
    from unicodedata import east_asian_width

    return sum(2 if east_asian_width(letter) in "WF" else 1 for letter in text)


def say_heading(text: str) -> None:
    """Print a line on stdout, in bold on a terminal."""
    line = printable(text)
    sys.stdout.write((f"\x1b[1m{line}\x1b[0m" if _is_coloured() else line) + "\n")


def _is_coloured() -> bool:
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def say_table(rows: list[tuple[str, ...]], headings: tuple[str, ...], *, indent: str = "") -> None:
    """Print columns under headings, without Rich, whose import takes longer than the command.

    Cells that do not fit the terminal continue on the next line.
    """
    named = tuple(heading.upper() for heading in headings)
    cells = [tuple(one_line(cell) for cell in row) for row in (named, *rows)]
    widths = _fitted([max(width_of(row[column]) for row in cells) for column in range(len(headings))], width_of(indent))
    for number, row in enumerate(cells):
        wrapped = [_wrapped(cell, width) for cell, width in zip(row, widths, strict=True)]
        for line in range(max(map(len, wrapped))):
            parts = [column[line] if line < len(column) else "" for column in wrapped]
            padded = [part + " " * (width - width_of(part)) for part, width in zip(parts, widths, strict=True)]
            (say if number else say_heading)(indent + "  ".join(padded).rstrip())


def _fitted(widths: list[int], indent: int) -> list[int]:
    """The widths of columns, the widest made narrower until a line fits."""
    if not sys.stdout.isatty() and "COLUMNS" not in os.environ:
        return widths
    from shutil import get_terminal_size

    room = max(get_terminal_size().columns - indent - 2 * (len(widths) - 1), 8 * len(widths))
    while sum(widths) > room:
        widest = widths.index(max(widths))
        widths[widest] -= 1
    return widths


def _wrapped(text: str, width: int) -> list[str]:
    """Wrap a text into lines of at most this many columns, at spaces if there are any."""
    lines: list[str] = []
    while width_of(text) > width:
        end = taken = 0
        while end < len(text) and (taken := taken + width_of(text[end])) <= width:
            end += 1
        space = text.rfind(" ", 1, end + 1)
        cut = space if space > 0 else max(end, 1)
        lines.append(text[:cut].rstrip())
        text = text[cut:].lstrip()
    return [*lines, text]


def local_time(at: str) -> str:
    """A time in ISO 8601 (UTC if it has no zone), in the user's time zone, to the minute."""
    from datetime import UTC, datetime

    when = datetime.fromisoformat(at)
    return f"{(when if when.tzinfo else when.replace(tzinfo=UTC)).astimezone():%Y-%m-%d %H:%M}"


def in_locale(row: dict[str, Any], field: str) -> str:
    """A text of an app in the user's language, on one line."""
    return one_line(str((row[f"{field}_zh"] if locale() == "zh" else "") or row[f"{field}_en"]))


def local_text(value: object) -> str:
    """A manifest's `{"en", "zh"}` in the user's language, on one line."""
    if not isinstance(value, dict):
        return one_line(str(value or ""))
    texts = cast("dict[str, str | None]", value)
    return one_line((texts.get("zh") if locale() == "zh" else None) or texts.get("en") or "")
