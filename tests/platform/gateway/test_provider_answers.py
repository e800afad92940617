"""Real providers' answers, through the real litellm: broken streams, merged tool calls, impossible usage."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.platform.gateway.streams import END, read_all, told
from upstream import Events, Upstream, Whole, answer, chunk, said, serving, tool_call, usage

from llmasos.errors import Invalid, LlmasosError, ModelUnavailable
from llmasos.gateway.answers import BadAnswer
from llmasos.gateway.failures import ContentRefused, ModelSaidNothing, ModelUnpaid, StreamCut
from llmasos.gateway.gateway import Gateway
from llmasos.gateway.request import EmbedRequest
from llmasos.gateway.usage import SLACK_TOKENS

PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgoA" + "QUJD" * 25_000}}


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with serving() as upstream:
        yield upstream


@pytest.fixture
def gateway(upstream: Upstream, tmp_path: Path) -> Gateway:
    return upstream.gateway(tmp_path)


IMPOSSIBLE = [(-500_000, 4), (3, -1), (10**25, 4), (11, 10**25)]


@pytest.mark.parametrize(("prompt", "completion"), IMPOSSIBLE)
@pytest.mark.parametrize("streamed", [False, True])
async def test_a_usage_that_cannot_be_is_not_believed(upstream, gateway, ask, prompt, completion, streamed):
    """11-3: −500,000 tokens gave credit, 10²⁵ used up every quota."""
    counts = usage(prompt, completion)
    if streamed:
        upstream.say(Events((said("Good day"), END, {**chunk(), "choices": [], "usage": counts})))
        last, used = (await read_all(gateway, ask(max_tokens=50)))[-1], read_all.used
    else:
        upstream.say(answer({"content": "Good day"}, usage=counts))
        whole = await gateway.generate(ask(max_tokens=50))
        last, used = whole.value, whole.used
    assert last["llmasos"]["usage_doubted"] is True
    assert 0 < used.prompt_tokens <= gateway.plan(ask()).prompt_tokens + SLACK_TOKENS
    assert 0 < used.completion_tokens <= 50 + SLACK_TOKENS
    assert used.cost_micro_usd == used.prompt_tokens + 3 * used.completion_tokens


async def test_a_picture_without_a_reported_usage_counts_as_its_model_says(upstream, tmp_path, ask):
    """11-3: its 100 kB of base64 were counted as text, 98,157 tokens."""
    gateway = upstream.gateway(tmp_path, upstream.entry(picture_tokens=700))
    upstream.say(answer(usage=None))
    request = ask()
    messages = [{"role": "user", "content": [{"type": "text", "text": "What is this?"}, PICTURE]}]
    request = type(request).model_validate({"messages": messages})
    used = (await gateway.generate(request)).used
    assert 700 < used.prompt_tokens < 720


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/x.png", "https://example.com/cat.png"])
@pytest.mark.parametrize("model", ["openai/m", "anthropic/m", "ollama/m", "gemini/m"])
@pytest.mark.parametrize("streamed", [False, True])
async def test_an_address_that_was_not_fetched_goes_to_no_provider(upstream, tmp_path, ask, url, model, streamed):
    """11-S5: for some providers litellm fetches `image_url` itself: any address and port, without a bound."""
    gateway = upstream.gateway(tmp_path, upstream.entry(litellm=model))
    upstream.say(answer())
    parts = [{"type": "image_url", "image_url": {"url": url}}]
    request = type(ask()).model_validate({"messages": [{"role": "user", "content": parts}]})
    with pytest.raises(Invalid, match="data:image/png"):
        await (gateway.stream(request) if streamed else gateway.generate(request))
    assert upstream.requests == []


EMPTY = [
    ({"content": None}, "content_filter", ContentRefused, "withheld the whole answer"),
    ({"content": "", "reasoning_content": "Hmm."}, "length", ModelSaidNothing, "allow a larger max_tokens"),
    ({"content": " \n", "reasoning_content": "Hmm."}, "stop", ModelSaidNothing, "only reasoned"),
]


@pytest.mark.parametrize(("message", "finish", "error", "words"), EMPTY)
@pytest.mark.parametrize("streamed", [False, True])
async def test_an_empty_answer_gives_its_reason(upstream, gateway, ask, message, finish, error, words, streamed):
    """11-6: a blank line, and success."""
    if streamed:
        upstream.say(Events((chunk(message), chunk(finish=finish), {**chunk(), "choices": [], "usage": usage(11, 4)})))
        with pytest.raises(error, match=words):
            await read_all(gateway, ask())
        assert read_all.used.prompt_tokens == 11
    else:
        upstream.say(answer(message, finish))
        with pytest.raises(error, match=words):
            await gateway.generate(ask())


async def test_an_empty_answer_carries_a_notice(upstream, gateway, ask):
    """11-6."""
    upstream.say(answer({"content": ""}))
    assert (await gateway.generate(ask())).value["llmasos"]["notices"] == ["The model remote gave an empty answer."]


@pytest.mark.parametrize("streamed", [False, True])
async def test_what_a_model_thinks_is_kept_apart_and_counted(upstream, gateway, ask, streamed):
    """11-6."""
    thought = "The user greets me, so I should greet back politely. " * 5
    if streamed:
        upstream.say(Events((chunk({"reasoning_content": thought}), said("Hi"), END)))
        parts = await read_all(gateway, ask())
        assert (told(parts), told(parts, "reasoning_content"), read_all.used.completion_tokens > 40) == (
            "Hi",
            thought,
            True,
        )
    else:
        upstream.say(answer({"content": "Hi", "reasoning_content": thought}, usage=None))
        whole = await gateway.generate(ask())
        assert whole.text == "Hi"
        assert whole.value["choices"][0]["message"]["reasoning_content"] == thought
        assert whole.used.completion_tokens > 40


NONSENSE = [
    Whole({"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": []}),
    Whole({"choices": None}),
    Whole({"choices": [None]}),
    Whole({"choices": [{"message": None}]}),
    Whole({"choices": [{"index": 0, "message": {"role": "assistant", "content": 7}, "finish_reason": "stop"}]}),
    Whole({}),
    Whole([]),
    Whole("text"),
    Whole(b"<html>Bad gateway</html>", headers={"content-type": "text/html"}),
    Whole(b""),
    answer({"content": None, "tool_calls": [{"id": "a", "type": "function", "function": None}]}),
    answer(
        {"content": None, "tool_calls": [{"id": "a", "type": "function", "function": {"name": None, "arguments": ""}}]}
    ),
    answer({"content": None, "tool_calls": "look"}),
]


@pytest.mark.parametrize("reply", NONSENSE, ids=lambda reply: str(reply.body)[:50])
async def test_unforeseen_answers_are_the_providers_fault_and_another_model_may_answer(upstream, tmp_path, ask, reply):
    """11-7: an IndexError, "its log says why", and no log."""
    with serving() as second:
        second.say(answer({"content": "from the second"}))
        entries = (upstream.entry(fallbacks=("second",)), second.entry("second"))
        upstream.say(reply)
        assert (await upstream.gateway(tmp_path, *entries).generate(ask(model="remote"))).text == "from the second"
    with pytest.raises(ModelUnavailable, match="remote"):
        await upstream.gateway(tmp_path).generate(ask())


UNPAID = [
    (402, {"message": "Payment required"}),
    (400, {"message": "Your credit balance is too low to access the API."}),
    (403, {"message": "Insufficient balance"}),
    (429, {"message": "You exceeded your current quota", "code": "insufficient_quota"}),
]


@pytest.mark.parametrize(("status", "error"), UNPAID)
async def test_a_bill_is_not_the_requests_fault_and_another_model_answers(upstream, tmp_path, ask, status, error):
    """11-8: 402 with a fallback configured, and the fallback was not asked."""
    upstream.say(Whole({"error": error}, status=status), answer({"content": "from the second"}))
    gateway = upstream.gateway(tmp_path, upstream.entry(fallbacks=("second",)), upstream.entry("second"))
    assert (await gateway.generate(ask(model="remote"))).text == "from the second"
    upstream.say(Whole({"error": error}, status=status))
    with pytest.raises(ModelUnpaid):
        await upstream.gateway(tmp_path).generate(ask())


def vectors(*rows: tuple[object, object]) -> Whole:
    data = [{"object": "embedding", "index": index, "embedding": vector} for index, vector in rows]
    return Whole({"object": "list", "data": data, "model": "m", "usage": {"prompt_tokens": 3, "total_tokens": 3}})


async def test_embeddings_out_of_order_are_put_in_order(upstream, tmp_path):
    """11-11: they were renumbered, silently wrong."""
    gateway = upstream.gateway(tmp_path, upstream.entry(kind="embedding"))
    upstream.say(vectors((2, [5.0, 0.0]), (0, [1.0, 0.0]), (1, [3.0, 0.0])))
    rows = (await gateway.embed(EmbedRequest(input=["a", "bbb", "ccccc"]))).value["data"]
    assert [(row["index"], row["embedding"]) for row in rows] == [(0, [1.0, 0.0]), (1, [3.0, 0.0]), (2, [5.0, 0.0])]


@pytest.mark.parametrize(
    "reply",
    [
        vectors((0, [1.0]), (1, [2.0])),
        vectors((0, [1.0]), (0, [2.0]), (1, [3.0])),
        vectors((0, [1.0]), (1, [2.0]), (7, [3.0])),
        vectors((0, [1.0]), (1, [2.0]), (2, [3.0, 4.0])),
        vectors((0, []), (1, []), (2, [])),
        vectors((0, [1.0]), (1, ["2"]), (2, [3.0])),
        vectors((0, [1.0]), (1, None), (2, [3.0])),
        Whole(b'{"object": "list", "data": [{"index": 0, "embedding": [NaN]}], "model": "m"}'),
        Whole({"object": "list", "data": [], "model": "m"}),
    ],
    ids=["too few", "twice", "index too high", "lengths differ", "empty", "text", "null", "NaN", "none"],
)
async def test_embeddings_that_are_not_one_vector_a_text_are_refused(upstream, tmp_path, reply):
    """11-11."""
    gateway = upstream.gateway(tmp_path, upstream.entry(kind="embedding"))
    upstream.say(reply)
    with pytest.raises((BadAnswer, ModelUnavailable), match="remote"):
        await gateway.embed(EmbedRequest(input=["a", "bbb", "ccccc"]))


async def test_what_was_said_is_charged_though_nothing_can_count_it(gateway, upstream, ask, monkeypatch):
    """11-1, its kind: a stream broke off because its engine crashed, and counting asked the same engine."""

    async def crashed(*_arguments):
        raise ModelUnavailable

    monkeypatch.setattr(gateway._engine, "count_tokens", crashed)
    upstream.say(Events((said("Half a"), said(" sen")), done=False))
    with pytest.raises(StreamCut):
        await read_all(gateway, ask())
    assert read_all.used.completion_tokens == len("Half a sen")


@pytest.mark.filterwarnings("default")
async def test_no_library_prints_the_arguments_of_a_tool(upstream, gateway, ask, capfd, caplog, recwarn):
    """11-13: pydantic's warnings about litellm's classes print their values."""
    secret = "the-secret-argument"
    call = tool_call(0, "a", "send", json.dumps({"to": secret}))
    upstream.say(Events((chunk({"tool_calls": [call]}), chunk(finish="tool_calls"))))
    await read_all(gateway, ask())
    upstream.say(answer({"content": None, "tool_calls": [call]}, "tool_calls"))
    await gateway.generate(ask())
    await asyncio.sleep(0.1)
    printed = capfd.readouterr()
    shown = (printed.out, printed.err, caplog.text, *(str(each.message) for each in recwarn))
    assert not [text for text in shown if secret in text]


async def test_a_cancelled_call_is_pending_until_its_provider_reports(upstream, gateway, ask):
    """11-S6: a caller who disconnected from a call that was not streamed was charged nothing."""
    from llmasos.gateway.usage import Spent

    spent = Spent()
    upstream.say(answer())
    await gateway.generate(ask(), spent=spent)
    assert (spent.pending, spent.used.prompt_tokens) == (False, 11)
    spent = Spent()
    upstream.say(Whole({"error": {"message": "no"}}, status=500))
    with pytest.raises(LlmasosError):
        await gateway.generate(ask(), spent=spent)
    assert (spent.pending, spent.used.tokens) == (False, 0)
