"""Answers of actions as people read them, and the files in them. `--json` prints them as they are."""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

import typer

from llmasos.errors import Invalid
from llmasos.i18n import _
from llmasos.printable import one_line, printable
from llmasos_server.answers import as_file, files_in, is_list, is_object, records_of
from llmasos_server.cli.output import note, say, say_heading, say_table, tr

_TIME: Final = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:?\d\d)")
# Below this, separators only disturb: a year, a port.
_SEPARATED_FROM: Final = 10_000


def say_answer(output: object) -> None:
    """Print an answer: a text as Markdown on a terminal, an object as a list of its fields, records as a table."""
    if isinstance(output, str) and as_file(output) is None:
        _say_text(output)
    elif (rows := records_of(output)) is not None:
        _say_records(rows)
    elif is_object(output) and as_file(output) is None:
        _say_fields(output, "")
    elif is_list(output):
        for each in output:
            say(f"- {in_words(each)}")
    else:
        say(in_words(output))


def save_answer(output: object, path: Path) -> None:
    """Save an answer: the files in it, or else its text, or its JSON.

    Args:
        output: The answer.
        path: Where to; of several files, the second is saved as `name-2.ext`.

    Raises:
        Invalid: It cannot be written.
    """
    contents = [each.content for each in files_in(output)]
    if not contents:
        text = output if isinstance(output, str) else json.dumps(output, ensure_ascii=False, indent=2)
        contents = [text.encode(errors="replace") + b"\n"]
    for number, content in enumerate(contents, 1):
        target = path if number == 1 else path.with_stem(f"{path.stem}-{number}")
        try:
            _replace(target, content)
        except OSError as error:
            raise Invalid(
                _("{path} cannot be written: {reason}.", path=str(target), reason=error.strerror or str(error))
            ) from error


def open_saved(path: Path) -> None:
    """Open a saved file with the desktop's program; a note says so if there is none."""
    # Absolute: a name that begins with a hyphen would be an option of the program.
    # `xdg-open` returns whether there is a program, so it is awaited; macOS's `open` would block until that is closed.
    if typer.launch(str(path.absolute()), wait=sys.platform == "linux") != 0:
        note(tr("Nothing here opens {path}.", path=str(path)))


def in_words(value: object) -> str:
    """One value on one line: numbers with separators, times in the user's zone."""
    if (found := as_file(value)) is not None:
        size = f"{len(found.content) / 1024:,.1f} KiB"
        return tr("[{kind}, {size}: save it with -o FILE]", kind=found.media_type, size=size)
    match value:
        case None:
            words = "-"
        case bool():
            words = tr("yes") if value else tr("no")
        case int():
            words = f"{value:,}" if abs(value) >= _SEPARATED_FROM else str(value)
        case float():
            words = _number(value)
        case str():
            words = _local_time(value) if _TIME.fullmatch(value) else one_line(value)
        case _ if is_list(value):
            words = ", ".join(in_words(each) for each in value) or "-"
        case _:
            words = one_line(json.dumps(value, ensure_ascii=False))
    return words


def _number(value: float) -> str:
    if value != 0 and abs(value) < 0.001:
        return f"{value:.3g}"
    text = f"{value:,.3f}" if abs(value) >= _SEPARATED_FROM else f"{value:.3f}"
    return text.rstrip("0").rstrip(".")


def _local_time(text: str) -> str:
    try:
        return datetime.fromisoformat(text).astimezone().strftime("%Y-%m-%d %H:%M:%S %Z").replace(":00 ", " ")
    except (ValueError, OverflowError):  # of the right form, and no time
        return text


def _say_records(rows: Sequence[Mapping[str, object]], indent: str = "") -> None:
    names = list(dict.fromkeys(name for row in rows for name in row))
    table = [tuple(in_words(row.get(name)) for name in names) for row in rows]
    # The names are the app's own, and are shown as it wrote them.
    say_table(table, tuple(_label(name) for name in names), indent=indent, capitals=False)


def _say_fields(fields: Mapping[str, object], indent: str) -> None:
    for name, value in fields.items():
        label = f"{indent}{_label(name)}"
        if is_object(value) and as_file(value) is None:
            say_heading(label)
            _say_fields(value, indent + "  ")
        elif (rows := records_of(value)) is not None:
            say_heading(label)
            _say_records(rows, indent + "  ")
        elif isinstance(value, str) and "\n" in value.strip() and as_file(value) is None:
            say_heading(label)
            for line in printable(value.strip()).split("\n"):
                say(f"{indent}  {line}")
        else:
            say(f"{label}: {in_words(value)}")


def _label(name: str) -> str:
    return one_line(name).replace("_", " ")


def _say_text(text: str) -> None:
    if not sys.stdout.isatty():
        say(text)
        return
    from rich.console import Console
    from rich.markdown import Markdown

    # No hyperlinks: a terminal hides their targets.
    Console(highlight=False).print(Markdown(printable(text), hyperlinks=False))


def _replace(path: Path, content: bytes) -> None:
    handle, name = tempfile.mkstemp(prefix=".tmp-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        umask = os.umask(0)
        os.umask(umask)
        Path(name).chmod(0o666 & ~umask)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
