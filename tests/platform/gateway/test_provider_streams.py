"""Providers' streams, through the real litellm: broken streams, merged tool calls, data in pieces."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.platform.gateway.streams import END, read_all, told
from upstream import Events, Upstream, Whole, answer, chunk, said, serving, tool_call, usage

from llmasos.gateway.answers import json_in
from llmasos.gateway.failures import StreamCut
from llmasos.gateway.gateway import Gateway
from llmasos.gateway.tool_calls import ToolCallPieces


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with serving() as upstream:
        yield upstream


@pytest.fixture
def gateway(upstream: Upstream, tmp_path: Path) -> Gateway:
    return upstream.gateway(tmp_path)


@pytest.mark.parametrize(
    "reply",
    [
        Events((said("Half a"), said(" sen")), done=False),
        Events((said("Half a"), said(" sen"))),
        Events((said("Half a sen"), {**chunk(), "choices": [], "usage": usage(3, 4)})),
    ],
    ids=["cut", "done without a finish", "usage without a finish"],
)
async def test_a_stream_without_its_end_is_an_error_and_what_it_said_is_counted(upstream, gateway, ask, reply):
    """11-1: cut cleanly after half a sentence, it was a success."""
    upstream.say(reply)
    with pytest.raises(StreamCut):
        await read_all(gateway, ask())
    assert read_all.used.completion_tokens >= 2


@pytest.mark.parametrize("reply", [answer({"content": "All of it."}), Events(()), Whole(b"")])
async def test_a_server_that_does_not_stream_is_an_error_with_the_setting_that_helps(upstream, gateway, ask, reply):
    """11-1: an upstream that ignores `stream` gave an empty success."""
    upstream.say(reply)
    with pytest.raises(StreamCut, match=r'unsupported = \["stream"\]'):
        await read_all(gateway, ask())


WEATHER, TIME = ("get_weather", '{"city": "Oslo"}'), ("get_time", '{"zone": "CET"}')


def calls_of(pieces) -> list[tuple[str, str]]:
    """Assemble tool calls by index, as a simple client does."""
    whole: dict[int, list[str]] = {}
    for piece in pieces:
        call = whole.setdefault(piece["index"], ["", ""])
        call[0] += piece["function"]["name"] or ""
        call[1] += piece["function"]["arguments"] or ""
    return [(name, arguments) for name, arguments in whole.values()]


STREAMED_CALLS = {
    "each index is 0": [tool_call(0, "a", *WEATHER), tool_call(0, "b", *TIME)],
    "no index": [tool_call(None, "a", *WEATHER), tool_call(None, "b", *TIME)],
    "the name is repeated": [
        tool_call(0, "a", "get_weather", '{"city": '),
        tool_call(0, "a", "get_weather", '"Oslo"}'),
        tool_call(0, "b", "get_time", '{"zone": '),
        tool_call(0, "b", "get_time", '"CET"}'),
    ],
    "as OpenAI does": [
        tool_call(0, "a", "get_weather", ""),
        tool_call(0, None, None, '{"city": "Oslo"}'),
        tool_call(1, "b", "get_time", ""),
        tool_call(1, None, None, '{"zone": "CET"}'),
    ],
    "interleaved": [
        tool_call(0, "a", "get_weather", ""),
        tool_call(1, "b", "get_time", ""),
        tool_call(1, None, None, '{"zone": '),
        tool_call(0, None, None, '{"city": "Oslo"}'),
        tool_call(1, None, None, '"CET"}'),
    ],
    "no ids at all": [tool_call(0, None, *WEATHER), tool_call(0, None, *TIME)],
}


@pytest.mark.parametrize("pieces", STREAMED_CALLS.values(), ids=STREAMED_CALLS)
async def test_streamed_tool_calls_are_kept_apart(upstream, gateway, ask, pieces):
    """11-2: one call `get_weatherget_weatherget_time`."""
    upstream.say(Events((*(chunk({"tool_calls": [piece]}) for piece in pieces), chunk(finish="tool_calls"))))
    parts = await read_all(gateway, ask())
    deltas = [piece for part in parts for piece in part["choices"][0]["delta"].get("tool_calls", ())]
    assert calls_of(deltas) == [WEATHER, TIME]
    assert len({piece["id"] for piece in deltas if piece["id"]}) == 2
    assert parts[-1]["choices"][0]["finish_reason"] == "tool_calls"


def test_a_name_in_pieces_is_put_together():
    pieces = ToolCallPieces()
    taken = [
        pieces.take(tool_call(0, "a", "get_", "") | {"id": "a"}),
        pieces.take({"id": None, "index": 0, "function": {"name": "weather", "arguments": ""}}),
    ]
    assert calls_of(taken) == [("get_weather", "")]


SHAPE = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object", "properties": {"a": {}}}}}


@pytest.mark.parametrize(
    "text",
    [
        '{"a": 1}',
        '```json\n{"a": 1}\n```',
        '```\n{"a": 1}```',
        'Sure! Here it is:\n\n{"a": 1}\n\nAnything else?',
        'A list [1, 2] and then {"a": 1}.',
        '<think>{not json}</think>{"a": 1}',
    ],
)
async def test_typed_answers_are_taken_out_of_what_surrounds_them(upstream, gateway, ask, text):
    """11-5: a fenced one failed after it was paid for."""
    upstream.say(answer({"content": text}))
    assert json.loads((await gateway.generate(ask(response_format=SHAPE))).text) == {"a": 1}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ('{"a": "}\\" {"}', '{"a": "}\\" {"}'),
        ('```json\n{"a": [1, {"b": 2}]}\n```', '{"a": [1, {"b": 2}]}'),
        ('Sure! Here [it] is: {"a": 1} Anything else, {you}?', '{"a": 1}'),
        ("Sorry, I cannot.", "Sorry, I cannot."),
        ('{"a": "cut', '{"a": "cut'),
    ],
)
@pytest.mark.parametrize("step", [1, 3, 100])
async def test_streamed_data_is_taken_out_of_what_surrounds_it(upstream, gateway, ask, text, shown, step):
    """11-5, its kind."""
    pieces = [said(text[at : at + step]) for at in range(0, len(text), step)]
    upstream.say(Events((*pieces, END)))
    assert told(await read_all(gateway, ask(response_format=SHAPE))) == shown


async def test_text_is_unchanged_if_no_data_was_asked_for(upstream, gateway, ask):
    upstream.say(answer({"content": 'See: {"a": 1}'}))
    assert (await gateway.generate(ask())).text == 'See: {"a": 1}'


@pytest.mark.parametrize("text", ["[" * 5000, "{" * 5000, '{"a": ' * 300, "no data", ""])
def test_a_text_without_json_is_read_in_time(text):
    assert json_in(text, wants_object=True) is None


async def test_a_first_part_without_choices_is_passed_over(upstream, gateway, ask):
    """11-7."""
    upstream.say(Events(({**chunk(), "choices": []}, said("Hi"), END)))
    assert told(await read_all(gateway, ask())) == "Hi"
