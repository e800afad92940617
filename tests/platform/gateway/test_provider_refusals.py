"""What servers refuse, in the words of each kind: the request is adapted, a fallback is asked, or a cure named."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from email.utils import formatdate
from typing import Any

import pytest
from upstream import Upstream, Whole, answer, serving

from llmasos.errors import Invalid, LlmasosError, ModelUnavailable, TimedOut
from llmasos.gateway.failures import (
    ContentRefused,
    ContextTooLong,
    ModelKeyRejected,
    ModelRateLimited,
    ModelUnpaid,
    _seconds,
)


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[Upstream, Upstream]]:
    with serving() as first, serving() as second:
        second.say(answer({"content": "from the second"}))
        yield first, second


@pytest.fixture
def upstream(servers: tuple[Upstream, Upstream]) -> Upstream:
    servers[0].requests.clear()
    return servers[0]


def refusal(words: str, status: int = 400, **fields: Any) -> Whole:
    return Whole({"error": {"message": words, "type": "invalid_request_error", **fields}}, status=status)


def pydantic(field: str) -> dict[str, Any]:
    return {"detail": [{"type": "extra_forbidden", "loc": ["body", field], "msg": "Extra inputs are not permitted"}]}


TOOLS = [{"type": "function", "function": {"name": "get", "parameters": {"type": "object"}}}]
SHAPE = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}}

LEARNED = {
    "OpenAI, by param": (
        refusal("Unsupported parameter", param="max_tokens", code="unsupported_parameter"),
        {"max_tokens": 9},
        ("max_tokens_parameter", "max_completion_tokens"),
    ),
    "OpenAI, by value": (
        refusal("Unsupported value: 'temperature' does not support 0.5. Only the default (1) value is supported."),
        {"temperature": 0.5},
        ("unsupported", ("temperature",)),
    ),
    "Anthropic, two of them": (
        refusal("`temperature` and `top_p` cannot both be specified for this model. Please use only one."),
        {"temperature": 0.5, "top_p": 0.5},
        ("unsupported", ("top_p",)),
    ),
    "Anthropic, deprecated": (
        refusal("`temperature` is deprecated for this model."),
        {"temperature": 0.5},
        ("unsupported", ("temperature",)),
    ),
    "FastAPI, 422": (Whole(pydantic("seed"), status=422), {"seed": 1}, ("unsupported", ("seed",))),
    "Mistral, 422": (
        Whole({"object": "error", "message": pydantic("stop")}, status=422),
        {"stop": ["x"]},
        ("unsupported", ("stop",)),
    ),
    "Gemini": (
        Whole([{"error": {"code": 400, "message": 'Unknown name "seed": Cannot find field.'}}], status=400),
        {"seed": 1},
        ("unsupported", ("seed",)),
    ),
    "Go": (refusal('json: unknown field "seed"'), {"seed": 1}, ("unsupported", ("seed",))),
    "Groq": (refusal("property 'seed' is unsupported"), {"seed": 1}, ("unsupported", ("seed",))),
    "xAI": (refusal("Argument not supported on this model: stop"), {"stop": ["x"]}, ("unsupported", ("stop",))),
    "Python, 500": (
        Whole({"error": "create() got an unexpected keyword argument 'seed'"}, status=500),
        {"seed": 1},
        ("unsupported", ("seed",)),
    ),
    "plain text": (
        Whole(b"seed is not supported", status=400, headers={"content-type": "text/plain"}),
        {"seed": 1},
        ("unsupported", ("seed",)),
    ),
    "Chinese": (refusal("参数 seed 不支持"), {"seed": 1}, ("unsupported", ("seed",))),
    "at most so many": (
        refusal("max_tokens is too large: 4000. This model supports at most 512 completion tokens"),
        {"max_tokens": 4000},
        ("max_output_tokens", 512),
    ),
    "a range": (
        refusal("Range of max_tokens should be [1, 2048]"),
        {"max_tokens": 4000},
        ("max_output_tokens", 2048),
    ),
    "an inequality": (
        refusal("max_tokens: 4000 > 2048, which is the maximum allowed number of output tokens"),
        {"max_tokens": 4000},
        ("max_output_tokens", 2048),
    ),
}


@pytest.mark.parametrize(("reply", "asked", "known"), LEARNED.values(), ids=LEARNED)
async def test_a_refusal_teaches_what_the_server_takes_however_it_is_worded(
    upstream, tmp_path, ask, reply, asked, known
):
    """11-4, its kind: litellm hid each 422, and a limit on `max_tokens` refused every call."""
    gateway = upstream.gateway(tmp_path, upstream.entry(context_window=100_000))
    upstream.say(reply, answer())
    assert (await gateway.generate(ask(**asked))).text == "ok"
    assert len(upstream.requests) == 2
    assert getattr(gateway.learned("remote"), known[0]) == known[1]
    assert upstream.requests[1].get("max_tokens", 0) <= 2048


@pytest.mark.parametrize(
    "reply",
    [
        refusal("Your organization must be verified.", param="stream", code="unsupported_value"),
        refusal("Streaming is not supported with tools"),
        refusal("streaming not implemented", 501),
    ],
)
async def test_a_server_that_does_not_stream_is_asked_for_a_whole_answer(upstream, tmp_path, ask, reply):
    """11-4, its kind."""
    upstream.say(reply, answer())
    stream = await upstream.gateway(tmp_path).stream(ask())
    assert (await stream.read())["choices"][0]["delta"] == {"content": "ok"}
    await stream.close()
    assert "stream" not in upstream.requests[1]


async def test_a_server_that_lowers_its_limit_at_each_call_is_asked_twice(upstream, tmp_path, ask):
    """11-4, its kind: a hostile server could be asked without end."""
    upstream.say(*(refusal(f"max_tokens must be at most {limit}") for limit in range(1000, 900, -1)))
    with pytest.raises(Invalid):
        await upstream.gateway(tmp_path).generate(ask(max_tokens=4000))
    assert len(upstream.requests) == 2


@pytest.mark.parametrize("words", ["temperature must be between 0 and 1", "an unsupported character; seed"])
async def test_a_wrong_value_is_not_left_out_in_silence(upstream, tmp_path, ask, words):
    upstream.say(refusal(words))
    with pytest.raises(Invalid, match=words):
        await upstream.gateway(tmp_path).generate(ask(temperature=1.5))
    assert len(upstream.requests) == 1


LACKS = [
    (refusal("registry.ollama.ai/library/gemma:2b does not support tools"), {"tools": TOOLS}),
    (refusal('"auto" tool choice requires --enable-auto-tool-choice to be set'), {"tools": TOOLS}),
    (refusal("No endpoints found that support tool use.", 404), {"tools": TOOLS}),
    (refusal("This response_format type is unavailable now"), {"response_format": SHAPE}),
    (refusal("'response_format' of type 'json_schema' is not supported with this model."), {"response_format": SHAPE}),
    (refusal("response_format is not supported", 500), {"response_format": SHAPE}),
    (refusal("System role not supported"), {}),
    (refusal("This model does not support image input"), {}),
]


@pytest.mark.parametrize(("reply", "asked"), LACKS, ids=lambda value: str(value)[:60])
async def test_what_a_model_lacks_is_asked_of_the_fallback(servers, upstream, tmp_path, ask, reply, asked):
    """11-8, its kind: it passed for the request's fault, and no other model was asked."""
    upstream.say(reply)
    with pytest.raises(ModelUnavailable, match="lacks what the request needs; choose another model"):
        await upstream.gateway(tmp_path).generate(ask(**asked))
    gateway = upstream.gateway(tmp_path, upstream.entry(fallbacks=("second",)), servers[1].entry("second"))
    assert (await gateway.generate(ask(model="remote", **asked))).text == "from the second"


