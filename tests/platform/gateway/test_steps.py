"""Plugins around a model call, through the real litellm: select, tune, guard, cache."""

from types import SimpleNamespace

import pytest

import llmasos_pii_redactor as redactor
from llmasos.errors import Denied
from llmasos.gateway.models import Price
from llmasos.gateway.routing import Choice
from llmasos.gateway.steps import ModelCaller
from llmasos.gateway.testing import ScriptedReply, scripted_entry, scripted_gateway
from llmasos.hooks import hookimpl
from llmasos.plugins import Plugins

REMOTE = scripted_entry("remote", goes_to="elsewhere")


@pytest.fixture
def with_plugin(tmp_path, provider):
    def register(plugin, *entries):
        plugins = Plugins()
        plugins.register("tried", plugin)
        priced = scripted_entry("priced", tier="balanced", price=Price(input=1_000_000, output=2_000_000))
        return scripted_gateway(tmp_path, provider, scripted_entry(), priced, REMOTE, *entries, steps=plugins)

    return register


def plugin(**functions):
    return SimpleNamespace(**{name: hookimpl(function) for name, function in functions.items()})


def tool_call(arguments):
    return {"id": "1", "type": "function", "function": {"name": "send", "arguments": arguments}}


async def read_all(stream):
    parts = []
    while (part := await stream.read()) is not None:
        parts.append(part)
    await stream.close()
    return parts


async def test_a_plugin_chooses_the_model_and_sets_what_was_left_open(with_plugin, provider, ask):
    chosen = plugin(
        select_model=lambda models: Choice(models["priced"]),
        tune_parameters=lambda request: request.model_copy(update={"temperature": 0.25}),
    )
    answer = await with_plugin(chosen).generate(ask())
    assert answer.value["model"] == "priced"
    assert provider.requests[0]["temperature"] == 0.25


async def test_a_guard_refuses_before_anything_is_sent(with_plugin, provider, ask):
    def refuse(call):
        raise Denied(f"not for {call.app}")

    gateway = with_plugin(plugin(before_model_call=refuse))
    with pytest.raises(Denied, match="not for acme/a"):
        gateway.plan(ask(), caller=ModelCaller(app="acme/a"))
    assert provider.requests == []


async def test_personal_data_does_not_reach_a_remote_model_and_comes_back_in_the_answer(with_plugin, provider, ask):
    provider.say("Dear [EMAIL_1], thank you.")
    answer = await with_plugin(redactor).generate(ask("write to ada@example.com", model="remote"))
    assert "ada@example.com" not in str(provider.requests)
    assert answer.text == "Dear ada@example.com, thank you."


async def test_a_local_model_with_a_remote_stand_in_counts_as_remote(with_plugin, provider, ask):
    gateway = with_plugin(redactor, scripted_entry("near", fallbacks=("remote",)))
    await gateway.generate(ask("write to ada@example.com", model="near"))
    assert "ada@example.com" not in str(provider.requests)


async def test_a_streamed_answer_is_filtered_across_its_parts(with_plugin, provider, ask):
    provider.say(ScriptedReply(("Dear [EM", "AIL_", "1], thank you."), tool_calls=(tool_call('{"to": "[EMAIL_1]"}'),)))
    gateway = with_plugin(redactor)
    parts = await read_all(await gateway.stream(ask("write to ada@example.com", model="remote")))
    deltas = [part["choices"][0]["delta"] for part in parts]
    assert "".join(delta.get("content") or "" for delta in deltas) == "Dear ada@example.com, thank you."
    (call,) = [call for delta in deltas for call in delta.get("tool_calls") or ()]
    assert call["function"] == {"name": "send", "arguments": '{"to": "ada@example.com"}'}
    assert parts[-1]["usage"]["completion_tokens"] == 2


async def test_an_equal_call_is_answered_from_memory_for_the_same_app_alone(with_plugin, provider, ask):
    gateway = with_plugin(plugin(cache_key=lambda call: str(call.request.messages)))
    first = await gateway.generate(gateway.plan(ask(), caller=ModelCaller(app="acme/a")))
    again = await gateway.generate(gateway.plan(ask(), caller=ModelCaller(app="acme/a")))
    assert (again.text, again.used.tokens, again.value["llmasos"]["cached"]) == (first.text, 0, True)
    await gateway.generate(gateway.plan(ask(), caller=ModelCaller(app="acme/b")))
    assert len(provider.requests) == 2


async def test_without_a_key_nothing_is_cached(gateway, provider, ask):
    await gateway.generate(ask())
    await gateway.generate(ask())
    assert len(provider.requests) == 2
