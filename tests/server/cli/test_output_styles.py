"""11-30: tables that fit a narrow terminal, and restrained colour where a terminal takes it."""

import io
from contextlib import redirect_stderr, redirect_stdout

import pytest

from llmasos_server.cli import output


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("LLMASOS_LOCALE", "en")
    monkeypatch.delenv("NO_COLOR", raising=False)
    return Terminal()


@pytest.mark.parametrize(
    ("columns", "rows"),
    [
        (60, [("31e37b233071", "2026-11-28 12:45:27", "acme/hello shout", "succeeded", "0.7", "1,200")] * 2),
        (60, [("app llmasos/storyteller", "tokens/day", "92", "200,000", "the app", "2026-11-29 00:00")] * 2),
        (40, [("llmasos/digest", "1.0", "撰写标题。关键句的挑选不使用模型。", "", "", "")]),
        (30, [("a" * 50, "b", "c", "d", "e", "f")]),
        (60, [("", "", "", "", "", "")]),
    ],
)
def test_a_table_fits_and_breaks_no_id_that_fits(
    columns: int, rows: list[tuple[str, ...]], terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """11-30: an invocation's id was broken over two lines while a time beside it was whole."""
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("NO_COLOR", "1")
    with redirect_stdout(terminal):
        output.say_table(rows, ("one", "two", "three", "four", "five", "six"))
    lines = terminal.getvalue().splitlines()
    assert max(map(output.width_of, lines)) <= max(columns, 6 * 8 + 5 * 2)
    first = rows[0][0].split()[-1:] or [""]
    if output.width_of(first[0]) <= 20:
        assert any(line.startswith(first[0]) or f" {first[0]}" in line for line in lines)


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_colour_is_for_terminals_that_take_it(
    name: str, value: str, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    with redirect_stdout(terminal), redirect_stderr(terminal):
        output.say_heading("heading")
        output.say_marked("✗", output.RED, "part: what \x1b[2J")
        output.say_marked("·", "", "part: note")
        output.note_error("what \x1b[2J")
    assert terminal.getvalue().splitlines() == [
        "\x1b[1mheading\x1b[0m",
        "\x1b[31m✗\x1b[0m part: what \\x1b[2J",
        "· part: note",
        "\x1b[31mError: \x1b[0mwhat \\x1b[2J",
    ]
    monkeypatch.setenv(name, value)
    terminal.truncate(0)
    terminal.seek(0)
    with redirect_stdout(terminal), redirect_stderr(terminal):
        output.say_heading("heading")
        output.note_error("what")
    assert terminal.getvalue() == "heading\nError: what\n"
