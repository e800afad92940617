"""Streams as providers of every kind send them, through the real litellm: what is said arrives whole and is counted."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from upstream import Events, Upstream, Whole, answer, chunk, said, serving, tool_call, usage

from llmasos.errors import LlmasosError
from llmasos.gateway.answers import BadAnswer
from llmasos.gateway.failures import ContentRefused, ModelUnpaid, StreamCut
from llmasos.gateway.gateway import Gateway
from llmasos.gateway.thinking import ThinkingApart
from llmasos.quotas.meters import Used

END = chunk(finish="stop")


@pytest.fixture(scope="module")
def provider() -> Iterator[Upstream]:
    with serving() as upstream:
        yield upstream


@pytest.fixture
def upstream(provider: Upstream) -> Upstream:
    provider.requests.clear()
    return provider


@pytest.fixture
def gateway(upstream: Upstream, tmp_path: Path) -> Gateway:
    return upstream.gateway(tmp_path)


class Streamed:
    """What arrived of a streamed answer, also of one that failed."""

    def __init__(self) -> None:
        self.parts: list[dict[str, Any]] = []
        self.used: Used | None = None

    def told(self, field: str = "content") -> str:
        return "".join(part["choices"][0]["delta"].get(field) or "" for part in self.parts)

    @property
    def reason(self) -> str:
        return self.parts[-1]["choices"][0]["finish_reason"]

    @property
    def calls(self) -> list[tuple[str, str]]:
        """Put together as a plain client does: by index."""
        whole: dict[int, list[str]] = {}
        for part in self.parts:
            for piece in part["choices"][0]["delta"].get("tool_calls", ()):
                call = whole.setdefault(piece["index"], ["", ""])
                call[0] += piece["function"]["name"] or ""
                call[1] += piece["function"]["arguments"]
        return [(name, arguments) for name, arguments in whole.values()]

    async def read(self, gateway: Gateway, request: Any) -> Streamed:
        stream = await gateway.stream(request)
        try:
            while (part := await stream.read()) is not None:
                self.parts.append(part)
        finally:
            await stream.close()
            self.used = stream.used
        return self


def raw(*events: Any, ending: str = "\n\n", headers: dict[str, str] | None = None, before: str = "") -> Whole:
    """A body of events, byte by byte as written here."""
    texts = [event if isinstance(event, str) else f"data: {json.dumps(event, ensure_ascii=False)}" for event in events]
    body = (before + "".join(text + ending for text in texts)).encode()
    return Whole(body, headers={"content-type": "text/event-stream", **(headers or {})})


def other_choice(text: str, number: int) -> dict[str, Any]:
    return {**chunk(), "choices": [{"index": number, "delta": {"content": text}, "finish_reason": None}]}


def as_gzip(whole: Whole) -> Whole:
    return Whole(gzip.compress(whole.body), headers={**whole.headers, "content-encoding": "gzip"})


HI = (said("Hi"), said(" you"), END, "data: [DONE]")
WHOLE = {
    "keep-alives": raw(": ping", *HI[:2], ": ping", ":", *HI[2:]),
    "CRLF": raw(*HI, ending="\r\n\r\n"),
    "CR": raw(*HI, ending="\r\r"),
    "an event of several lines": raw(
        'data: {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m",\n'
        'data: "choices": [{"index": 0, "delta": {"content": "Hi you"}, "finish_reason": null}]}',
        *HI[2:],
    ),
    "gzip": as_gzip(raw(*HI)),
    "no [DONE]": raw(*HI[:3]),
    "a role each time": raw(*(chunk({"role": "assistant", "content": text}) for text in ("Hi", " you")), *HI[2:]),
    "empty deltas": raw(chunk({}), HI[0], chunk({"content": ""}), chunk({"content": None}), *HI[1:]),
    "no choices, and null": raw({**chunk(), "choices": None}, {"id": "x"}, HI[0], "data: null", *HI[1:]),
    "the finish with the text": raw(HI[0], chunk({"content": " you"}, "stop")),
    "a finish of its own words": raw(*HI[:2], chunk(finish="eos_token")),
    "another answer beside it": raw(HI[0], other_choice("Ho", 1), HI[1], other_choice(" me", 1), END),
    "usage that is no number": raw(*HI[:3], {**chunk(), "choices": [], "usage": usage("many", float("nan"))}),
    "nonsense after the end": raw(*HI[:3], 'data: {"id": "c1", "obj'),
}


@pytest.mark.parametrize("reply", WHOLE.values(), ids=WHOLE)
async def test_an_answer_arrives_whole_in_whatever_form_it_is_streamed(upstream, gateway, ask, reply):
    """11-1, its kind: a second choice was mixed in, and an answer was lost to what came after its end."""
    upstream.say(reply)
    streamed = await Streamed().read(gateway, ask())
    assert (streamed.told(), streamed.reason) == ("Hi you", "stop")
    assert streamed.used.completion_tokens == 2


BROKEN = {
    "an error": ({"error": {"message": "overloaded", "code": 529}}, LlmasosError, "overloaded"),
    "an error as text": ({"error": "overloaded"}, LlmasosError, "error occurred"),
    "an event that is an error": ('event: error\ndata: {"message": "overloaded"}', StreamCut, "broke off"),
    "a bill": ({"error": {"message": "no more", "code": 402}}, ModelUnpaid, "requires payment"),
    "half an event": ('data: {"id": "c1", "obj', LlmasosError, "remote"),
    "a list": ([1], LlmasosError, "remote"),
    "an error as a finish": (chunk(finish="error"), LlmasosError, "finish_reason: error"),
}


@pytest.mark.parametrize(("event", "error", "words"), BROKEN.values(), ids=BROKEN)
async def test_a_failure_amid_a_stream_is_told_in_the_providers_words(upstream, gateway, ask, event, error, words):
    """11-1, its kind: the line held a dump of litellm's objects."""
    upstream.say(raw(said("One two three"), event))
    streamed = Streamed()
    with pytest.raises(error, match=words) as caught:
        await streamed.read(gateway, ask())
    assert streamed.used.completion_tokens == 3
    assert not [noise for noise in ("litellm", "Exception", "Received Chunk", "\n") if noise in caught.value.message]


