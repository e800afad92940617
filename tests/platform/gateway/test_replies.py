"""What servers send is bounded and mended before litellm reads it, through the real litellm."""

from __future__ import annotations

import gzip
import json

import pytest
from tests.platform.gateway.streams import END, read_all, told
from upstream import Events, Upstream, Whole, answer, chunk, said, serving, usage

from llmasos.errors import ModelUnavailable
from llmasos.gateway.failures import BadAnswer
from llmasos.gateway.request import GenerateRequest
from llmasos.gateway.usage import Spent


@pytest.fixture(scope="module")
def serving_upstream():
    with serving() as state:
        yield state


@pytest.fixture
def upstream(serving_upstream: Upstream) -> Upstream:
    serving_upstream.requests.clear()
    return serving_upstream


@pytest.fixture
def gateway(upstream, tmp_path):
    return upstream.gateway(tmp_path)


NAN = float("nan")
COUNTED = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
REPORTED = {"prompt_tokens": 11, "completion_tokens": 4, "total_tokens": 15}
USAGES = [
    (usage("11", "4"), REPORTED),
    (usage(11.0, 3.5), REPORTED),
    ({**usage(11, 4), "total_tokens": "many"}, REPORTED),
    ({**usage(11, 4), "prompt_tokens_details": [1]}, REPORTED),
    ({**usage(11, 4), "completion_tokens_details": {"reasoning_tokens": "some"}}, REPORTED),
    ({**usage(11, 4), "prompt_tokens_details": {"cached_tokens": NAN}}, REPORTED),
    (usage(NAN, NAN), COUNTED),
    (usage(float("inf"), float("-inf")), COUNTED),
    (usage("many", "few"), COUNTED),
    (usage(True, False), COUNTED),
    (usage([1], {"n": 2}), COUNTED),
    (usage(None, None), COUNTED),
    (usage(-5, -6), COUNTED),
    ({}, COUNTED),
    ([], COUNTED),
    ("none", COUNTED),
]


@pytest.mark.parametrize(("reported", "counted"), USAGES)
@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
async def test_an_answer_is_not_lost_because_of_its_usage(upstream, gateway, ask, reported, counted, streamed):
    """11-3, its kind: "Invalid response object", of an answer that was paid for."""
    if streamed:
        upstream.say(Events((said("ok"), END, {**chunk(), "choices": [], "usage": reported})))
        parts = await read_all(gateway, ask())
        assert (told(parts), parts[-1]["usage"]) == ("ok", counted)
    else:
        upstream.say(answer(usage=reported))
        whole = await gateway.generate(ask())
        assert (whole.text, whole.value["usage"]) == ("ok", counted)