HTML = Whole(
    b"<html><head><title>413 Too Large</title></head><body><h1>nginx</h1></body></html>",
    status=413,
    headers={"content-type": "text/html"},
)
FAILURES = [
    (refusal("Payment", 402), ModelUnpaid, "requires payment", True),
    (refusal("Insufficient account balance", 403), ModelUnpaid, "requires payment", True),
    (refusal("You have run out of credits", 403), ModelUnpaid, "requires payment", True),
    (refusal("余额不足", 429), ModelUnpaid, "余额不足", True),
    (refusal("Not available in your region", 403), ModelKeyRejected, "account at the provider. .Not available", True),
    (refusal("API key not valid. Please pass a valid API key."), ModelKeyRejected, "set it anew", True),
    (refusal("gone", 410), ModelUnavailable, "does not know 'openai/some-model'", True),
    (Whole(b"", status=405), ModelUnavailable, "does not know 'openai/some-model'", True),
    (refusal("too late", 408), TimedOut, "gave up waiting for its model", True),
    (Whole(b"", status=504), TimedOut, "gave up waiting for its model", True),
    (HTML, ContextTooLong, r"shorten it. \(413 Too Large nginx\)", True),
    (refusal("Requested tokens (5000) exceed context window of 4096"), ContextTooLong, "shorten it", True),
    (refusal("`inputs` tokens + `max_new_tokens` must be <= 4096", 422), ContextTooLong, "shorten it", True),
    (refusal("Output blocked by content filtering policy"), ContentRefused, "refuses this content", False),
    (refusal("DataInspectionFailed"), ContentRefused, "refuses this content", False),
    (refusal("slow down", 429), ModelRateLimited, "try again later", True),
    (refusal("Overloaded", 529, type="overloaded_error"), ModelUnavailable, "did not answer: Overloaded", True),
    (refusal("cannot be processed", 422), Invalid, "refuses the request: cannot be processed", False),
    (Whole({"error": "loading"}), ModelUnavailable, "an error in place of an answer", True),
    (Whole(b"\xff\xfe", status=500), ModelUnavailable, "did not answer", True),
    (refusal("a\nb\x1b[31mc\u202e"), Invalid, r"refuses the request: a b\\x1b\[31mc\\u202e$", False),
]


