import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmasos.printable import hidden_character, json_safe, one_line, printable

HOSTILE = [
    "\x1b[1A\x1b[2K",  # CSI: up, and erase the line
    "\x1b]0;title\x07",  # OSC: set the title
    "\x1b]8;;https://evil.example\x1b\\link\x1b]8;;\x1b\\",
    "\x9b2K",  # CSI as one C1 character
    "\x9d0;title\x9c",
    "\x08\x08\x08",
    "over\rwritten",
    "\x7f",
    "\u202egnp.exe",
    "\u2066isolated\u2069",
    "a\u2028b",
    "\ud800",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_what_a_terminal_obeys_is_shown_instead(text: str) -> None:
    """11-S1: no text of an app, a model or a provider may move the cursor, erase, or reverse what is read."""
    shown = printable(f"before {text} after")
    assert shown.startswith("before ")
    assert shown.endswith(" after")
    assert all(letter.isprintable() for letter in shown)
    document = json_safe(json.dumps({"text": text}, ensure_ascii=False))
    assert all(letter.isprintable() for letter in document)
    assert json.loads(document) == {"text": text}
    assert hidden_character(text) is not None


@given(st.text())
def test_nothing_unsafe_is_ever_printed(text: str) -> None:
    """11-S1."""
    shown = printable(text)
    assert not any(letter < " " and letter not in "\n\t" for letter in shown)
    assert not any("\x7f" <= letter <= "\x9f" for letter in shown)
    shown.encode()
    assert "\n" not in one_line(text)
    assert json.loads(json_safe(json.dumps(text, ensure_ascii=False))) == text


@pytest.mark.parametrize("text", ["plain", "中文，标点。", "עברית", "é", "👩‍👩‍👧‍👦", "می‌خواهم", "a\tb\nc"])
def test_ordinary_texts_are_printed_as_they_are(text: str) -> None:
    assert printable(text) == text
    assert hidden_character(text, lines=True) is None


@pytest.mark.parametrize(
    "code",
    [
        0xE0041,
        0xAD,
        0x2060,
        0xFEFF,
        0x3164,
        0x115F,
        0xFFA0,
        0x2800,
        0x34F,
        0x17B4,
        0x180B,
        0xE0100,
        0xE000,
        0xFFFE,
        0xFFFC,
    ],
)
def test_what_is_drawn_as_nothing_is_found(code: int) -> None:
    """11-S1, its kind: fillers and blanks are letters and signs by their categories, and a name of them was blank."""
    assert hidden_character(f"a{chr(code)}b") == f"U+{code:04X}"


def test_a_pile_of_marks_and_a_gap_are_levelled_on_a_line() -> None:
    """11-S1, its kind: they covered the lines above, or moved a text to where it read as one of ours."""
    piled = "a" + "\u0301" * 40
    assert hidden_character(piled) == "U+0301"
    assert one_line(piled) == "a" + "\u0301" * 4
    for blanks in (" " * 100, "\u00a0" * 60, "\u3000" * 40, "\n\n\n\n", "\t \t \t"):
        assert one_line(f"It is local.{blanks}Within: nothing") == "It is local. Within: nothing"


@pytest.mark.parametrize("text", ["Tiếng Việt ẫ", "❤️ 1️⃣ 🏳️‍🌈", "ที่นี่", "हिन्दी", "한국어", "a  b", "ཧཱུྃ"])
def test_marks_and_selectors_that_scripts_need_are_left(text: str) -> None:
    assert hidden_character(text) is None
    assert one_line(text) == text


def test_windows_line_ends_are_line_ends() -> None:
    assert printable("a\r\nb") == "a\nb"
    assert one_line("a\r\nb\tc") == "a b c"
