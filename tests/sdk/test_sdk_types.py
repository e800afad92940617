"""11, DESIGN 4: dates, times, TypedDicts, enums and unions as JSON Schema, in and out."""

import json
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone
from enum import Enum, Flag, IntEnum, StrEnum
from typing import Annotated, Any, Literal, NewType, NotRequired, Optional, Required, TypeAlias, TypedDict
from zoneinfo import ZoneInfo

import jsonschema
import pytest
import typing_extensions
from hypothesis import given, settings
from hypothesis import strategies as st

from llmasos_sdk import App, Context, Field, File, SchemaMismatch
from llmasos_sdk.decoding import decode
from llmasos_sdk.encoding import encode, encode_as
from llmasos_sdk.schema import schema_of

EAST = timezone(timedelta(hours=8))


class Color(Enum):
    RED = "red"
    BLUE = "blue"


class Size(IntEnum):
    SMALL = 1
    LARGE = 2


class Tone(StrEnum):
    KIND = "kind"


class Access(Flag):
    READ = 1


class Odd(Enum):
    PAIR = (1, 2)


class Visitor(TypedDict):
    """Who comes.

    Attributes:
        name: The full name.
    """

    name: str
    born: NotRequired[date]


class Entry(Visitor, total=False):
    at: Required[datetime]
    seats: "list[int | str]"


class Older(typing_extensions.TypedDict):
    name: str
    born: typing_extensions.NotRequired[date]


class Node(TypedDict):
    children: "list[Node]"


@dataclass
class Circle:
    radius: float
    kind: Literal["circle"] = "circle"


@dataclass
class Square:
    side: float
    kind: Literal["square"] = "square"


@dataclass
class Dot:
    x: int


@dataclass
class Dash:
    x: int
    length: int


@dataclass
class Line:
    x: int
    width: int = 1


Age = NewType("Age", int)
Birthday: TypeAlias = date | None
Ages = typing_extensions.TypeAliasType("Ages", list[Age])
T = typing_extensions.TypeVar("T")
U = typing_extensions.TypeVar("U")
Pair = typing_extensions.TypeAliasType("Pair", dict[str, U] | list[T], type_params=(T, U))
Held = typing_extensions.TypeAliasType("Held", list[T] | T, type_params=(T,))


class TypeAliasType:
    """What `type X = ...` makes from Python 3.12 on: its value is read late, so that it can hold itself."""

    def __init__(self, name: str, value: Any) -> None:
        self.__name__ = name
        self._value = value

    @property
    def __value__(self) -> Any:
        return self._value()

    def __call__(self) -> None:
        """A hint is callable, for `typing`."""


Endless: Any = TypeAliasType("Endless", lambda: list[Endless] | int)
Knot: Any = TypeAliasType("Knot", lambda: Optional[Knot])  # noqa: UP045 (it has no bar)
Selfish: Any = TypeAliasType("Selfish", lambda: Selfish)