@pytest.mark.parametrize(
    ("content", "text", "thought"),
    [
        ([{"type": "text", "text": "Good "}, {"type": "text", "text": "day"}], "Good day", None),
        (["Good ", "day"], "Good day", None),
        (
            [{"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]}, {"type": "text", "text": "Good day"}],
            "Good day",
            "Hm.",
        ),
        ([{"type": "thinking", "thinking": "Hm."}, {"type": "text", "text": "Good day"}], "Good day", "Hm."),
        ([{"type": "text", "text": "Good day"}, None, 3, {"type": "image"}], "Good day", None),
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
async def test_a_text_in_parts_is_joined(upstream, gateway, ask, content, text, thought, streamed):
    """11-7, its kind: it was an empty answer in a stream, and no answer as a whole."""
    if streamed:
        upstream.say(Events((chunk({"role": "assistant", "content": content}), END)))
        parts = await read_all(gateway, ask())
        assert (told(parts), told(parts, "reasoning_content") or None) == (text, thought)
    else:
        upstream.say(answer({"content": content}))
        whole = await gateway.generate(ask())
        assert (whole.text, whole.value["choices"][0]["message"].get("reasoning_content")) == (text, thought)


MEBIBYTE = 1 << 20
LARGE = b'{"id": "' + b"x" * MEBIBYTE + b'"}'


@pytest.fixture
def small_replies(monkeypatch):
    monkeypatch.setattr("llmasos.gateway.engine.ANSWER_BYTES", MEBIBYTE)


@pytest.mark.usefixtures("small_replies")
@pytest.mark.parametrize(
    "reply",
    [
        Whole(LARGE),
        Whole(gzip.compress(LARGE, 1), headers={"content-encoding": "gzip"}),
        Whole(b" " * (MEBIBYTE + 1)),
        Whole(LARGE, headers={"content-type": "text/html"}),
    ],
)
async def test_a_reply_is_read_up_to_a_size_and_asked_for_once(upstream, tmp_path, ask, reply):
    """11-7, its kind: a body of any size was held in memory, compressed ones too."""
    gateway = upstream.gateway(tmp_path, upstream.entry(retries=2))
    upstream.say(reply)
    with pytest.raises(BadAnswer, match="larger than 1 MiB"):
        await gateway.generate(ask())
    assert len(upstream.requests) == 1


@pytest.mark.usefixtures("small_replies")
async def test_a_line_of_a_stream_is_read_up_to_a_size(upstream, gateway, ask):
    """11-7, its kind."""
    upstream.say(Events((said("Good"), "x" * MEBIBYTE)))
    with pytest.raises(BadAnswer, match="larger than 1 MiB"):
        await read_all(gateway, ask())


@pytest.mark.parametrize(
    ("text", "answered", "thought"),
    [
        ("I reason.\n</think>\n\nYes", "Yes", "I reason."),
        ("I reason.</think>\nYes", "Yes", "I reason."),
        ("Write `</think>` at its end.", "Write `</think>` at its end.", None),
        ("Yes", "Yes", None),
    ],
)
@pytest.mark.parametrize("step", [1, 5, 100])
async def test_thinking_without_an_opening_tag_is_parted(upstream, gateway, ask, text, answered, thought, step):
    """11-6, its kind: some servers write the opening tag into the prompt."""
    upstream.say(answer({"content": text}))
    whole = await gateway.generate(ask())
    assert (whole.text, whole.value["choices"][0]["message"].get("reasoning_content")) == (answered, thought)
    upstream.say(Events((*(said(text[at : at + step]) for at in range(0, len(text), step)), END)))
    # What was shown cannot be withdrawn; the answers after it are held back until their thinking ends.
    assert told(await read_all(gateway, ask())) == text
    parts = await read_all(gateway, ask())
    assert (told(parts), told(parts, "reasoning_content").strip() or None) == (answered, thought)


async def test_a_model_that_stops_thinking_aloud_is_streamed_again(upstream, gateway, ask):
    """11-6, its kind."""
    upstream.say(Events((said("Hm.</think>\nYes"), END)), Events((said("Yes"), said("!"), END)))
    for _ in range(3):
        parts = await read_all(gateway, ask())
    assert [part["choices"][0]["delta"].get("content") for part in parts] == ["Yes", "!", None]


def shape(schema):
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("```json\n5\n```", "integer", 5),
        ("Here:\n```\ntrue\n```\nDone.", "boolean", True),
        ('```json\n"a [1] b"\n```', "string", "a [1] b"),
        ('"see {a} or [1]"', "string", "see {a} or [1]"),
        ("As [x] says:\n[1, 2]", "array", [1, 2]),
        ('{name} is a placeholder. {"a": 1}', "object", {"a": 1}),
        ('{ "quoted" } is a set: {"a": 1}', "object", {"a": 1}),
        ('The set {"x", "y"} gives {"a": {"b": []}}.', "object", {"a": {"b": []}}),
        ('{"\\"}": 1} follows', "object", {'"}': 1}),
        ("Nothing: {}", "object", {}),
    ],
)
@pytest.mark.parametrize("step", [0, 1, 4])
async def test_typed_answers_of_any_kind_are_the_same_whole_and_streamed(
    upstream, gateway, ask, text, kind, value, step
):
    """11-5, its kind: a fenced scalar was streamed with its fence, and words in braces were taken for data."""
    request = ask(response_format=shape({"type": kind}))
    if step:
        upstream.say(Events((*(said(text[at : at + step]) for at in range(0, len(text), step)), END)))
        shown = told(await read_all(gateway, request))
    else:
        upstream.say(answer({"content": text}))
        shown = (await gateway.generate(request)).text
    assert json.loads(shown) == value


def fallbacks(upstream, tmp_path, **second):
    first = upstream.entry("first", fallbacks=("second",), context_window=32_000)
    return upstream.gateway(tmp_path, first, upstream.entry("second", litellm="openai/another", **second))


async def test_what_a_model_used_whose_answer_was_not_taken_is_charged_too(upstream, tmp_path, ask):
    """11-3, its kind: the fallback's usage replaced the usage of the model that was asked first."""
    gateway = fallbacks(upstream, tmp_path)
    upstream.say(answer({"content": None}, "tool_calls", usage=usage(11, 400)), answer(usage=usage(12, 5)))
    spent = Spent()
    whole = await gateway.generate(ask(model="first"), spent=spent)
    assert (whole.text, whole.value["usage"]["completion_tokens"]) == ("ok", 5)
    assert whole.used == spent.total
    assert (whole.used.prompt_tokens, whole.used.completion_tokens) == (11 + 12, 400 + 5)
    assert whole.used.cost_micro_usd == whole.value["llmasos"]["cost_micro_usd"] == 23 + 3 * 405


async def test_what_all_models_used_is_charged_if_the_last_one_fails(upstream, tmp_path, ask):
    """11-3, its kind."""
    gateway = fallbacks(upstream, tmp_path)
    upstream.say(answer({"content": None}, "tool_calls", usage=usage(11, 400)), Whole({"error": {"message": "x"}}, 503))
    spent = Spent()
    with pytest.raises(ModelUnavailable):
        await gateway.generate(ask(model="first"), spent=spent)
    assert (spent.total.prompt_tokens, spent.total.completion_tokens, spent.pending) == (11, 400, False)


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_fallback_is_asked_for_what_its_own_window_leaves(upstream, tmp_path, ask, streamed):
    """11-9, its kind: it was asked for as many tokens as the first model."""
    gateway = fallbacks(upstream, tmp_path, context_window=2048)
    request: GenerateRequest = ask(model="first", max_tokens=8000)
    upstream.say(Whole({"error": {"message": "busy"}}, 503), Events((said("ok"), END)) if streamed else answer())
    if streamed:
        await read_all(gateway, request)
    else:
        await gateway.generate(request)
    assert upstream.requests[0]["max_tokens"] == 8000
    assert upstream.requests[1]["max_tokens"] < 2048


async def test_a_fallback_with_a_larger_window_gets_what_is_too_long_for_the_first(upstream, tmp_path, ask):
    """11-9, its kind: it was refused, though another model reads it."""
    first = upstream.entry("first", fallbacks=("second",), context_window=2048)
    gateway = upstream.gateway(tmp_path, first, upstream.entry("second", context_window=32_000))
    upstream.say(answer())
    assert (await gateway.generate(ask("word " * 4000, model="first"))).value["model"] == "second"
    assert len(upstream.requests) == 1
