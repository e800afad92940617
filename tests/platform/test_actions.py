"""Inputs and outputs of actions, checked against untrusted schemas."""

import threading
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmasos.bundles.actions import Action
from llmasos.errors import AppFailed, NotFound, ResourceLimit
from llmasos.i18n import render
from llmasos.invocations.actions import InputRejected, action_named, check_input, check_output, checked, encode_input

SCHEMA = {
    "type": "object",
    "properties": {
        "text": {"type": "string", "maxLength": 10},
        "count": {"type": "integer", "minimum": 1, "default": 3},
        "tone": {"enum": ["plain", "formal"], "default": "plain"},
        "who": {"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer", "default": 7}}},
    },
    "required": ["text"],
    "additionalProperties": False,
}
ACTION = Action("act", SCHEMA, {"type": "string"}, streaming=False, raw={})


def with_input(**schema: object) -> Action:
    return Action("act", schema, {}, streaming=False, raw={})


def test_defaults_are_filled_in_at_every_level() -> None:
    assert check_input(ACTION, {"text": "a", "who": {"name": "Ann"}}) == {
        "text": "a",
        "count": 3,
        "tone": "plain",
        "who": {"name": "Ann", "age": 7},
    }


@pytest.mark.parametrize(
    ("value", "line"),
    [
        ({}, "text: is missing"),
        ({"text": 5}, "text: must be of type string"),
        ({"text": "a", "count": 0}, "count: must be at least 1"),
        ({"text": "a", "count": True}, "count: must be of type integer"),
        ({"text": "a", "tone": "rude"}, 'tone: must be one of "plain", "formal"'),
        ({"text": "a" * 11}, "text: must have a length of at most 10"),
        ({"text": "a", "x": 1}, "x: there is no such field; there are: text, count, tone, who"),
        ({"text": "a", "who": {"name": 1}}, "who.name: must be of type string"),
        ([], "The input must be a JSON object."),
        (None, "The input must be a JSON object."),
    ],
)
def test_a_fault_is_one_line_that_names_the_field(value: object, line: str) -> None:
    with pytest.raises(InputRejected) as caught:
        check_input(ACTION, value)
    assert caught.value.message == line


def test_every_fault_is_told_at_once() -> None:
    with pytest.raises(InputRejected) as caught:
        check_input(ACTION, {"count": 0, "x": 1})
    assert {fault.pointer for fault in caught.value.faults} == {"/text", "/count", "/x"}


def test_two_missing_fields_are_each_named_once() -> None:
    action = with_input(type="object", properties={"a": {}, "b": {}}, required=["a", "b"])
    with pytest.raises(InputRejected) as caught:
        check_input(action, {})
    assert caught.value.message == "a: is missing; b: is missing"


def test_faults_are_told_in_chinese_too() -> None:
    with pytest.raises(InputRejected) as caught:
        check_input(ACTION, {})
    assert render(caught.value.message, "zh") == "text：缺少此项"


def test_a_value_is_not_repeated_in_its_fault() -> None:
    with pytest.raises(InputRejected) as caught:
        check_input(with_input(properties={"n": {"not": {}}}), {"n": "x" * 100_000})
    assert len(caught.value.message) < 300


def nested_references(depth: int) -> dict[str, object]:
    levels: dict[str, object] = {f"l{n}": {"anyOf": [{"$ref": f"#/$defs/l{n + 1}"}] * 2} for n in range(depth)}
    levels[f"l{depth}"] = {"type": "string"}
    return {"$defs": levels, "properties": {"x": {"$ref": "#/$defs/l0"}}}


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"properties": {"x": {"pattern": "(a+)+$"}}}, {"x": "a" * 40 + "!"}),
        (nested_references(30), {"x": 1}),
        ({"$defs": {"a": {"$ref": "#/$defs/a"}}, "properties": {"x": {"$ref": "#/$defs/a"}}}, {"x": 1}),
        ({"properties": {"x": {"uniqueItems": True}}}, {"x": [[n] for n in range(20_000)]}),
        ({"$ref": "https://attacker.example/schema"}, {"x": 1}),
        ({"properties": {"x": {"type": 5}}}, {"x": 1}),
        ({"properties": {"x": {"type": "nonsense"}}}, {"x": 1}),
        ({"required": 5}, {}),
        ({"properties": {"x": {"minimum": "a"}}}, {"x": 1}),
    ],
)
def test_a_hostile_schema_neither_hangs_nor_crashes(schema: dict[str, object], value: object) -> None:
    with suppress(InputRejected):
        check_input(with_input(**schema), value)