COUNTS = {
    "in each event": ((3, 1), (3, 2), (3, 4)),
    "only at the beginning": ((3, 1), None, None),
    "null at the end": ((3, 1), (3, 4), None),
    "half of it": (None, None, (3, None)),
    "none of the answer": (None, None, (3, 0)),
}


@pytest.mark.parametrize("counts", COUNTS.values(), ids=COUNTS)
async def test_what_was_said_after_a_usage_is_counted_too(upstream, gateway, ask, counts):
    """11-3, its kind: of a stream that reported its usage at the beginning, one token was charged."""
    texts = (said("One two"), said(" three four"), END)
    upstream.say(raw(*({**text, "usage": count and usage(*count)} for text, count in zip(texts, counts, strict=True))))
    streamed = await Streamed().read(gateway, ask())
    assert (streamed.used.prompt_tokens, streamed.used.completion_tokens) == (3, 4)


async def test_a_stream_that_breaks_off_is_charged_by_what_it_said(upstream, gateway, ask):
    """11-3, its kind: a provider reports one token of the answer at its beginning, then the stream is cut."""
    upstream.say(raw({**said("One"), "usage": usage(3, 1)}, said(" two three four five")))
    streamed = Streamed()
    with pytest.raises(StreamCut):
        await streamed.read(gateway, ask())
    assert (streamed.used.prompt_tokens, streamed.used.completion_tokens) == (3, 5)


@pytest.mark.parametrize("counts", [(11, None), (11, 0), (None, 4), (0, 4)])
async def test_half_a_usage_is_completed_by_counting(upstream, gateway, ask, counts):
    """11-3, its kind: an answer of no tokens was believed, though it had text."""
    upstream.say(answer({"content": "One two three four"}, usage=usage(*counts)))
    used = (await gateway.generate(ask("hello"))).used
    assert (used.prompt_tokens, used.completion_tokens) == (counts[0] or 1, 4)


async def test_an_answer_without_an_end_is_ended(upstream, gateway, ask):
    """11-6, its kind: a server that does not keep to `max_tokens` filled the host's memory."""
    upstream.say(raw(*(said(f"{number} " + "x" * 2000) for number in range(200))))
    streamed = Streamed()
    with pytest.raises(BadAnswer, match="did not end at the 10 tokens"):
        await streamed.read(gateway, ask(max_tokens=10))
    assert len(streamed.told()) < 200_000


SPLIT = tool_call(0, "a", "get", '{"x"')
CALLS = {
    "no arguments": ([tool_call(0, "a", "get", "")], [("get", "{}")]),
    "null for arguments": ([tool_call(0, "a", "get", None)], [("get", "{}")]),
    "two without arguments": ([tool_call(0, None, "get", ""), tool_call(1, None, "get", "")], [("get", "{}")] * 2),
    "the same function twice, without ids": (
        [tool_call(0, None, "get", '{"x": 1}'), tool_call(0, None, "get", '{"x": 2}')],
        [("get", '{"x": 1}'), ("get", '{"x": 2}')],
    ),
    "two calls with one id": (
        [tool_call(0, "a", "get", "{}"), tool_call(1, "a", "put", "{}")],
        [("get", "{}"), ("put", "{}")],
    ),
    "another id with each piece": ([SPLIT, tool_call(0, "b", None, ": 1}")], [("get", '{"x": 1}')]),
    "another id, and the name again": ([SPLIT, tool_call(0, "b", "get", ": 1}")], [("get", '{"x": 1}')]),
    "an empty id": ([SPLIT, tool_call(0, "", "", ": 1}")], [("get", '{"x": 1}')]),
    "a name in pieces": ([tool_call(0, "a", "g", ""), tool_call(0, None, "et", "{}")], [("get", "{}")]),
    "a name that grows": ([tool_call(0, "a", "g", ""), tool_call(0, None, "get", "{}")], [("get", "{}")]),
    "the name last": ([tool_call(0, "a", None, "{}"), tool_call(0, None, "get", "")], [("get", "{}")]),
    "numbers with gaps": (
        [tool_call(3, "a", "get", "{}"), tool_call(7, "b", "put", "{}")],
        [("get", "{}"), ("put", "{}")],
    ),
    "half a character": (
        [tool_call(0, "a", "get", '{"x": "\ud83d'), tool_call(0, None, None, '\ude00"}')],
        [("get", '{"x": "\ud83d\ude00"}')],
    ),
}


