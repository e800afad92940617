"""`llmasos run -p`: texts, JSON and files, as the action's schema takes them."""

import base64
from pathlib import Path

import pytest

from llmasos.errors import Invalid
from llmasos_server.cli.run import _Fetches, parsed_parameters

SCHEMA = {
    "properties": {
        "document": {"type": "string", "x-ui": "file"},
        "text": {"type": "string"},
        "numbers": {"type": "array", "items": {"type": "integer"}},
    }
}


def test_a_file_comes_as_base64_where_the_input_takes_a_file_and_as_text_elsewhere(tmp_path: Path) -> None:
    file = tmp_path / "a.bin"
    file.write_bytes(b"\x00\xff")
    encoded = base64.b64encode(b"\x00\xff").decode()
    assert parsed_parameters(SCHEMA, [f"document=@{file}"]) == {"document": encoded}
    file.write_bytes("\ufeffGrüße".encode())
    assert parsed_parameters(SCHEMA, [f"text=@{file}"]) == {"text": "Grüße"}


def test_a_file_of_json_is_read_as_the_type_of_its_input(tmp_path: Path) -> None:
    file = tmp_path / "numbers.json"
    file.write_text("[1, 2]")
    assert parsed_parameters(SCHEMA, [f"numbers=@{file}"]) == {"numbers": [1, 2]}


def test_a_text_that_begins_with_an_at_sign_is_written_with_two() -> None:
    assert parsed_parameters(SCHEMA, ["text=@@home"]) == {"text": "@home"}
    assert parsed_parameters(SCHEMA, ["text=me@home"]) == {"text": "me@home"}


def test_what_cannot_be_read_is_told_with_the_cure(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match=r"cannot be read: No such file.*Write @@"):
        parsed_parameters(SCHEMA, [f"document=@{tmp_path / 'none.pdf'}"])
    with pytest.raises(Invalid, match="cannot be read: Is a directory"):
        parsed_parameters(SCHEMA, [f"document=@{tmp_path}"])
    (tmp_path / "latin").write_bytes(b"caf\xe9")
    with pytest.raises(Invalid, match="not a text in UTF-8"):
        parsed_parameters(SCHEMA, [f"text=@{tmp_path / 'latin'}"])
    with pytest.raises(Invalid, match="larger than the 1024 KiB"):
        parsed_parameters(SCHEMA, ["document=@/dev/zero"])


def test_a_fetch_of_a_model_is_told_once_where_there_is_no_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMASOS_LOCALE", "en")
    fetches = _Fetches()
    for done in (0, 5 << 20, 93 << 20):
        fetches.told("smollm2", done, 93 << 20)
    fetches.close()
    assert capsys.readouterr().err == "Fetching smollm2 (93 MiB, once) …\n"
