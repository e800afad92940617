"""Type hints, JSON Schema, and values between them."""

import json
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmasos_sdk import App, Context, Field, SchemaMismatch
from llmasos_sdk.decoding import decode
from llmasos_sdk.encoding import encode, encode_as
from llmasos_sdk.schema import schema_of


@dataclass
class Point:
    """A place.

    Attributes:
        x: Steps to the right.
    """

    x: int
    y: float = 0.5


@dataclass
class Route:
    stops: list[Point]
    kind: Literal["walk", "ride"] = "walk"
    notes: dict[str, str] = field(default_factory=dict)
    label: str | None = None


def hints() -> st.SearchStrategy[Any]:
    """Every hint that an action may use, nested."""
    leaves = st.sampled_from(
        [
            str,
            int,
            float,
            bool,
            Literal["a", "b"],
            Literal[1, 2, 3],
            Point,
            Route,
            Annotated[int, Field(min=-5, max=5)],
            Annotated[str, Field(min=1, max=4, ui="textarea")],
        ]
    )
    return st.recursive(
        leaves,
        lambda inner: (
            st.builds(lambda hint: list[hint], inner)
            | st.builds(lambda hint: dict[str, hint], inner)
            | st.builds(lambda hint: hint | None, inner)
        ),
        max_leaves=4,
    )


def values_of(hint: Any) -> st.SearchStrategy[Any]:
    """Typed values of a hint."""
    if hint == Annotated[int, Field(min=-5, max=5)]:
        return st.integers(-5, 5)
    if hint == Annotated[str, Field(min=1, max=4, ui="textarea")]:
        return st.text(min_size=1, max_size=4)
    if hint is float:
        return st.floats(allow_nan=False, allow_infinity=False)
    origin = getattr(hint, "__origin__", None)
    if origin is list:
        return st.lists(values_of(hint.__args__[0]), max_size=3)
    if origin is dict:
        return st.dictionaries(st.text(max_size=3), values_of(hint.__args__[1]), max_size=3)
    if type(None) in getattr(hint, "__args__", ()):
        return st.none() | values_of(hint.__args__[0])
    if hint is Point:
        return st.builds(Point, x=st.integers(), y=values_of(float))
    if hint is Route:
        return st.builds(
            Route,
            stops=st.lists(values_of(Point), max_size=2),
            kind=st.sampled_from(["walk", "ride"]),
            notes=st.dictionaries(st.text(max_size=2), st.text(max_size=2), max_size=2),
            label=st.none() | st.text(max_size=2),
        )
    return st.from_type(hint)


@settings(deadline=None)
@given(st.data())
def test_a_value_survives_json_and_fits_its_schema(data: st.DataObject) -> None:
    hint = data.draw(hints())
    value = data.draw(values_of(hint))
    carried = json.loads(json.dumps(encode_as(hint, value)))
    jsonschema.validate(carried, schema_of(hint))
    assert decode(hint, carried) == value


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@settings(deadline=None)
@given(hints(), json_values)
def test_decoding_accepts_exactly_what_the_schema_allows(hint: Any, value: Any) -> None:
    allowed = jsonschema.Draft202012Validator(schema_of(hint)).is_valid(value)
    try:
        decode(hint, value)
    except SchemaMismatch:
        assert not allowed
    else:
        assert allowed


def test_a_dataclass_is_an_object_with_its_docstring_in_it() -> None:
    assert schema_of(Point) == {
        "type": "object",
        "title": "Point",
        "description": "A place.",
        "properties": {
            "x": {"type": "integer", "description": "Steps to the right."},
            "y": {"type": "number", "default": 0.5},
        },
        "required": ["x"],
        "additionalProperties": False,
    }


def test_a_field_says_what_a_form_shows() -> None:
    hint = Annotated[str, Field(title={"en": "Text", "zh": "文本"}, description="Any.", ui="textarea", min=1, max=9)]
    assert schema_of(hint) == {
        "type": "string",
        "title": "Text",
        "x-title": {"en": "Text", "zh": "文本"},
        "description": "Any.",
        "x-ui": "textarea",
        "minLength": 1,
        "maxLength": 9,
    }