@pytest.mark.parametrize(("pieces", "calls"), CALLS.values(), ids=CALLS)
async def test_tool_calls_are_put_together_however_they_are_cut(upstream, gateway, ask, pieces, calls):
    """11-2, its kind."""
    upstream.say(Events((*(chunk({"tool_calls": [piece]}) for piece in pieces), chunk(finish="tool_calls"))))
    streamed = await Streamed().read(gateway, ask())
    assert streamed.calls == calls
    assert streamed.reason == "tool_calls"


async def test_a_call_in_the_old_form_is_a_tool_call(upstream, gateway, ask):
    """11-2, its kind: it was an empty answer that ended with `tool_calls`."""
    first = chunk({"function_call": {"name": "get", "arguments": '{"x"'}})
    upstream.say(Events((first, chunk({"function_call": {"arguments": ": 1}"}}), chunk(finish="function_call"))))
    streamed = await Streamed().read(gateway, ask())
    assert (streamed.calls, streamed.reason) == ([("get", '{"x": 1}')], "tool_calls")
    upstream.say(answer({"content": None, "function_call": {"name": "get", "arguments": ""}}, "function_call"))
    message = (await gateway.generate(ask())).value["choices"][0]["message"]
    assert message["tool_calls"] == [
        {"id": "call_0", "type": "function", "function": {"name": "get", "arguments": "{}"}}
    ]


@pytest.mark.parametrize(
    "piece",
    [
        tool_call(0, "a", None, "{}"),
        {"index": 0, "id": "a", "type": "function", "function": None},
        {"index": 0, "id": "a", "type": "function"},
        tool_call(0, 7, "get", "{}"),  # type: ignore[arg-type]
    ],
)
async def test_a_call_of_nothing_is_no_answer(upstream, gateway, ask, piece):
    """11-2 and 11-7: it was an empty answer, and a success."""
    upstream.say(Events((chunk({"tool_calls": [piece]}), chunk(finish="tool_calls"))))
    with pytest.raises(BadAnswer, match="remote"):
        await Streamed().read(gateway, ask())


async def test_whole_answers_are_of_one_choice_and_their_calls_have_ids_of_their_own(upstream, gateway, ask):
    """11-2, its kind."""
    call = {"id": "a", "type": "function", "function": {"name": "get", "arguments": "{}"}}
    reply = answer({"content": None, "tool_calls": [call, call]}, "tool_calls")
    reply.body["choices"].append({"index": 1, "message": {"content": "other"}, "finish_reason": "stop"})
    upstream.say(reply)
    (choice,) = (await gateway.generate(ask())).value["choices"]
    assert [each["id"] for each in choice["message"]["tool_calls"]] == ["a", "call_1"]
    assert choice["finish_reason"] == "tool_calls"


async def test_a_refusal_in_its_own_field_is_told(upstream, gateway, ask):
    """11-6, its kind: the answer was empty, and the model's words were lost."""
    upstream.say(answer({"content": None, "refusal": "I cannot help with that."}))
    with pytest.raises(ContentRefused, match="I cannot help with that"):
        await gateway.generate(ask())


@pytest.mark.parametrize(
    ("text", "told", "thought"),
    [
        ("<think>Hm. {x}</think>\n\nHi", "Hi", "Hm. {x}"),
        ("  <think>a</b></thin</think>Hi", "Hi", "a</b></thin"),
        ("<thinker> said <think>", "<thinker> said <think>", ""),
        ("<thin", "<thin", ""),
        ("It is <think>so</think>.", "It is <think>so</think>.", ""),
    ],
)
@pytest.mark.parametrize("step", [1, 3, 100])
def test_thinking_in_the_text_is_parted_from_it(text, told, thought, step):
    """11-6, its kind: it was parted in whole answers only."""
    apart = ThinkingApart()
    pieces = [apart.feed(text[at : at + step]) for at in range(0, len(text), step)] + [apart.finish()]
    assert ("".join(piece[0] for piece in pieces), "".join(piece[1] for piece in pieces)) == (told, thought)


@pytest.mark.parametrize("streamed", [False, True])
async def test_half_a_character_becomes_none(upstream, gateway, ask, streamed):
    """11-10, its kind: no encoding can carry it, and `/v1` failed."""
    text = "a\ud83d\ude00b\ud83d"
    if streamed:
        upstream.say(Events((said(text[:2]), said(text[2:]), END)))
        assert (await Streamed().read(gateway, ask())).told() == "a😀b\ufffd"
    else:
        upstream.say(answer({"content": text}))
        assert (await gateway.generate(ask())).text == "a😀b\ufffd"