@pytest.mark.parametrize(("reply", "error", "words", "elsewhere"), FAILURES, ids=lambda value: str(value)[:50])
async def test_each_failure_is_one_line_with_its_cure(servers, upstream, tmp_path, ask, reply, error, words, elsewhere):
    """11-8, its kind: a wrong key, an unpaid bill or a long text passed for the request's fault or a timeout."""
    upstream.say(reply)
    with pytest.raises(error, match=words) as caught:
        await upstream.gateway(tmp_path).generate(ask())
    assert type(caught.value) is error
    assert not [noise for noise in ("litellm", "OpenAIException", "\n", "<h") if noise in caught.value.message]
    gateway = upstream.gateway(tmp_path, upstream.entry(fallbacks=("second",)), servers[1].entry("second"))
    if elsewhere:
        assert (await gateway.generate(ask(model="remote"))).text == "from the second"
    else:
        with pytest.raises(error):
            await gateway.generate(ask(model="remote"))


@pytest.mark.parametrize(
    ("asked", "least", "most"),
    [("0.5", 0.5, 0.5), (None, 3000, 3600), ("-5", 0, 0), ("inf", 1e9, 1e999)],
)
def test_a_pause_is_understood_in_both_forms(asked, least, most):
    """11-8, its kind: a date was ignored, so that a provider that asked for an hour was asked again at once."""
    # Made here: when the tests are collected may be half an hour ago.
    said = asked or formatdate(time.time() + 3600, usegmt=True)
    assert least <= (_seconds(said) or 0) <= most


@pytest.mark.parametrize("asked", ["nan", "soon", ""])
def test_a_pause_that_is_none_is_ignored(asked):
    assert _seconds(asked) is None


@pytest.fixture
def not_a_server() -> Iterator[int]:
    """A port that ends each connection with bytes that are no HTTP."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def run() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(1)
                    connection.sendall(b"SSH-2.0-OpenSSH_9\r\n")

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


@pytest.mark.parametrize("model", ["openai/m", "anthropic/m", "ollama_chat/m"])
async def test_a_server_that_cannot_be_reached_is_named_with_the_cause(upstream, tmp_path, ask, not_a_server, model):
    """11-12, its kind: "Connection error.", without an address or a cause."""
    address = f"https://127.0.0.1:{not_a_server}/v1"
    causes = {"http://127.0.0.1:1/v1": "Connection refused", address: "may have to begin with http://"}
    for base, cause in causes.items():
        gateway = upstream.gateway(tmp_path, upstream.entry(litellm=model, api_base=base))
        with pytest.raises(LlmasosError, match=f"cannot be reached at {base}: .*{cause}") as caught:
            await gateway.generate(ask())
        assert "llmasos models test remote" in caught.value.message