@pytest.mark.parametrize(
    ("hint", "value", "message"),
    [
        (int, "3", "the value: expected a whole number, got '3'"),
        (int, True, "the value: expected a whole number, got True"),
        (str, None, "the value: expected a text, got null"),
        (Literal["a", "b"], "c", "the value: expected 'a' or 'b', got 'c'"),
        (Point, {"x": 1, "z": 2}, "z: there is no such input; known are: x, y"),
        (Point, {}, "x: this input is needed"),
        (Route, {"stops": [{"x": 1}, {"x": "2"}]}, "stops[1].x: expected a whole number, got '2'"),
        (Annotated[int, Field(min=1, max=9)], 10, "the value: expected at most 9, got 10"),
        (Annotated[list[int], Field(min=1)], [], "the value: expected a length of at least 1, got 0"),
    ],
)
def test_a_mismatch_says_where_and_what(hint: Any, value: Any, message: str) -> None:
    with pytest.raises(SchemaMismatch) as raised:
        decode(hint, value)
    assert raised.value.message == message


@pytest.mark.parametrize("hint", [set, bytes, tuple[int, str], dict[int, str], object, "text"])
def test_a_hint_that_json_schema_cannot_express_is_refused(hint: Any) -> None:
    with pytest.raises(TypeError, match="has no JSON Schema here; use str, int"):
        schema_of(hint)


@dataclass
class Tree:
    children: "list[Tree]"


def test_a_dataclass_that_holds_itself_is_refused() -> None:
    with pytest.raises(TypeError, match="Tree holds itself"):
        schema_of(Tree)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1}, b"x", {1: 2}, object()])
def test_a_value_that_json_cannot_express_is_refused(value: object) -> None:
    with pytest.raises(SchemaMismatch):
        encode(value)


@dataclass
class Even:
    number: int

    def __post_init__(self) -> None:
        if self.number % 2:
            raise ValueError("number is odd")


def test_a_value_that_a_dataclass_rejects_is_a_mismatch() -> None:
    with pytest.raises(SchemaMismatch, match="Even: number is odd"):
        decode(Even, {"number": 3})


@dataclass
class Note:
    text: str = None  # type: ignore[assignment]
    tags: list[str] = None  # type: ignore[assignment]


def implicit(
    ctx: Context,
    x: str = None,  # type: ignore[assignment]  # noqa: RUF013
    n: Annotated[int, Field(title="N", max=9)] = None,  # type: ignore[assignment]  # noqa: RUF013
    note: Note = None,  # type: ignore[assignment]
) -> str:
    """F."""
    return f"{x} {n} {note}"


def test_a_default_of_none_makes_an_input_optional() -> None:
    """11-17: the schema said text, its default was null, and each call without the input failed."""
    app = App()
    app.action(implicit)
    described: Any = app.describe()[0]["input_schema"]
    jsonschema.validate({"x": None, "n": None, "note": {"text": None, "tags": None}}, described)
    for each in described["properties"].values():
        jsonschema.validate(each["default"], each)
    assert described["properties"]["n"]["title"] == "N"
    assert decode(Note, {}) == Note()
    assert decode(Note, {"text": None}) == Note()
    with pytest.raises(SchemaMismatch):
        decode(Note, {"text": 5})


@dataclass
class Wrong:
    count: int = "three"  # type: ignore[assignment]


def wrong_type(ctx: Context, n: int = "three") -> str:  # type: ignore[assignment]
    """F."""
    return str(n)


def wrong_choice(ctx: Context, tone: Literal["kind", "curt"] = "rude") -> str:  # type: ignore[assignment]
    """F."""
    return tone


def infinite(ctx: Context, n: float = float("inf")) -> str:
    """F."""
    return str(n)


def out_of_bounds(ctx: Context, n: Annotated[int, Field(max=3)] = 5) -> str:
    """F."""
    return str(n)


def wrong_record(ctx: Context, record: Wrong) -> str:
    """F."""
    return str(record)


@pytest.mark.parametrize("action", [wrong_type, wrong_choice, infinite, out_of_bounds, wrong_record])
def test_a_default_that_does_not_fit_is_refused_when_the_action_is_described(action: Any) -> None:
    """11-17: it was published, and failed at each call."""
    app = App()
    with pytest.raises(TypeError, match=r"the default of '(n|tone|count)' does not fit its type hint"):
        app.action(action)
        app.describe()
