"""Answers by their type, as values; how they look in pages is tested over HTTP."""

import base64
import json

from llmasos_server.web.presenter import MAX_PARTS, MAX_ROWS, download_of, file_of, present

FILE = {"name": "a.txt", "media_type": "text/plain", "base64": base64.b64encode(b"hi").decode()}


def test_numbers_and_truth_are_in_the_readers_language() -> None:
    """12-6: numbers by the locale."""
    assert present(1234567, "en").text == "1,234,567"
    assert present(2026, "en").text == "2026"
    assert present(1e-9, "en").text == "1e-09"
    assert [present(value, "zh").text for value in (True, None, 0.5)] == ["是", "-", "0.5"]
    assert present([], "en").text == present({}, "en").text == "-"


def test_each_type_has_its_form() -> None:
    """12-6: one presenter by type."""
    assert present("*a*", "en").html == "<p><em>a</em></p>\n"
    facts = present({"a_b": 1, "rows": [{"x": 1}, {"y": [2]}], "list": ["a", 1]}, "en").facts
    assert [(each.label, each.part.kind) for each in facts] == [("a b", "text"), ("rows", "table"), ("list", "items")]
    assert facts[1].part.columns == ("x", "y")
    assert facts[1].part.rows == (("1", "-"), ("-", "[2]"))
    assert present(FILE, "en").kind == "file"
    assert present("data:image/png;base64,AAAA", "en").source == "data:image/png;base64,AAAA"
    assert present("data:text/html;base64,AAAA", "en").kind == "file"
    assert present("<svg onload='alert(1)'></svg>", "en").source.startswith("data:image/svg+xml;base64,")


def test_what_is_too_much_for_a_page_is_left_to_the_file() -> None:
    """12: deep and large answers."""
    table = present([{"n": number} for number in range(MAX_ROWS + 5)], "en")
    assert (len(table.rows), table.left_out) == (MAX_ROWS, 5)
    deep: object = "end"
    for _level in range(500):
        deep = [deep]
    assert "cut" in str(present(deep, "en"))
    assert str(present(["x"] * (MAX_PARTS * 3), "en")).count("'cut'") == MAX_PARTS * 2 + 1
    many = present([{f"c{number}": number for number in range(5000)}] * 1000, "en")
    assert len(many.rows) * len(many.columns) <= MAX_PARTS * 5


def test_a_file_is_numbered_as_it_is_saved_also_behind_what_is_left_out() -> None:
    deep: object = FILE | {"name": "deep.txt"}
    for _level in range(20):
        deep = [deep]
    answer = [deep, FILE]
    shown = present(answer, "en").items[1]
    saved = file_of(answer, shown.number)
    assert (shown.text, saved.name if saved else "") == ("a.txt", "a.txt")
    assert file_of(answer, 2) is None


def test_downloads_keep_every_value() -> None:
    assert download_of("text\ud800", "a").content == b"text?"
    rows = [{"a": 1, "b": {"c": [1]}}, {"a": "@x"}]
    assert json.loads(download_of(rows, "a").content) == rows
    assert download_of(rows, "a", as_csv=True).content.decode("utf-8-sig") == 'a,b\r\n1,"{""c"": [1]}"\r\n\'@x,\r\n'
    assert download_of({"a": 1}, "a", as_csv=True).name == "a.json"
