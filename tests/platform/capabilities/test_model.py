"""The model capability and its grants."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from capability_calls import prepared

from llmasos.bundles.manifest import LocalisedText, ModelPermission, StoragePermission
from llmasos.capabilities.model import ModelCapability
from llmasos.errors import Denied, Invalid, PermissionNotGranted
from llmasos.gateway.testing import ScriptedProvider, ScriptedReply, scripted_entry, scripted_gateway
from llmasos.kernel.capability import Capability
from llmasos.kernel.invocation import Event, InstalledApp, Invocation, Principal
from llmasos.quotas.meters import Demand, Meter

REASON = LocalisedText(en="It is the point of the app.")


@pytest.fixture
def provider() -> ScriptedProvider:
    return ScriptedProvider()


@pytest.fixture
def capability(tmp_path: Path, provider: ScriptedProvider) -> ModelCapability:
    return ModelCapability(scripted_gateway(tmp_path, provider))


def invocation(locale: str = "en", events: list[Event] | None = None, **grant) -> Invocation:
    permission = ModelPermission(capability="model", reason=REASON, **grant)
    app = InstalledApp("acme/app", "1.0.0", "i1", {"model": permission}, frozenset({"model"}))

    async def emit(event: Event) -> None:
        if events is not None:
            events.append(event)

    return Invocation(Principal(locale=locale), app, "act", emit=emit)


def request(text: str = "hello", **fields) -> list[str]:
    return [json.dumps({"messages": [{"role": "user", "content": text}], **fields})]


async def run(capability: ModelCapability, caller: Invocation, function: str, arguments: list):
    call = prepared(capability, caller, function, arguments)
    return await call.execute(call.demand)


def test_it_is_a_capability(capability):
    assert isinstance(capability, Capability)


async def test_generate_works_when_its_tier_is_granted(capability, provider):
    provider.say(ScriptedReply(("Good day",), usage=(4, 2)))
    outcome = await run(capability, invocation(tiers=("fast",)), "generate", request())
    answer = outcome.answer
    assert answer["choices"][0]["message"]["content"] == "Good day"
    assert answer["llmasos"] == {"notices": [], "cost_micro_usd": 0}
    assert (outcome.used.prompt_tokens, outcome.used.completion_tokens, outcome.used.model) == (4, 2, "scripted")


async def test_a_stream_gives_chunks(capability, provider):
    provider.say(ScriptedReply(("a", "b"), usage=(4, 2)))
    outcome = await run(capability, invocation(tiers=("fast",)), "open", request())
    parts = []
    while (part := await outcome.stream.read()) is not None:
        parts.append(part)
    await outcome.stream.close()
    assert "".join(part["choices"][0]["delta"].get("content", "") for part in parts) == "ab"
    assert parts[-1]["usage"]["total_tokens"] == 6
    assert outcome.stream.used.prompt_tokens == 4


async def test_embeddings_work_when_granted_and_only_then(capability):
    arguments = [json.dumps({"input": ["abc"]})]
    outcome = await run(
        capability, invocation(embeddings=True, models=("scripted-embedding",), tiers=()), "embed", arguments
    )
    assert outcome.answer["data"][0]["embedding"] == [3.0, 0.0, 0.0, 1.0]
    with pytest.raises(PermissionNotGranted, match="embeddings = true"):
        prepared(capability, invocation(tiers=("fast",)), "embed", arguments)


async def test_tokens_are_counted_without_a_demand(capability):
    operation = prepared(capability, invocation(tiers=("fast",)), "count-tokens", ["The sea is blue."])
    assert operation.demand.is_empty
    assert (await operation.execute(operation.demand)).answer == 5


@pytest.mark.parametrize("fields", [{"tier": "best"}, {"model": "priced"}, {"model": "does-not-exist"}])
def test_what_the_grant_does_not_reach_is_denied_and_nothing_is_revealed(capability, fields):
    with pytest.raises(Denied) as caught:
        prepared(capability, invocation(tiers=("fast",)), "generate", request(**fields))
    assert "[[permissions]]" in caught.value.message
    assert "no model" not in caught.value.message.lower()


def test_a_grant_of_another_kind_is_denied(capability):
    app = InstalledApp(
        "acme/app", "1.0.0", "i1", {"model": StoragePermission(capability="storage", reason=REASON)}, frozenset()
    )
    with pytest.raises(PermissionNotGranted):
        prepared(capability, Invocation(Principal(), app, "act"), "generate", request())


def test_a_grant_for_embeddings_alone_does_not_generate(capability):
    with pytest.raises(PermissionNotGranted):
        prepared(capability, invocation(embeddings=True), "generate", request())


async def test_a_model_that_is_granted_by_name_is_used_first(capability):
    outcome = await run(capability, invocation(models=("priced",)), "generate", request())
    assert outcome.answer["model"] == "priced"


async def test_the_grant_bounds_the_answer_and_the_reservation_shrinks_it(capability, provider):
    operation = prepared(
        capability, invocation(tiers=("fast",), max_output_tokens=50), "generate", request(max_tokens=500)
    )
    assert operation.demand.shrink.tokens == 50
    tokens = operation.demand.amounts[Meter.TOKENS]
    await operation.execute(operation.demand)
    await operation.execute(Demand({Meter.TOKENS: tokens - 30}))
    assert [asked["max_tokens"] for asked in provider.requests] == [50, 20]


def test_without_an_app_the_user_may_use_every_model(capability):
    caller = Invocation(Principal(), None, "api")
    assert prepared(capability, caller, "generate", request(model="priced")).demand.model == "priced"


@pytest.mark.parametrize(
    ("locale", "text"), [("en", "not fit for translation: the answer may be wrong"), ("zh", "不适合翻译")]
)
@pytest.mark.parametrize("function", ["generate", "open"])
async def test_a_model_outside_its_fit_says_so_in_the_callers_language(tmp_path, provider, locale, text, function):
    small = scripted_entry(tasks=("chat",), languages=("en",))
    capability = ModelCapability(scripted_gateway(tmp_path, provider, small))
    events: list[Event] = []
    caller = invocation(locale, events, tiers=("fast",))
    outcome = await run(capability, caller, function, request(task="translate"))
    if outcome.stream is not None:
        while await outcome.stream.read() is not None:
            pass
        await outcome.stream.close()
    assert [event.kind for event in events] == ["notice"]
    assert text in events[0].text


def test_the_audit_keeps_no_contents(capability):
    detail = prepared(capability, invocation(tiers=("fast",)), "generate", request("my secret")).detail
    assert "my secret" not in json.dumps(dict(detail))
    assert detail["model"] == "scripted"


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        ("generate", []),
        ("generate", [5]),
        ("generate", ["not json"]),
        ("generate", ["[]"]),
        ("generate", ['{"messages": []}']),
        ("generate", ['{"messages": [{"role": "wizard", "content": "x"}]}']),
        ("generate", ['{"messages": [{"role": "user", "content": "x"}], "temprature": 1}']),
        ("open", ['{"messages": [{"role": "user", "content": "x"}], "max_tokens": 0}']),
        ("embed", ['{"input": []}']),
        ("count-tokens", [None]),
    ],
)
def test_a_request_that_is_not_the_contracts_is_refused(capability, function, arguments):
    with pytest.raises(Invalid):
        prepared(capability, invocation(tiers=("fast",), embeddings=True), function, arguments)