@pytest.mark.parametrize(
    ("hint", "value", "carried"),
    [
        (date, date(2026, 11, 28), "2026-11-28"),
        (date, date.min, "0001-01-01"),
        (date, date.max, "9999-12-31"),
        (datetime, datetime(2026, 11, 28, 9, 30, tzinfo=UTC), "2026-11-28T09:30:00Z"),
        (datetime, datetime(2026, 11, 28, 9, 30, 0, 5, tzinfo=EAST), "2026-11-28T09:30:00.000005+08:00"),
        (
            datetime,
            datetime(9999, 12, 31, 23, 59, 59, tzinfo=timezone(-timedelta(hours=5))),
            "9999-12-31T23:59:59-05:00",
        ),
        (Birthday, None, None),
        (list[None], [None], [None]),
        (
            list[date | datetime],
            [date(2026, 1, 1), datetime(2026, 1, 1, tzinfo=UTC)],
            ["2026-01-01", "2026-01-01T00:00:00Z"],
        ),
        (Literal["today"] | date, "today", "today"),
        (Literal["today"] | date, date(2026, 1, 1), "2026-01-01"),
        (Literal["a", 1, True, None], True, True),
        (Literal["a", 1, True, None], 1, 1),
        (Literal[Color.RED], Color.RED, "red"),
        (Color, Color.BLUE, "blue"),
        (Size, Size.LARGE, 2),
        (Tone | int, Tone.KIND, "kind"),
        (Color | date | int, Color.RED, "red"),
        (bool | int, True, True),
        (bool | int, 1, 1),
        (int | float, 3, 3),
        (int | float, 3.5, 3.5),
        (str | int | list[str], ["a"], ["a"]),
        (list[int | str] | None, [1, "a"], [1, "a"]),
        (list[int] | list[str], ["a"], ["a"]),
        (list[date] | list[int], [], []),
        (dict[str, date | int], {"a": date(2026, 1, 1), "b": 2}, {"a": "2026-01-01", "b": 2}),
        (Circle | Square, Square(2.0), {"side": 2.0, "kind": "square"}),
        (list[Circle | Square | None], [Circle(1.0), None], [{"radius": 1.0, "kind": "circle"}, None]),
        (Dot | Dash, Dash(1, 2), {"x": 1, "length": 2}),
        (Dot | File, Dot(1), {"x": 1}),
        (Dot | dict[str, str], Dot(1), {"x": 1}),
        (Dot | dict[str, str], {"x": "1"}, {"x": "1"}),
        (Visitor, {"name": "Ada"}, {"name": "Ada"}),
        (Visitor, {"name": "Ada", "born": date(1815, 12, 10)}, {"name": "Ada", "born": "1815-12-10"}),
        (Older, {"name": "Ada", "born": date(1815, 12, 10)}, {"name": "Ada", "born": "1815-12-10"}),
        (
            Entry,
            {"name": "A", "at": datetime(2026, 1, 1, tzinfo=UTC), "seats": [1, "b"]},
            {"name": "A", "at": "2026-01-01T00:00:00Z", "seats": [1, "b"]},
        ),
        (Age, 3, 3),
        (Ages | None, [3], [3]),
        (Pair[int, date], {"a": date(2026, 1, 1)}, {"a": "2026-01-01"}),
        (Pair[date, int], [date(2026, 1, 1)], ["2026-01-01"]),
        (Held[date], [date(2026, 1, 1)], ["2026-01-01"]),
        (Annotated[Annotated[int, Field(min=1)], Field(title="N")] | None, 2, 2),
    ],
)
def test_a_value_of_each_type_survives_json(hint: Any, value: Any, carried: Any) -> None:
    encoded = json.loads(json.dumps(encode_as(hint, value)))
    assert encoded == carried
    jsonschema.validate(encoded, schema_of(hint), format_checker=jsonschema.FormatChecker())
    decoded = decode(hint, encoded)
    assert decoded == value
    assert type(decoded) is type(value)


@pytest.mark.parametrize(
    ("hint", "schema"),
    [
        (date, {"type": "string", "format": "date"}),
        (datetime | None, {"anyOf": [{"type": "string", "format": "date-time"}, {"type": "null"}]}),
        (None | int | str, {"anyOf": [{"type": "integer"}, {"type": "string"}, {"type": "null"}]}),
        (Color, {"enum": ["red", "blue"], "type": "string"}),
        (Literal["a", 1, None], {"enum": ["a", 1, None]}),
        (Ages, {"type": "array", "items": {"type": "integer"}}),
        (
            Visitor,
            {
                "type": "object",
                "title": "Visitor",
                "description": "Who comes.",
                "properties": {
                    "name": {"type": "string", "description": "The full name."},
                    "born": {"type": "string", "format": "date"},
                },
                "required": ["name"],
                "additionalProperties": False,
            },
        ),
        (
            Annotated[date, Field(title="Day", examples=[date(2026, 11, 28)])],
            {"type": "string", "format": "date", "title": "Day", "examples": ["2026-11-28"]},
        ),
    ],
)
def test_the_schema_of_each_type(hint: Any, schema: Any) -> None:
    assert schema_of(hint) == schema


def test_what_a_typed_dict_requires_follows_total_and_its_qualifiers() -> None:
    schema: Any = schema_of(Entry)
    assert schema["required"] == ["name", "at"]
    assert "description" not in schema  # not that of `dict`
    assert schema_of(Older)["required"] == ["name"]


def test_a_default_tag_is_required_only_in_a_union() -> None:
    union: Any = schema_of(Circle | Square)
    assert [branch["required"] for branch in union["anyOf"]] == [["radius", "kind"], ["side", "kind"]]
    assert schema_of(Circle)["required"] == ["radius"]


