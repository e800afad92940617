"""The allowed content of a request, and that all of it is counted."""

from __future__ import annotations

import json
from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmasos.errors import Invalid
from llmasos.gateway.models import ModelEntry
from llmasos.gateway.plan import make_plan
from llmasos.gateway.request import MAX_MEDIA_BYTES, MAX_MESSAGES, MAX_SCHEMA_CHARACTERS, GenerateRequest, parse_request

PICTURE = "data:image/png;base64," + b64encode(b"\x89PNG\r\n\x1a\n picture").decode()
ENTRY = ModelEntry(name="one", litellm="openai/one", picture_tokens=700)


def parse(**fields) -> GenerateRequest:
    fields.setdefault("messages", [{"role": "user", "content": "hi"}])
    return parse_request(GenerateRequest, json.dumps(fields))


def turn(*parts, **fields) -> list:
    return [{"role": "user", "content": list(parts), **fields}]


def picture(url: str, **fields) -> dict:
    return {"type": "image_url", "image_url": {"url": url, **fields}}


def sound(data: bytes) -> dict:
    return {"type": "input_audio", "input_audio": {"data": b64encode(data).decode(), "format": "wav"}}


def count(request: GenerateRequest, entry: ModelEntry = ENTRY) -> int:
    return make_plan(request, (entry,), (), None, "en").prompt_tokens


def tool(name: str = "look", **function) -> dict:
    return {"type": "function", "function": {"name": name, **function}}


def shape(schema: dict) -> dict:
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}


@pytest.mark.parametrize(
    "url",
    [
        "https://" + "x" * 3000,
        "file:///etc/passwd",
        "ftp://example.com/cat.png",
        "HTTPS://example.com/cat.png",
        "//example.com/x.png",
        "data:text/html;base64,PGI+",
        "data:image/svg+xml;base64,PHN2Zz4=",
        "data:image/png,raw",
        "data:image/png;base64,",
        "data:image/png;base64,***",
        "data:image/png;base64,aGk=\n",
        "data:image/png;base64,PHN2ZyBvbmxvYWQ9IngiPg==",
        "data:image/png;base64,UklGRgAAAABXQVZF",
        "data:image/png;base64,aHR0cDovL3gveS5wbmc=",
        "data:image/png;charset=utf-8;base64," + PICTURE.partition(",")[2],
        "data:data:image/png;base64," + PICTURE.partition(",")[2],
        "file:///etc/passwd",
        "gs://bucket/cat.png",
        " " + PICTURE,
        PICTURE.replace("data:", "DATA:http://x "),
    ],
)
def test_a_picture_is_data_or_a_web_address(url):
    """11-S5: litellm fetched `image_url` itself for some providers, any address and port, without a bound."""
    with pytest.raises(Invalid, match=r"messages\.0\.content"):
        parse(messages=turn(picture(url)))


def test_a_picture_is_sent_as_what_it_is():
    """11-S5, its kind: bytes of any kind were sent as a PNG."""
    request = parse(messages=turn(picture(PICTURE.replace("image/png", "image/jpeg"))))
    assert request.as_sent()["messages"][0]["content"][0]["image_url"]["url"] == PICTURE


