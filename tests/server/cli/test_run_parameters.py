"""`llmasos run -p`: texts, JSON and files are read as the types of the action's schema."""

import base64
import io
import subprocess
import sys
import time
from pathlib import Path

import pytest

from llmasos.errors import Invalid
from llmasos_sdk.files import file_schema
from llmasos_server.cli.inputs import given_inputs, parsed_parameters
from llmasos_server.cli.run import _Fetches

SCHEMA = {
    "properties": {
        "document": {"type": "string", "x-ui": "file"},
        "text": {"type": "string"},
        "numbers": {"type": "array", "items": {"type": "integer"}},
    }
}


TYPES = {
    "properties": {
        "text": {"type": "string"},
        "count": {"type": "integer"},
        "flag": {"type": "boolean"},
        "tags": {"type": "array"},
        "maybe": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
        "either": {"anyOf": [{"type": "integer"}, {"type": "string"}]},
        "tone": {"enum": ["plain", "1"]},
    }
}


@pytest.mark.parametrize(
    ("given", "value"),
    [
        ("text=5", "5"),
        ("text=a=b", "a=b"),
        ("text=", ""),
        ("count=5", 5),
        ("flag=true", True),
        ('tags=["a"]', ["a"]),
        ("maybe=null", None),
        ("either=5", 5),
        ("either=five", "five"),
        ("tone=1", "1"),
        ("unknown=5", "5"),
    ],
)
def test_a_value_is_read_as_its_fields_type(given: str, value: object) -> None:
    assert list(parsed_parameters(TYPES, [given]).values()) == [value]


DAY = {"type": "string", "format": "date"}
TIME = {"type": "string", "format": "date-time"}
TYPED = {
    "properties": {
        "day": DAY,
        "at": TIME,
        "either": {"anyOf": [DAY, TIME, {"type": "null"}]},
        "word": {"anyOf": [{"enum": ["today"], "type": "string"}, DAY]},
        "label": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "referred": {"$ref": "#/$defs/day"},
        "mixed": {"enum": ["a", 1, True, None]},
        "list": {"anyOf": [{"type": "array"}, {"type": "null"}]},
    },
    "$defs": {"day": DAY},
}


@pytest.mark.parametrize(
    ("given", "value"),
    [
        ("day=2026-11-28", "2026-11-28"),
        ("referred=2026-11-28", "2026-11-28"),
        ("at=2026-11-28T09:30:00+01:00", "2026-11-28T09:30:00+01:00"),
        ("at=2026-11-28 09:30", "2026-11-28T09:30:00+08:00"),
        ("at=2026-11-28T09:30:05", "2026-11-28T09:30:05+08:00"),
        ("either=2026-11-28", "2026-11-28"),
        ("either=2026-11-28 09:30", "2026-11-28T09:30:00+08:00"),
        ("either=null", None),
        ("word=today", "today"),
        ("word=2026-11-28", "2026-11-28"),
        ("label=5", "5"),
        ("label=true", "true"),
        ("label=null", None),
        ("mixed=a", "a"),
        ("mixed=1", 1),
        ("mixed=true", True),
        ('list=["a"]', ["a"]),
    ],
)
def test_a_typed_text_is_read_as_people_write_it(given: str, value: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """DESIGN 4, 11-29: a time without a zone is one of this computer's zone; a text that may be null stays a text."""
    monkeypatch.setenv("TZ", "Asia/Shanghai")
    time.tzset()
    try:
        assert list(parsed_parameters(TYPED, [given]).values()) == [value]
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("day=today", "-p day: expected a date such as 2026-11-28, got 'today'."),
        ("day=2026-02-30", "-p day: expected a day that exists"),
        ("referred=2026-02-30", "-p referred: expected a day that exists"),
        ("at=2026-11-28", "-p at: expected a time with its zone"),
        ("at=2026-11-28 25:00", "-p at: expected a time with its zone"),
        ("at=0000-01-01 00:00", "-p at: expected a time with its zone"),
        ("at=2026-11-28T09:30:00.1234567Z", "-p at: expected a time to the microsecond"),
        ("either=soon", "-p either: expected a date such as 2026-11-28, or a time, got 'soon'."),
    ],
)
def test_a_date_that_is_none_is_refused_before_anything_runs(given: str, message: str) -> None:
    """DESIGN 4, 11-29."""
    with pytest.raises(Invalid) as raised:
        parsed_parameters(TYPED, [given])
    assert str(raised.value).startswith(message)