@pytest.mark.parametrize(
    "text",
    [
        "2026-02-30", "2026-13-01", "2026-00-10", "0000-01-01", "10000-01-01", "20261128", "2026-W48-6", "2026-332",
        "2026-11-28T00:00:00Z", "today", "28.11.2026", " 2026-11-28", "2026-11-28\n", "2026-1-2", "", "２０２６-11-28",
    ],
)  # fmt: skip
def test_a_text_that_is_no_date_is_refused(text: str) -> None:
    with pytest.raises(SchemaMismatch, match=r"^day: expected a (date such as 2026-11-28|day that exists)"):
        decode(date, text, "day")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("2026-11-28T09:30:00", "a time with its zone"),
        ("2026-11-28 09:30:00Z", "a time with its zone"),
        ("2026-11-28T09:30Z", "a time with its zone"),
        ("2026-11-28T09:30:00 Europe/Paris", "a time with its zone"),
        ("2026-11-28T09:30:00+0800", "a time with its zone"),
        ("2026-11-28", "a time with its zone"),
        ("now", "a time with its zone"),
        ("2026-02-29T00:00:00Z", "a day that exists"),
        ("0000-01-01T00:00:00Z", "a day that exists"),
        ("2026-11-28T24:00:00Z", "an hour from 00 to 23"),
        ("2026-11-28T09:61:00Z", "an hour from 00 to 23"),
        ("2026-11-28T09:30:00+24:00", "an hour from 00 to 23"),
        ("2026-06-30T23:59:60Z", "leap seconds are not supported"),
        ("2026-11-28T09:30:00.123456789Z", "a time to the microsecond"),
        (1795858200, "a time such as"),
    ],
)
def test_a_text_that_is_no_time_is_refused_with_its_reason(text: Any, message: str) -> None:
    with pytest.raises(SchemaMismatch, match=f"^at: expected .*{message}"):
        decode(datetime, text, "at")


@pytest.mark.parametrize("text", ["2026-11-28t09:30:00z", "2026-11-28T09:30:00.000Z", "2026-11-28T09:30:00.000000000Z"])
def test_times_of_other_languages_are_read(text: str) -> None:
    assert decode(datetime, text) == datetime(2026, 11, 28, 9, 30, tzinfo=UTC)


@settings(deadline=None)
@given(st.datetimes(min_value=datetime(2, 1, 1), max_value=datetime(9998, 1, 1), timezones=st.timezones()))
def test_each_time_with_a_zone_survives_json(time: datetime) -> None:
    decoded = decode(datetime, encode(time))
    # Not by ==, which no time in a gap of its zone equals.
    assert (decoded.utctimetuple()[:6], decoded.microsecond) == (time.utctimetuple()[:6], time.microsecond)


def test_a_time_that_utc_does_not_have_is_refused() -> None:
    mean = timezone(timedelta(minutes=9, seconds=21))
    with pytest.raises(SchemaMismatch, match="out of range in UTC"):
        encode(datetime(1, 1, 1, tzinfo=mean))


def test_local_mean_time_is_written_in_utc() -> None:
    assert encode(datetime(1900, 1, 1, tzinfo=ZoneInfo("Europe/Paris"))) == "1899-12-31T23:50:39Z"


@pytest.mark.parametrize(
    ("hint", "value", "message"),
    [
        (Circle | Square, {"radius": 1}, "the value.kind: this input is needed"),
        (Circle | Square, {"kind": "round"}, "the value.kind: expected 'circle' or 'square', got 'round'"),
        (Circle | Square, {"kind": "square", "side": "x"}, "the value.side: expected a number, got 'x'"),
        (Circle | Square, 3, "the value: expected an object (Circle) or an object (Square), got 3"),
        (date | int, "soon", "the value: expected a date such as 2026-11-28, got 'soon'"),
        (bool | int, 1.5, "the value: expected a whole number, got 1.5"),
        (list[int | str] | None, [None], "the value[0]: expected a whole number or a text, got null"),
        (Color, "RED", "the value: expected 'red' or 'blue', got 'RED'"),
        (Literal["a", None], 0, "the value: expected 'a' or null, got 0"),
        (Visitor, {"name": "A", "age": 3}, "the value.age: there is no such input; known are: name, born"),
    ],
)
def test_a_mismatch_of_a_union_names_the_member_that_was_meant(hint: Any, value: Any, message: str) -> None:
    with pytest.raises(SchemaMismatch) as raised:
        decode(hint, value, "the value")
    assert raised.value.message == message


class OtherColor(Enum):
    RED = "red"


