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
from typing import Any, TextIO, cast

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
    sys.stdout.write(styled(printable(text), BOLD, sys.stdout) + "\n")


BOLD, RED, GREEN = "1", "31", "32"


def styled(text: str, style: str, stream: TextIO) -> str:
    """A printable text in a style, if the stream is a terminal that takes one and the user has not set NO_COLOR."""
    takes_style = stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return f"\x1b[{style}m{text}\x1b[0m" if takes_style else text


def say_marked(mark: str, style: str, text: str) -> None:
    """Print a line on stdout that begins with a mark, whose style says how it is."""
    sys.stdout.write(
        f"{styled(mark, style, sys.stdout)} {printable(text)}\n" if style else f"{mark} {printable(text)}\n"
    )


def note_error(text: str) -> None:
    """Print an error on stderr, its first word in red on a terminal."""
    sys.stderr.write(f"{styled(tr('Error: '), RED, sys.stderr)}{printable(text)}\n")
    sys.stderr.flush()


def say_table(
    rows: list[tuple[str, ...]], headings: tuple[str, ...], *, indent: str = "", capitals: bool = True
) -> None:
    """Print columns under headings, without Rich, whose import takes longer than the command.

    Cells that do not fit the terminal continue on the next line.
    """
    named = tuple(heading.upper() for heading in headings) if capitals else headings
    cells = [tuple(one_line(cell) for cell in row) for row in (named, *rows)]
    columns = list(zip(*cells, strict=True))
    # An id that is broken cannot be copied, so words are kept whole as long as there is room.
    words = [max(width_of(word) for cell in column for word in (cell.split() or [""])) for column in columns]
    widths = _fitted([max(map(width_of, column)) for column in columns], words, width_of(indent))
    for number, row in enumerate(cells):
        wrapped = [_wrapped(cell, width) for cell, width in zip(row, widths, strict=True)]
        for line in range(max(map(len, wrapped))):
            parts = [column[line] if line < len(column) else "" for column in wrapped]
            padded = [part + " " * (width - width_of(part)) for part, width in zip(parts, widths, strict=True)]
            (say if number else say_heading)(indent + "  ".join(padded).rstrip())


def _fitted(widths: list[int], words: list[int], indent: int) -> list[int]:
    """The widths of columns, narrowed until a line fits.

    The widest is narrowed first, none below its widest word if possible, and the first column, mostly an id, last.
    """
    if not sys.stdout.isatty() and "COLUMNS" not in os.environ:
        return widths
    from shutil import get_terminal_size

    room = max(get_terminal_size().columns - indent - 2 * (len(widths) - 1), 8 * len(widths))
    while sum(widths) > room:
        breakable = [width if width > word else 0 for width, word in zip(widths, words, strict=True)]
        others = [width if number and width > 6 else 0 for number, width in enumerate(widths)]
        candidates = next((each for each in (breakable, others) if any(each)), widths)
        widths[candidates.index(max(candidates))] -= 1
    return widths


def _wrapped(text: str, width: int) -> list[str]:
    """Wrap a text into lines of at most this many columns, at spaces if there are any."""
    lines: list[str] = []
    while width_of(text) > width:
        end = taken = 0
        while end < len(text) and (taken := taken + width_of(text[end])) <= width:
            end += 1
        space = text.rfind(" ", 1, end + 1)
        joint = max(text.rfind("/", 0, end), text.rfind("-", 0, end)) + 1  # such as in a date
        cut = space if space > 0 else joint or max(end, 1)
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
