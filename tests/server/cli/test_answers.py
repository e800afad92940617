"""11-30: answers as people like them."""

import base64
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from llmasos.errors import Invalid
from llmasos_server.answers import files_in
from llmasos_server.cli.answers import in_words, open_saved, save_answer, say_answer
from llmasos_server.cli.output import say_table, width_of
from llmasos_server.cli.shell import app

SVG = '<svg xmlns="http://www.w3.org/2000/svg"></svg>'
PNG = {"media_type": "image/png", "base64": base64.b64encode(b"\x89PNG").decode()}


@pytest.fixture(autouse=True)
def reader(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMASOS_LOCALE", "en")
    monkeypatch.delenv("COLUMNS", raising=False)


def shown(output: Any, capsys: pytest.CaptureFixture[str]) -> str:
    say_answer(output)
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "-"),
        (True, "yes"),
        (2026, "2026"),
        (1234567, "1,234,567"),
        (0.5, "0.5"),
        (1234567.25, "1,234,567.25"),
        (0.0000125, "1.25e-05"),
        ("plain", "plain"),
        (["a", 2], "a, 2"),
        ([], "-"),
        ({"a": 1}, '{"a": 1}'),
        ("2026-13-99T99:99:99Z", "2026-13-99T99:99:99Z"),
    ],
)
def test_values_are_shown_in_words(value: Any, words: str) -> None:
    """11-30."""
    assert in_words(value) == words


def test_times_are_in_the_users_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    """11-30."""
    import time

    monkeypatch.setenv("TZ", "Asia/Shanghai")
    time.tzset()
    try:
        assert in_words("2026-11-28T09:30:00Z") == "2026-11-28 17:30 CST"
    finally:
        monkeypatch.delenv("TZ")
        time.tzset()


def test_an_object_is_a_list_of_its_fields(capsys: pytest.CaptureFixture[str]) -> None:
    """11-30."""
    output = {"due_date": "2026-11-28", "count": 12000, "note": "one\ntwo", "by": {"name": "Ann"}, "chart": SVG}
    assert shown(output, capsys) == (
        "due date: 2026-11-28\ncount: 12,000\nnote\n  one\n  two\nby\n  name: Ann\n"
        "chart: [image/svg+xml, 0.0 KiB: save it with -o FILE]\n"
    )


def test_records_are_a_table_that_aligns_chinese(capsys: pytest.CaptureFixture[str]) -> None:
    """11-30."""
    assert shown([{"name": "王", "size": 12345}, {"name": "Ann", "city": "Bern"}], capsys) == (
        "name  size    city\n王    12,345  -\nAnn   -       Bern\n"
    )


@pytest.mark.parametrize(("output", "said"), [("# A", "# A\n"), ([], ""), (["a", "b"], "- a\n- b\n"), (3, "3\n")])
def test_other_answers_are_printed_plainly(output: Any, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(output, capsys) == said


def test_a_table_fits_sixty_columns(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """11-30: nothing is cut off; cells continue on the next line."""
    monkeypatch.setenv("COLUMNS", "60")
    words = "a long text about many things that goes on and on " * 3
    say_table([("acme/hello", words, "你好世界" * 20)], ("APP", "SUMMARY", "NAME"))
    out = capsys.readouterr().out
    assert all(width_of(line) <= 60 for line in out.splitlines())
    assert out.count("你") == 20
    assert out.count("things") == 3


@given(st.lists(st.tuples(st.text(max_size=90), st.text(max_size=90)), max_size=4), st.integers(1, 100))
def test_no_table_is_wider_than_the_terminal_or_loses_a_letter(rows: list[tuple[str, str]], columns: int) -> None:
    import io
    from contextlib import redirect_stdout

    out = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out):
        patch.setenv("COLUMNS", str(columns))
        say_table(rows, ("A", "B"))
    assert all(width_of(line) <= max(columns, 18) for line in out.getvalue().split("\n"))
    for letter in "ghijklm":
        assert out.getvalue().count(letter) == sum(cell.count(letter) for row in rows for cell in row)


def test_a_picture_is_saved_as_its_bytes_and_several_beside_each_other(tmp_path: Path) -> None:
    """11-30."""
    save_answer({"text": "see", "charts": [PNG, SVG]}, tmp_path / "chart.png")
    assert (tmp_path / "chart.png").read_bytes() == b"\x89PNG"
    assert (tmp_path / "chart-2.png").read_text() == SVG
    data = "data:image/png;base64," + PNG["base64"]
    assert [each.media_type for each in files_in([data, PNG, "data:image/png;base64,???"])] == [
        "image/png",
        "image/png",
    ]


def test_other_answers_are_saved_as_text_or_json(tmp_path: Path) -> None:
    """11-30."""
    save_answer("hello", tmp_path / "a.txt")
    save_answer({"a": 1}, tmp_path / "a.json")
    assert (tmp_path / "a.txt").read_text() == "hello\n"
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": 1}
    with pytest.raises(Invalid, match="cannot be written"):
        save_answer("hello", tmp_path / "none" / "a.txt")


def _desktop(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A desktop whose program notes what it is to open."""
    opener, opened = folder / "bin" / "xdg-open", folder / "opened"
    opener.parent.mkdir()
    opener.write_text(f'#!/bin/sh\nprintf %s "$1" > "{opened}"\n')
    opener.chmod(0o755)
    monkeypatch.setenv("PATH", f"{opener.parent}:/usr/bin:/bin")
    return opened


@pytest.mark.skipif(sys.platform != "linux", reason="other desktops have other programs")
def test_a_saved_file_is_opened_by_the_desktop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """11-30: a name that begins with a hyphen is no option of the program."""
    opened = _desktop(tmp_path, monkeypatch)
    monkeypatch.chdir(tmp_path)
    open_saved(Path("-chart.png"))
    assert opened.read_text() == str(tmp_path / "-chart.png")


@pytest.mark.skipif(sys.platform != "linux", reason="other desktops have other programs")
def test_without_a_desktop_a_saved_file_stays_closed_and_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """11-30."""
    monkeypatch.setenv("PATH", str(tmp_path))  # without an `xdg-open`
    monkeypatch.setenv("LLMASOS_LOCALE", "en")
    open_saved(tmp_path / "chart.png")
    assert "Nothing here opens" in capsys.readouterr().err


def test_nothing_is_opened_that_is_not_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    """11-30: and the action is not run for it."""
    monkeypatch.setenv("LLMASOS_LOCALE", "en")
    done = CliRunner().invoke(app, ["run", "acme/none", "greet", "--open"])
    assert done.exit_code == 1
    assert "name it with -o FILE" in done.stderr