@pytest.mark.parametrize("given", ["text", "count=five", "flag=yes", "tags=a"])
def test_a_value_of_another_type_is_refused_with_its_field(given: str) -> None:
    with pytest.raises(Invalid, match=f"-p {given.partition('=')[0]}"):
        parsed_parameters(TYPES, [given])


def test_a_file_is_sent_as_base64_if_the_input_takes_a_file_else_as_text(tmp_path: Path) -> None:
    file = tmp_path / "a.bin"
    file.write_bytes(b"\x00\xff")
    encoded = base64.b64encode(b"\x00\xff").decode()
    assert parsed_parameters(SCHEMA, [f"document=@{file}"]) == {"document": encoded}
    file.write_bytes("\ufeffGrüße".encode())
    assert parsed_parameters(SCHEMA, [f"text=@{file}"]) == {"text": "Grüße"}


FILES = {
    "properties": {
        "document": {**file_schema(), "title": "Document"},
        "maybe": {"anyOf": [file_schema(), {"type": "null"}]},
    }
}


@pytest.mark.parametrize("key", ["document", "maybe"])
def test_a_file_keeps_its_name_and_type(key: str, tmp_path: Path) -> None:
    """12-7."""
    file = tmp_path / "report.pdf"
    file.write_bytes(b"%PDF-")
    encoded = {"name": "report.pdf", "media_type": "application/pdf", "base64": "JVBERi0="}
    assert parsed_parameters(FILES, [f"{key}=@{file}"]) == {key: encoded}
    (tmp_path / "unknown").write_bytes(b"")
    empty = {"name": "unknown", "media_type": "application/octet-stream", "base64": ""}
    assert parsed_parameters(FILES, [f"{key}=@{tmp_path / 'unknown'}"]) == {key: empty}
    file.write_bytes(bytes(750_001))
    with pytest.raises(Invalid, match=f"-p {key}: .* is larger than the 732 KiB"):
        parsed_parameters(FILES, [f"{key}=@{file}"])


def test_a_file_of_json_is_read_as_its_inputs_type(tmp_path: Path) -> None:
    file = tmp_path / "numbers.json"
    file.write_text("[1, 2]")
    assert parsed_parameters(SCHEMA, [f"numbers=@{file}"]) == {"numbers": [1, 2]}


def test_two_at_signs_stand_for_one() -> None:
    assert parsed_parameters(SCHEMA, ["text=@@home"]) == {"text": "@home"}
    assert parsed_parameters(SCHEMA, ["text=me@home"]) == {"text": "me@home"}


def test_a_file_that_cannot_be_read_is_an_error_with_the_cure(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match=r"cannot be read: No such file.*Write @@"):
        parsed_parameters(SCHEMA, [f"document=@{tmp_path / 'none.pdf'}"])
    with pytest.raises(Invalid, match="cannot be read: Is a directory"):
        parsed_parameters(SCHEMA, [f"document=@{tmp_path}"])
    (tmp_path / "latin").write_bytes(b"caf\xe9")
    with pytest.raises(Invalid, match="not a text in UTF-8"):
        parsed_parameters(SCHEMA, [f"text=@{tmp_path / 'latin'}"])
    with pytest.raises(Invalid, match="larger than the 1024 KiB"):
        parsed_parameters(SCHEMA, ["document=@/dev/zero"])


def test_without_a_terminal_a_fetch_of_a_model_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMASOS_LOCALE", "en")
    fetches = _Fetches()
    for done in (0, 5 << 20, 93 << 20):
        fetches.told("smollm2", done, 93 << 20)
    fetches.close()
    assert capsys.readouterr().err == "Fetching smollm2 (93 MiB, once) …\n"


def test_a_byte_order_mark_before_the_input_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    """11-21: editors and shells on Windows write one."""
    monkeypatch.setattr("sys.stdin", io.StringIO('\ufeff{"text": "hello"}'))
    assert given_inputs("-") == {"text": "hello"}


def test_to_run_an_app_without_a_model_the_host_imports_no_client_and_no_terminal() -> None:
    """11-38: a run of an app without a model took 1.5 s for 5 ms of work, most of it imports."""
    code = (
        "import sys, llmasos.host, llmasos.connection\n"
        "heavy = {'litellm', 'httpx', 'ssrfguard', 'rich', 'typer', 'fastapi', 'alembic', 'numpy', 'xllamacpp'}\n"
        "print('HEAVY', sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "HEAVY []" in done.stdout
