"""Failures of a provider: a real server with the OpenAI interface on loopback."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from llmasos.errors import Invalid, ModelUnavailable, TimedOut
from llmasos.gateway.failures import ContentRefused, ContextTooLong, ModelKeyRejected, ModelRateLimited

FAILURES = [
    (401, {"message": "Incorrect API key provided: sk-secret-1", "code": "invalid_api_key"}, ModelKeyRejected),
    (403, {"message": "not for you"}, ModelKeyRejected),
    (429, {"message": "Rate limit reached"}, ModelRateLimited),
    (
        400,
        {"message": "This model's maximum context length is 10 tokens", "code": "context_length_exceeded"},
        ContextTooLong,
    ),
    (400, {"message": "rejected by our safety system", "code": "content_policy_violation"}, ContentRefused),
    (400, {"message": "temperature is too hot"}, Invalid),
    (404, {"message": "The model some-model does not exist"}, ModelUnavailable),
    (500, {"message": "oops"}, ModelUnavailable),
    (503, {"message": "overloaded"}, ModelUnavailable),
]


@pytest.mark.parametrize(("status", "error", "expected"), FAILURES)
@pytest.mark.parametrize("streamed", [False, True])
async def test_each_failure_of_a_provider_is_one_error_of_ours(
    server, tmp_path, ask, monkeypatch, status, error, expected, streamed
):
    monkeypatch.setenv("REMOTE_KEY", "sk-secret-1")
    server.failures = [(status, error, {})]
    gateway = server.gateway(tmp_path, server.entry(key="env:REMOTE_KEY"))
    with pytest.raises(expected) as caught:
        await (gateway.stream(ask()) if streamed else gateway.generate(ask()))
    assert type(caught.value) is expected
    assert "remote" in caught.value.message
    assert "sk-secret-1" not in caught.value.message
    assert "\n" not in caught.value.message
    assert len(server.requests) == 1


async def test_an_answer_and_its_cost_come_from_the_server(server, tmp_path, ask):
    answer = await server.gateway(tmp_path).generate(ask())
    assert answer.text == "Good day"
    assert answer.used.cost_micro_usd == 11 + 3 * 4


@pytest.mark.parametrize("told", [True, False])
async def test_a_stream_uses_the_reported_usage_or_else_counts(server, tmp_path, ask, told):
    server.usage = told
    stream = await server.gateway(tmp_path).stream(ask())
    parts = []
    while (part := await stream.read()) is not None:
        parts.append(part)
    await stream.close()
    assert "".join(part["choices"][0]["delta"].get("content", "") for part in parts) == "Good day"
    assert parts[-1]["llmasos"].get("usage_estimated", False) is not told
    assert (stream.used.prompt_tokens == 11) is told


async def test_a_passing_failure_is_tried_again(server, tmp_path, ask):
    server.failures = [(503, {"message": "overloaded"}, {}), (429, {"message": "slow down"}, {"retry-after": "0.1"})]
    answer = await server.gateway(tmp_path, server.entry(retries=2)).generate(ask())
    assert answer.text == "Good day"
    assert len(server.requests) == 3


async def test_a_long_pause_that_the_provider_asks_for_is_not_waited_out(server, tmp_path, ask):
    server.failures = [(429, {"message": "slow down"}, {"retry-after": "3600"})]
    with pytest.raises(ModelRateLimited):
        await asyncio.wait_for(server.gateway(tmp_path, server.entry(retries=3)).generate(ask()), 10)


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_fallback_answers_if_the_first_model_fails_and_a_notice_says_so(server, tmp_path, ask, streamed):
    server.failures = [(500, {"message": "oops"}, {})]
    first = server.entry(fallbacks=("second",))
    gateway = server.gateway(tmp_path, first, server.entry(name="second"))
    if streamed:
        stream = await gateway.stream(ask(model="remote"))
        while (part := await stream.read()) is not None:
            last = part
        await stream.close()
        used = stream.used
    else:
        answer = await gateway.generate(ask(model="remote"))
        last, used = answer.value, answer.used
    assert last["model"] == "second"
    assert used.model == "second"
    assert last["llmasos"]["notices"] == ["remote did not answer; second did."]


async def test_a_request_at_fault_is_not_asked_of_another_model(server, tmp_path, ask):
    server.failures = [(400, {"message": "temperature is too hot"}, {})]
    gateway = server.gateway(tmp_path, server.entry(fallbacks=("second",)), server.entry(name="second"))
    with pytest.raises(Invalid, match="too hot"):
        await gateway.generate(ask(model="remote"))
    assert len(server.requests) == 1


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_silent_provider_is_given_up_in_time(server, tmp_path, ask, streamed):
    server.delay_seconds = 3
    gateway = server.gateway(tmp_path, server.entry(timeout_seconds=0.5))
    with pytest.raises(TimedOut, match=r"within 0.5 s"):
        if streamed:
            stream = await gateway.stream(ask())
            try:
                while await stream.read():
                    pass
            finally:
                await stream.close()
        else:
            await gateway.generate(ask())


async def test_closing_a_stream_ends_the_connection(server, tmp_path, ask):
    server.parts, server.delay_seconds = ["word "] * 500, 0.01
    stream = await server.gateway(tmp_path).stream(ask())
    await stream.read()
    await stream.close()
    assert await asyncio.to_thread(server.broken_off.wait, 5)
    assert stream.used.completion_tokens >= 1


async def test_an_address_without_a_server_is_a_clear_error(tmp_path, server, ask):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        gateway = server.gateway(tmp_path, server.entry(api_base=f"http://127.0.0.1:{port}/v1"))
        with pytest.raises(ModelUnavailable, match="llmasos models test remote"):
            await gateway.generate(ask())


async def test_a_key_of_the_environment_is_not_sent_to_another_server(server, tmp_path, ask, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-for-somebody-else")
    await server.gateway(tmp_path).generate(ask())
    assert server.keys == ["Bearer none"]


async def test_embeddings_of_a_server(server, tmp_path: Path):
    from llmasos.gateway.request import EmbedRequest

    gateway = server.gateway(tmp_path, server.entry(kind="embedding"))
    answer = await gateway.embed(EmbedRequest(input=["a", "b"]))
    assert [row["embedding"] for row in answer.value["data"]] == [[0.5, 0.5], [0.5, 0.5]]
    assert (answer.used.prompt_tokens, answer.used.cost_micro_usd) == (4, 4)
