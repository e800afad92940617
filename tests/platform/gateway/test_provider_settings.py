"""Settings and parameters that a provider refuses, and the cause that the error names."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.platform.gateway.streams import read_all, told
from upstream import Upstream, Whole, answer, serving

from llmasos.errors import Invalid, ModelUnavailable
from llmasos.gateway.failures import ContextTooLong
from llmasos.gateway.gateway import Gateway


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with serving() as upstream:
        yield upstream


@pytest.fixture
def gateway(upstream: Upstream, tmp_path: Path) -> Gateway:
    return upstream.gateway(tmp_path)


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