def test_a_picture_is_bounded():
    """11-S5."""
    with pytest.raises(Invalid, match="larger than 576 KiB"):
        parse(messages=turn(picture("data:image/png;base64," + "A" * (MAX_MEDIA_BYTES * 4 // 3 + 8))))


@pytest.mark.parametrize(
    "part",
    [
        {"type": "file", "file": {"file_id": "http://x/y"}},
        {"type": "image_url", "image_url": PICTURE},
        {"type": "image_url", "image_url": {"url": PICTURE, "hidden": "x"}},
        {"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}},
        {"type": "input_audio", "input_audio": {"data": "http://x/y.wav", "format": "wav"}},
        {"type": "video_url", "video_url": {"url": "https://x/y"}},
        {"text": "no type"},
        "text",
    ],
)
def test_a_part_of_another_kind_or_with_more_fields_is_refused(part):
    """11-S5 and S6: parts were dictionaries, passed on unread."""
    with pytest.raises(Invalid):
        parse(messages=turn(part))


@pytest.mark.parametrize(
    "fields",
    [
        {"tools": [{**tool(), "hidden": "x" * 1000}]},
        {"tools": [tool(hidden="x")]},
        {"tools": [{"type": "retrieval"}]},
        {"tool_choice": "x" * 1000},
        {"tool_choice": {"type": "function", "function": {"name": "a", "hidden": "x"}}},
        {"response_format": {"type": "json_object", "hidden": "x"}},
        {"response_format": {"type": "grammar", "grammar": "x"}},
        {"stop": ["x" * 1000]},
        {"stop": ["x"] * 1000},
        {"messages": [{"role": "user", "content": "x", "hidden": "y"}]},
        {"messages": [{"role": "user", "content": "x", "name": "y" * 1000}]},
        {"messages": [{"role": "tool", "content": "x", "tool_call_id": "y" * 1000}]},
        {"messages": [{"role": "assistant", "tool_calls": [{"id": "1", "function": {"name": "a"}}]}]},
        {"messages": [{"role": "user", "content": ""}] * (MAX_MESSAGES + 1)},
    ],
)
def test_unknown_fields_and_fields_without_bound_are_refused(fields):
    """11-S6: a prompt hidden in them was sent, and not counted. SECURITY M2."""
    with pytest.raises(Invalid):
        parse(**fields)


CALL = {"id": "1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
GROWN = {
    "content": lambda text: {"messages": [{"role": "user", "content": text}]},
    "a text part": lambda text: {"messages": turn({"type": "text", "text": text})},
    "name": lambda text: {"messages": [{"role": "user", "content": "x", "name": text[:100]}]},
    "tool_call_id": lambda text: {"messages": [{"role": "tool", "content": "x", "tool_call_id": text[:100]}]},
    "arguments": lambda text: {
        "messages": [
            {"role": "assistant", "tool_calls": [{**CALL, "function": {"name": "look", "arguments": text}}]},
            {"role": "user", "content": "x"},
        ]
    },
    "a tool's description": lambda text: {"tools": [tool(description=text)]},
    "a tool's schema": lambda text: {"tools": [tool(parameters={"description": text})]},
    "tool_choice": lambda text: {"tool_choice": {"type": "function", "function": {"name": text[:100]}}},
    "a schema": lambda text: {"response_format": shape({"description": text})},
    "stop": lambda text: {"stop": [text[:200]] * 16},
    "a sound": lambda text: {"messages": turn(sound(b"x" * len(text)))},
}


@pytest.mark.parametrize("grow", GROWN.values(), ids=GROWN)
def test_every_text_that_is_sent_is_counted(grow):
    """11-S6: a prompt in `name`, `tool_call_id`, `tool_choice` or `stop` reserved 50 tokens and used 100,000.
    SECURITY M2."""
    small, large = parse(**grow("x")), parse(**grow("x" * 5000))
    grown = len(json.dumps(large.as_sent())) - len(json.dumps(small.as_sent()))
    assert count(large) - count(small) >= grown > 90


def test_a_picture_counts_what_its_model_can_make_of_it_at_most():
    """11-S6: the true bound of a picture differs by model, and is the entry's."""
    one, two = parse(messages=turn(picture(PICTURE))), parse(messages=turn(picture(PICTURE), picture(PICTURE)))
    assert count(two) - count(one) == 700
    assert count(one, ENTRY.model_copy(update={"picture_tokens": 48_169})) - count(one) == 48_169 - 700


def test_the_fault_of_a_part_names_its_place_alone():
    with pytest.raises(Invalid) as caught:
        parse(messages=turn(picture("ftp://example.com/cat.png")))
    assert caught.value.message.startswith("The request is not valid: messages.0.content.0.image_url.image_url.url: ")
    assert "valid string" not in caught.value.message


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"enum": [f"value {number}" for number in range(50_000)]}, "more than"),
        ({"description": "x" * MAX_SCHEMA_CHARACTERS}, "more than"),
        (json.loads('{"items":' * 50 + "{}" + "}" * 50), "nests deeper"),
    ],
)
def test_a_schema_is_bounded(schema, said):
    """11-S9: an enumeration of 50,000 values stopped the shared model for minutes."""
    with pytest.raises(Invalid, match=said):
        parse(response_format=shape(schema))
    with pytest.raises(Invalid, match=said):
        parse(tools=[tool(parameters=schema)])


def test_what_was_said_comes_back_as_it_was_sent():
    told = {
        "messages": [
            {"role": "system", "content": "s"},
            {"role": "user", "content": [{"type": "text", "text": "t"}, picture(PICTURE, detail="low")], "name": "ada"},
            {"role": "assistant", "content": None, "tool_calls": [CALL]},
            {"role": "tool", "content": "found", "tool_call_id": "1"},
        ],
        "temperature": 0.5,
        "stop": ["\n"],
        "tools": [tool(parameters={"type": "object", "default": None, "enum": [1, None]})],
        "tool_choice": {"type": "function", "function": {"name": "look"}},
        "response_format": shape({"const": None}),
    }
    assert make_plan(parse(**told, max_tokens=5), (ENTRY,), (), None, "en").parameters == told


def test_an_index_of_a_streamed_tool_call_may_come_back_and_is_not_sent():
    request = parse(messages=[{"role": "assistant", "tool_calls": [{**CALL, "index": 0}]}])
    assert request.as_sent()["messages"][0]["tool_calls"] == [CALL]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(sorted(GenerateRequest.model_fields)), JSON))
def test_no_json_raises_anything_but_invalid(value):
    try:
        parse_request(GenerateRequest, json.dumps(value))
    except Invalid as error:
        assert error.message.startswith("The request is not valid: ")
