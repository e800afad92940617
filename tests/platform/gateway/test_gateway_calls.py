"""One call through the gateway, with a scripted provider behind the real litellm."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from llmasos.errors import Invalid, ModelUnavailable, NotFound
from llmasos.gateway.models import Price
from llmasos.gateway.request import EmbedRequest
from llmasos.gateway.testing import ScriptedReply, scripted_entry, scripted_gateway
from llmasos.quotas.meters import Demand, Meter

TOOL_CALL = {"id": "call_1", "type": "function", "function": {"name": "look_up", "arguments": '{"word": "sea"}'}}


async def parts_of(stream) -> list[dict]:
    parts = []
    while (part := await stream.read()) is not None:
        parts.append(part)
    await stream.close()
    return parts


async def test_an_answer_is_a_chat_completion_with_exact_usage_and_cost(gateway, provider, ask):
    provider.say(ScriptedReply(("Good ", "day"), usage=(10, 7)))
    answer = await gateway.generate(ask(model="priced"))
    assert answer.value["object"] == "chat.completion"
    assert answer.value["model"] == "priced"
    assert answer.text == "Good day"
    assert answer.value["usage"] == {"prompt_tokens": 10, "completion_tokens": 7, "total_tokens": 17}
    assert answer.value["llmasos"] == {"notices": [], "cost_micro_usd": 24}
    assert (answer.used.prompt_tokens, answer.used.completion_tokens, answer.used.cost_micro_usd) == (10, 7, 24)


async def test_the_parameters_of_the_request_reach_the_model(gateway, provider, ask):
    await gateway.generate(ask(temperature=0.1, top_p=0.5, seed=7, stop=["END"], max_tokens=9))
    asked = provider.requests[0]
    assert (asked["temperature"], asked["top_p"], asked["seed"], asked["stop"]) == (0.1, 0.5, 7, ["END"])
    assert asked["max_tokens"] == 9


async def test_a_streamed_answer_comes_in_parts_and_ends_with_its_usage(gateway, provider, ask):
    provider.say(ScriptedReply(("a", "b", "c"), usage=(5, 3)))
    stream = await gateway.stream(ask())
    parts = await parts_of(stream)
    assert [part["choices"][0]["delta"].get("content") for part in parts] == ["a", "b", "c", None]
    assert [part["choices"][0]["finish_reason"] for part in parts] == [None, None, None, "stop"]
    assert parts[-1]["usage"]["total_tokens"] == 8
    assert (stream.used.prompt_tokens, stream.used.completion_tokens) == (5, 3)


async def test_tool_calls_arrive_whole_and_streamed(gateway, provider, ask):
    provider.say(ScriptedReply((), tool_calls=(TOOL_CALL,), finish_reason="tool_calls"))
    tools = [{"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}]
    answer = await gateway.generate(ask(tools=tools))
    choice = answer.value["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["tool_calls"][0]["function"] == TOOL_CALL["function"]
    parts = await parts_of(await gateway.stream(ask(tools=tools)))
    assert parts[0]["choices"][0]["delta"]["tool_calls"][0]["function"] == TOOL_CALL["function"]
    assert parts[-1]["choices"][0]["finish_reason"] == "tool_calls"
    assert provider.requests[0]["tools"] == tools


@pytest.mark.parametrize("streamed", [False, True])
async def test_usage_that_the_provider_does_not_tell_is_counted_and_flagged(gateway, provider, ask, streamed):
    provider.say(ScriptedReply(("The lighthouse stands on a rock in the sea.",), usage=None))
    if streamed:
        last = (await parts_of(await gateway.stream(ask("Tell me of the sea."))))[-1]
    else:
        last = (await gateway.generate(ask("Tell me of the sea."))).value
    assert last["llmasos"]["usage_estimated"] is True
    assert 5 <= last["usage"]["prompt_tokens"] <= 10
    assert 8 <= last["usage"]["completion_tokens"] <= 12


async def test_cut_json_carries_a_notice(gateway, provider, ask):
    provider.say(ScriptedReply(('{"label": "bil',), finish_reason="length"))
    shape = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}
    answer = await gateway.generate(ask(response_format=shape, max_tokens=5))
    assert "not complete" in answer.value["llmasos"]["notices"][0]
    assert "5 tokens" in answer.value["llmasos"]["notices"][0]


async def test_embeddings_come_in_order_with_usage(gateway):
    answer = await gateway.embed(EmbedRequest(input=["a", "bcd"], model="scripted-embedding"))
    assert [row["embedding"][0] for row in answer.value["data"]] == [1.0, 3.0]
    assert answer.value["model"] == "scripted-embedding"
    assert answer.used.prompt_tokens == 2


async def test_closing_a_stream_stops_the_generation_and_counts_what_was_said(gateway, provider, ask):
    provider.say(ScriptedReply(tuple("word " for _ in range(1000)), delay_seconds=0.01))
    stream = await gateway.stream(ask())
    for _ in range(3):
        await stream.read()
    await stream.close()
    await stream.close()
    assert provider.cancelled == 1
    assert provider.running == 0
    assert 1 <= stream.used.completion_tokens <= 6
    assert await stream.read() is None


async def test_cancelling_a_call_stops_the_generation(gateway, provider, ask):
    provider.say(ScriptedReply(("late",), delay_seconds=30))
    task = asyncio.create_task(gateway.generate(ask()))
    async with asyncio.timeout(10):
        while not provider.running:  # noqa: ASYNC110 - the provider is not told of tests
            await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert provider.cancelled == 1


async def test_no_more_calls_run_at_once_than_the_model_takes(tmp_path: Path, provider, ask):
    provider.say(ScriptedReply(("x",), delay_seconds=0.02))
    gateway = scripted_gateway(tmp_path, provider, scripted_entry(max_concurrency=2))
    await asyncio.gather(*(gateway.generate(ask()) for _ in range(6)), parts_of(await gateway.stream(ask())))
    assert provider.most_running == 2


async def test_a_model_of_the_wrong_kind_or_name_is_refused(gateway, ask):
    with pytest.raises(Invalid, match="is for embeddings"):
        gateway.plan(ask(model="scripted-embedding"))
    with pytest.raises(NotFound, match="did you mean 'scripted'"):
        gateway.plan(ask(model="scriptd"))


async def test_a_missing_key_is_named_with_its_cure(tmp_path: Path, provider, ask, monkeypatch):
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    gateway = scripted_gateway(tmp_path, provider, scripted_entry(key="env:NO_SUCH_KEY"))
    with pytest.raises(ModelUnavailable, match="set the environment variable NO_SUCH_KEY"):
        await gateway.generate(ask())


def test_the_demand_bounds_every_model_that_may_answer(tmp_path: Path, provider, ask):
    cheap = scripted_entry("cheap", price=Price(input=1_000_000, output=1_000_000), fallbacks=("dear",))
    dear = scripted_entry("dear", price=Price(input=2_000_000, output=10_000_000))
    gateway = scripted_gateway(tmp_path, provider, cheap, dear)
    plan = gateway.plan(ask("海" * 10, model="cheap", max_tokens=100))
    demand = plan.demand
    assert demand.model == "cheap"
    assert plan.prompt_tokens >= 30
    assert demand.amounts[Meter.TOKENS] == plan.prompt_tokens + 100
    assert demand.amounts[Meter.COST] == 2 * plan.prompt_tokens + 1000
    assert demand.shrink is not None and (demand.shrink.tokens, demand.shrink.floor) == (100, 16)
    assert plan.granted_tokens(Demand({Meter.TOKENS: plan.prompt_tokens + 20})) == 20


def test_an_unknown_price_is_reported_and_is_not_zero(tmp_path: Path, provider, ask):
    gateway = scripted_gateway(tmp_path, provider, scripted_entry(price=None))
    demand = gateway.plan(ask()).demand
    assert demand.unknown_price
    assert Meter.COST not in demand.amounts