async def test_a_check_that_takes_long_leaves_the_event_loop() -> None:
    action = with_input(**nested_references(12))
    threads: list[int] = []

    def check(steps: int) -> dict[str, object]:
        threads.append(threading.get_ident())
        return check_input(action, {"x": 1}, steps)

    with pytest.raises(InputRejected):
        await checked(check)
    assert threads[0] == threading.get_ident()
    assert len(set(threads)) == 2


async def test_a_check_that_is_short_stays_on_it() -> None:
    threads: list[int] = []
    await checked(lambda steps: (threads.append(threading.get_ident()), check_input(ACTION, {"text": "a"}, steps)))
    assert threads == [threading.get_ident()]


def test_an_output_must_be_what_the_action_promises() -> None:
    assert check_output(ACTION, '"fine"', 100) == "fine"
    with pytest.raises(AppFailed, match="must be of type string"):
        check_output(ACTION, "5", 100)


@pytest.mark.parametrize("text", ["", "{", "NaN", "[" * 100_000, "1 2"])
def test_an_output_that_is_not_json_is_the_apps_fault(text: str) -> None:
    with pytest.raises(AppFailed):
        check_output(ACTION, text, 1 << 20)


def test_an_output_over_its_limit_is_refused() -> None:
    check_output(ACTION, '"é"', 4)
    with pytest.raises(ResourceLimit):
        check_output(ACTION, '"éé"', 5)


def test_an_input_over_a_mebibyte_is_refused() -> None:
    with pytest.raises(InputRejected):
        encode_input({"text": "x" * (1 << 20)})


def test_an_unknown_action_is_answered_with_the_known_ones() -> None:
    with pytest.raises(NotFound, match="it has act"):
        action_named({"act": ACTION}, "other")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


@given(json_values)
def test_any_value_is_taken_or_refused_in_words(value: object) -> None:
    try:
        taken = check_input(ACTION, value)
    except InputRejected as error:
        assert error.message
        assert render(error.message, "zh")
    else:
        assert check_input(ACTION, taken) == taken


SHAPES = {
    "anyOf": [
        {
            "type": "object",
            "properties": {"kind": {"enum": [kind]}, side: {"type": "number"}},
            "required": ["kind", side],
            "additionalProperties": False,
        }
        for kind, side in (("circle", "radius"), ("square", "side"))
    ]
    + [{"type": "null"}]
}
TYPED = {
    "type": "object",
    "properties": {
        "day": {"type": "string", "format": "date"},
        "at": {"anyOf": [{"type": "string", "format": "date-time"}, {"type": "null"}]},
        "shape": SHAPES,
    },
}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"day": "2026-02-30"}, "day: must be a day that exists, from 0001-01-01 to 9999-12-31"),
        ({"day": "today"}, "day: must be a date such as 2026-11-28"),
        ({"day": 20261128}, "day: must be of type string"),
        ({"at": "2026-11-28T09:30:00"}, "at: must be a time with its zone, such as 2026-11-28T09:30:00Z"),
        ({"at": "2026-11-28T09:30:60Z"}, "at: must be a second from 00 to 59"),
        ({"shape": {"kind": "circle"}}, "shape.radius: is missing"),
        ({"shape": {"kind": "square", "side": "x"}}, "shape.side: must be of type number"),
        ({"shape": {"kind": "dot"}}, 'shape.kind: must be one of "circle", "square"'),
        ({"shape": {"kind": "dot", "side": 2}}, 'shape.kind: must be one of "circle", "square"'),
        ({"shape": {}}, "shape.kind: is missing"),
        ({"shape": {"side": 2}}, "shape.kind: is missing"),
        ({"shape": 3}, "shape: fits none of the forms that this field allows"),
    ],
)
def test_a_date_or_a_union_that_does_not_fit_is_refused_before_the_app_runs(value: Any, message: str) -> None:
    """DESIGN 4, 11-29: in an app of any language; of a union, the fault of the member that was meant."""
    action = Action("act", TYPED, {}, streaming=False, raw={})
    with pytest.raises(InputRejected) as raised:
        check_input(action, value)
    assert raised.value.message.startswith(message)


def test_dates_and_unions_that_fit_are_taken() -> None:
    action = Action("act", TYPED, {}, streaming=False, raw={})
    value = {"day": "2028-02-29", "at": "2026-11-28T09:30:00+08:00", "shape": {"kind": "square", "side": 1}}
    assert check_input(action, value) == value
    assert check_input(action, {"at": None, "shape": None}) == {"at": None, "shape": None}
