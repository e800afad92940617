"""What providers really send, through the real litellm: streams that break off, merged tool calls, impossible usage."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from upstream import Events, Upstream, Whole, answer, chunk, said, serving, tool_call, usage

from llmasos.errors import Invalid, LlmasosError, ModelUnavailable
from llmasos.gateway.answers import BadAnswer, json_in
from llmasos.gateway.failures import ContentRefused, ContextTooLong, ModelSaidNothing, ModelUnpaid, StreamCut
from llmasos.gateway.gateway import Gateway
from llmasos.gateway.request import EmbedRequest
from llmasos.gateway.tool_calls import ToolCallPieces
from llmasos.gateway.usage import SLACK_TOKENS

PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "QUJD" * 25_000}}


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with serving() as upstream:
        yield upstream


@pytest.fixture
def gateway(upstream: Upstream, tmp_path: Path) -> Gateway:
    return upstream.gateway(tmp_path)


async def read_all(gateway: Gateway, request):
    """The parts of a stream, and what it used; or the error, after which the stream is closed."""
    stream = await gateway.stream(request)
    parts = []
    try:
        while (part := await stream.read()) is not None:
            parts.append(part)
    finally:
        await stream.close()
        read_all.used = stream.used
    return parts


def told(parts, field: str = "content") -> str:
    return "".join(part["choices"][0]["delta"].get(field) or "" for part in parts)


END = chunk(finish="stop")


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
    """Tool calls put together as a plain client does: by index."""
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


REFUSALS = [
    (
        "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
        {},
        "max_tokens",
        {"max_completion_tokens": 9},
    ),
    ("temperature is not supported with this model", {"temperature": 0.5}, "temperature", {"max_tokens": 9}),
    ("Unrecognized request argument supplied: seed", {"seed": 1}, "seed", {"max_tokens": 9}),
]


@pytest.mark.parametrize(("words", "asked", "gone", "sent"), REFUSALS)
async def test_a_parameter_that_is_refused_by_name_is_renamed_or_left_out(
    upstream, gateway, ask, words, asked, gone, sent
):
    """11-4: it was refused for ever, and no option cured it."""
    upstream.say(Whole({"error": {"message": words, "type": "invalid_request_error"}}, status=400), answer())
    request = ask(max_tokens=9, **asked)
    assert (await gateway.generate(request)).text == "ok"
    assert (await gateway.generate(request)).text == "ok"
    first, second, third = upstream.requests
    assert gone in first
    for later in (second, third):
        assert gone not in later
        assert sent.items() <= later.items()
    assert gateway.learned("remote") != gateway.registry.get("remote")


async def test_a_server_that_refuses_to_stream_answers_whole(upstream, gateway, ask):
    """11-4."""
    refusal = Whole({"error": {"message": "streaming is not supported", "param": "stream"}}, status=400)
    upstream.say(refusal, answer({"content": "All of it."}))
    parts = await read_all(gateway, ask())
    assert told(parts) == "All of it."
    assert parts[-1]["choices"][0]["finish_reason"] == "stop"
    assert read_all.used.prompt_tokens == 11


async def test_the_entry_can_say_what_its_server_takes(upstream, tmp_path, ask):
    """11-4."""
    entry = upstream.entry(max_tokens_parameter="max_completion_tokens", unsupported=("temperature",))
    gateway = upstream.gateway(tmp_path, entry)
    upstream.say(answer())
    await gateway.generate(ask(max_tokens=9, temperature=1))
    assert upstream.requests[0]["max_completion_tokens"] == 9
    assert {"max_tokens", "temperature"}.isdisjoint(upstream.requests[0])


async def test_a_request_that_is_wrong_in_itself_is_asked_once(upstream, gateway, ask):
    upstream.say(Whole({"error": {"message": "messages must alternate"}}, status=400))
    with pytest.raises(Invalid, match="must alternate"):
        await gateway.generate(ask(temperature=1))
    assert len(upstream.requests) == 1


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


EMPTY = [
    ({"content": None}, "content_filter", ContentRefused, "held the whole answer back"),
    ({"content": "", "reasoning_content": "Hmm."}, "length", ModelSaidNothing, "allow a larger max_tokens"),
    ({"content": " \n", "reasoning_content": "Hmm."}, "stop", ModelSaidNothing, "only thought"),
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
    answer(usage={"prompt_tokens": "many"}),
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


async def test_a_first_part_without_choices_is_passed_over(upstream, gateway, ask):
    """11-7."""
    upstream.say(Events(({**chunk(), "choices": []}, said("Hi"), END)))
    assert told(await read_all(gateway, ask())) == "Hi"


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


async def test_an_answer_is_cut_to_what_the_window_leaves(upstream, tmp_path, ask):
    """11-9: window 4096, prompt 2,250 tokens, grant 2048: refused as too long, which was false."""
    gateway = upstream.gateway(tmp_path, upstream.entry(context_window=4096))
    upstream.say(answer())
    await gateway.generate(ask("word " * 2250, max_tokens=2048))
    assert 1500 < upstream.requests[0]["max_tokens"] < 4096 - 2250
    await gateway.generate(ask("word " * 100, max_tokens=2048))
    assert upstream.requests[1]["max_tokens"] == 2048
    with pytest.raises(ContextTooLong, match="reads 4096"):
        await gateway.generate(ask("word " * 5000))
    assert len(upstream.requests) == 2


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


async def test_an_address_without_its_version_is_named_as_the_cause(upstream, tmp_path, ask):
    """11-12: "does not know 'openai/ok'"."""
    base = upstream.base.removesuffix("/v1")
    gateway = upstream.gateway(tmp_path, upstream.entry(api_base=base))
    upstream.say(Whole({"detail": "Not Found"}, status=404))
    with pytest.raises(ModelUnavailable, match=f"its address {base} does not end in /v1"):
        await gateway.generate(ask())


@pytest.mark.parametrize("key", ["“sk-1”", "sk-1\n", "sk–1"])
async def test_a_key_with_typographic_signs_is_named_as_the_cause(upstream, tmp_path, ask, monkeypatch, key):
    """11-12: "'ascii' codec can't encode…"."""
    monkeypatch.setenv("A_KEY", key)
    gateway = upstream.gateway(tmp_path, upstream.entry(key="env:A_KEY"))
    with pytest.raises(ModelUnavailable, match="paste it again"):
        await gateway.generate(ask())
    assert upstream.requests == []


@pytest.mark.parametrize(
    "model", ["together_ai/meta-llama/Llama-2-7b", "replicate/meta/llama-3-8b", "cohere/command-r"]
)
async def test_counting_tokens_fetches_nothing(upstream, tmp_path, monkeypatch, model):
    """11-3, its kind: for some names litellm fetched a tokeniser, and tried for 24 s without a network."""
    looked_up = []
    monkeypatch.setattr(socket, "getaddrinfo", lambda *address, **_: looked_up.append(address) or [])
    gateway = upstream.gateway(tmp_path, upstream.entry(litellm=model))
    assert await gateway.count_tokens("The sea is blue. <|endoftext|>", "remote") > 5
    assert looked_up == []


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