@pytest.mark.parametrize(
    ("hint", "message"),
    [
        (str | date, r"str \| date is ambiguous: one JSON value could be either. Declare one of the two"),
        (Literal["2026-11-28"] | date, "is ambiguous"),
        (Color | str, r"Color \| str is ambiguous"),
        (Color | OtherColor, "is ambiguous"),
        (Size | int, "is ambiguous"),
        (Size | float, "is ambiguous"),
        (Any | date, "is ambiguous"),
        (list[str] | list[date], "is ambiguous"),
        (dict[str, str] | dict[str, date], "is ambiguous"),
        (list[Any] | list[date], "is ambiguous"),
        (dict[str, int] | Dot, "is ambiguous"),
        (Dot | Line, r'could be either. Give each a field .* `kind: Literal\["dot"\]` in Dot'),
        (Node, "Node holds itself"),
        (Endless, "holds itself"),
        (list[Endless] | str, "holds itself"),
        (Knot, "is a union with itself"),
        (Selfish, "holds itself"),
        (Access, "Access is a Flag.*: use a list of an Enum"),
        (Odd, "Odd: a Literal or an Enum holds texts"),
        (timedelta, "timedelta has no JSON Schema here; use str, int"),
        (Annotated[int | str, Field(min=1)], "takes no min or max: write Annotated around one of its types"),
        (Annotated[date, Field(min=1)], "date takes no min or max"),
        (Annotated[Color, Field(max=1)], "Color takes no min or max"),
        (Annotated[date, Field(examples=["soon"])], "an example does not fit its type hint"),
    ],
)
def test_a_type_that_json_could_not_tell_is_refused_with_the_cure(hint: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        schema_of(hint)


members = st.sampled_from(
    [
        *(str, int, float, bool, date, datetime, Color, Size, Literal["red", 1]),
        *(Circle, Square, Dot, Dash, Line, Visitor, File),
        *(list[int], list[str], list[date], list[Circle | Square], dict[str, str], dict[str, date], dict[str, int]),
    ]
)
leaves = st.sampled_from(
    [None, True, 0, 1, 1.0, 2.5, "red", "a", "2026-11-28", "2026-11-28T00:00:00Z", "circle", "square"]
)
keys = st.sampled_from(["kind", "radius", "side", "x", "length", "width", "name", "born"])
documents = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(keys, inner, max_size=3), max_leaves=5
)


@settings(deadline=None)
@given(members, members, documents)
def test_an_accepted_union_reads_a_value_as_the_only_member_it_fits(one: Any, other: Any, value: Any) -> None:
    union = one | other
    try:
        schema = schema_of(union)
    except TypeError:
        return
    checker = jsonschema.FormatChecker(formats=())
    checker.checks("date", raises=SchemaMismatch)(lambda text: not isinstance(text, str) or bool(decode(date, text)))
    checker.checks("date-time", raises=SchemaMismatch)(
        lambda text: not isinstance(text, str) or bool(decode(datetime, text))
    )
    allowed = jsonschema.Draft202012Validator(schema, format_checker=checker).is_valid(value)
    try:
        decoded = decode(union, value)
    except SchemaMismatch:
        assert not allowed
        return
    assert allowed
    assert encode_as(union, decoded) == encode(decoded)
    for member in (one, other):
        try:
            alone = decode(member, value)
        except SchemaMismatch:
            continue
        assert alone == decoded or {one, other} == {Circle, Square}


def plan(
    ctx: Context,
    day: "date",
    at: datetime = datetime(2026, 11, 28, tzinfo=UTC),
    shape: Circle | Square | None = None,
    color: Color = Color.RED,
) -> "list[Visitor | date]":
    """F."""
    return [{"name": f"{at:%H} {shape} {color.name}"}, day]


def naive(ctx: Context, at: datetime = datetime(2026, 11, 28)) -> str:
    """F."""
    return str(at)


def untold(ctx: Context) -> datetime:
    """F."""
    return datetime(2026, 11, 28)


def test_an_action_gets_and_returns_them() -> None:
    from llmasos_sdk.testing import FakeContext, call

    app = App()
    app.action(plan)
    properties: Any = app.describe()[0]["input_schema"]["properties"]  # type: ignore[index,call-overload]
    assert [each.get("default") for each in properties.values()] == [None, "2026-11-28T00:00:00Z", None, "red"]
    answer = call(app, "plan", FakeContext(), day=date(2026, 2, 28), shape=Square(1), color=Color.BLUE)
    assert answer == [{"name": "00 Square(side=1.0, kind='square') BLUE"}, "2026-02-28"]


def test_a_time_without_a_zone_is_refused_with_the_cure() -> None:
    from llmasos_sdk.testing import FakeContext, call

    app = App()
    app.action(naive)
    with pytest.raises(TypeError, match=r"the default of 'at' does not fit .* has no zone; write datetime.now\(UTC\)"):
        app.describe()
    app = App()
    app.action(untold)
    with pytest.raises(Exception, match=r"untold returned something else .* has no zone"):
        call(app, "untold", FakeContext())
