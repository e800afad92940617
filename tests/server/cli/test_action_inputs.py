"""11-29: an action's inputs are shown, and asked for."""

import io
import json
import os
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.server.cli.components import minimal_component
from typer.testing import CliRunner, Result

from llmasos.bundles.testing import action, bundle_files, manifest_text
from llmasos.bundles.writer import write_bundle
from llmasos_sdk import App, Context, Field
from llmasos_sdk.testing import FakeContext, call
from llmasos_server.cli.inputs import ask_for_missing, example_of, inputs_of, parsed_parameters
from llmasos_server.cli.shell import app

SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "description": "Who is greeted.\nPolitely."},
        "tone": {"enum": ["kind", "curt"], "default": "kind"},
        "times": {"type": "integer", "minimum": 1, "maximum": 9, "title": "How often"},
        "on": {"anyOf": [{"type": "string", "format": "date"}, {"type": "null"}], "default": None},
        "letter": {"type": "string", "x-ui": "file"},
        "size": {"$ref": "#/$defs/size"},
    },
    "required": ["name", "times"],
    "$defs": {"size": {"type": "object", "properties": {}}},
}


def llmasos(*words: str) -> Result:
    return CliRunner().invoke(app, list(words))


@pytest.fixture(autouse=True)
def english(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMASOS_LOCALE", "en")
    for name in ("LLMASOS_DATABASE_URL", "LLMASOS_URL"):
        monkeypatch.delenv(name, raising=False)


def test_each_input_is_described_with_its_type_and_default() -> None:
    """11-29."""
    assert [(each.name, each.summary, each.help) for each in inputs_of(SCHEMA)] == [
        ("name", "text, required", "Who is greeted. Politely"),
        ("tone", "one of kind, curt, default kind", ""),
        ("times", "a whole number from 1 to 9, required", "How often"),
        ("on", "a date such as 2026-11-28, optional", ""),
        ("letter", "a file, as @PATH, optional", ""),
        ("size", "a JSON object, optional", ""),
    ]


def test_the_example_gives_every_required_input_in_its_type() -> None:
    """11-29."""
    words = shlex.split(example_of("acme/hello", "greet", SCHEMA))
    assert words[:4] == ["llmasos", "run", "acme/hello", "greet"]
    values = parsed_parameters(SCHEMA, words[5::2])
    assert set(values) == {"name", "times"}
    assert isinstance(values["times"], int)


def test_unions_and_records_are_shown_with_a_line_that_fits_them() -> None:
    """DESIGN 4, 11-29: a union of records names them, and the example of an object has what it requires."""
    app = App()

    @app.action
    def plan(
        ctx: Context,
        shape: Circle | Square,
        at: datetime,
        day: date | Literal["today"],
        seats: Annotated[list[int | str], Field(min=1)],
        least: Annotated[int, Field(min=10)],
        born: Annotated[date, Field(examples=[date(1815, 12, 10)])],
    ) -> str:
        """F."""
        return f"{shape} {at:%H} {day} {seats} {least} {born.year}"

    schema: Any = app.describe()[0]["input_schema"]
    assert [(each.name, each.kind) for each in inputs_of(schema)] == [
        ("shape", "a JSON object (Circle) or a JSON object (Square)"),
        ("at", "a time such as 2026-11-28T09:30:00Z"),
        ("day", "a date such as 2026-11-28 or one of today"),
        ("seats", "a JSON list"),
        ("least", "a whole number of at least 10"),
        ("born", "a date such as 2026-11-28"),
    ]
    inputs = parsed_parameters(schema, shlex.split(example_of("acme/hello", "plan", schema))[5::2])
    answer = call(app, "plan", FakeContext(), **inputs)
    assert answer == "Circle(radius=1.5, kind='circle') 09 2026-11-28 [1] 10 1815"


@dataclass
class Circle:
    radius: float
    kind: Literal["circle"] = "circle"


@dataclass
class Square:
    side: float
    kind: Literal["square"] = "square"


FIELDS = st.recursive(
    st.fixed_dictionaries(
        {},
        optional={
            "type": st.sampled_from(["string", "integer", "number", "boolean", "array", "object", "null"]),
            "enum": st.lists(st.one_of(st.text(), st.integers()), min_size=1),
            "default": st.one_of(st.none(), st.text(), st.integers()),
            "title": st.text(),
            "description": st.text(),
            "examples": st.lists(st.text()),
            "x-ui": st.just("file"),
        },
    ),
    lambda inner: st.fixed_dictionaries({"anyOf": st.lists(inner, min_size=1)}),
    max_leaves=4,
)


@given(st.dictionaries(st.text(min_size=1), FIELDS))
def test_any_schema_can_be_described(properties: dict[str, Any]) -> None:
    schema = {"type": "object", "properties": properties, "required": list(properties)}
    assert [each.name for each in inputs_of(schema)] == list(properties)
    assert all("\n" not in each.summary + each.help for each in inputs_of(schema))
    shlex.split(example_of("acme/hello", "greet", schema))


def test_a_missing_input_is_asked_for_until_it_fits(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """11-29: on a terminal."""
    monkeypatch.setattr("sys.stdin", io.StringIO("\nmany\n3\n"))
    assert ask_for_missing(SCHEMA, {"name": "Ann"}) == {"times": 3}
    assert "times (a whole number from 1 to 9) How often" in capsys.readouterr().err
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    with pytest.raises(KeyboardInterrupt):
        ask_for_missing(SCHEMA, {})


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    actions = [action() | {"input_schema": SCHEMA, "output_schema": {"type": "object"}}, action("part")]
    path = folder / "app.llmapp"
    write_bundle(bundle_files(manifest_text(extra=""), minimal_component(json.dumps(actions)), actions), path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLMASOS_HOME", str(folder / "home"))
        for words in (["publish", str(path)], ["install", "acme/hello", "--yes"]):
            done = llmasos(*words)
            assert done.exit_code == 0, done.stderr
    return folder / "home"


def test_help_behind_an_action_shows_its_inputs_and_a_line_to_copy(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """11-29: it printed the help of `run` alone."""
    monkeypatch.setenv("LLMASOS_HOME", str(home))
    done = llmasos("run", "acme/hello", "greet", "--help")
    assert done.exit_code == 0
    assert "times   a whole number from 1 to 9, required. How often" in done.stdout
    assert "llmasos run acme/hello greet -p " in done.stdout
    both = llmasos("run", "acme/hello", "--help")
    assert "acme/hello greet" in both.stdout
    assert "acme/hello part" in both.stdout
    listed = json.loads(llmasos("run", "acme/hello", "greet", "--help", "--json").stdout)
    assert listed["actions"][0]["input_schema"] == SCHEMA


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["run", "--help"], 0, "Usage:"),
        (["run", "acme/none", "greet", "--help"], 5, "not installed"),
        (["run", "acme/hello", "none", "--help"], 5, "it has greet, part"),
    ],
)
def test_help_of_what_does_not_exist_says_what_does(
    home: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], code: int, said: str
) -> None:
    monkeypatch.setenv("LLMASOS_HOME", str(home))
    done = llmasos(*words)
    assert done.exit_code == code
    assert said in done.stdout + done.stderr


def test_show_lists_the_inputs_of_each_action(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """11-29."""
    monkeypatch.setenv("LLMASOS_HOME", str(home))
    assert "tone    one of kind, curt, default kind" in llmasos("show", "acme/hello").stdout


@pytest.mark.skipif(sys.platform != "linux", reason="other desktops have other programs")
def test_run_opens_what_it_saved(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """11-30."""
    monkeypatch.setenv("LLMASOS_HOME", str(home))
    (tmp_path / "xdg-open").write_text(f'#!/bin/sh\ncat "$1" > "{tmp_path}/shown"\n')
    (tmp_path / "xdg-open").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    saved = tmp_path / "answer.json"
    done = llmasos("run", "acme/hello", "greet", "-p", "name=Ann", "-p", "times=1", "-o", str(saved), "--open")
    assert done.exit_code == 0, done.stderr
    assert json.loads((tmp_path / "shown").read_text())["name"] == "Ann"
