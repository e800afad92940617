"""Model calls that fail after the provider responded: what the provider used is charged anyway."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlmodel import select

from llmasos.bundles.manifest import LocalisedText, ModelPermission
from llmasos.capabilities.model import Embed, ModelCapability
from llmasos.database.engine import Database
from llmasos.errors import Denied, LlmasosError
from llmasos.gateway.engine import Engine
from llmasos.gateway.gateway import Gateway
from llmasos.gateway.guard import TextFilter
from llmasos.gateway.registry import ModelRegistry
from llmasos.gateway.request import EmbedRequest
from llmasos.gateway.steps import ModelCall, PlainSteps
from llmasos.gateway.testing import SCRIPTED, ScriptedProvider, ScriptedReply, scripted_entry
from llmasos.kernel.invocation import Event, EventSink, InstalledApp, Invocation, Principal, discard
from llmasos.kernel.limits import MAX_STREAMS
from llmasos.quotas import service
from llmasos.quotas.meters import Meter, Scope, Window
from llmasos.quotas.service import QuotaName
from llmasos.quotas.tables import LedgerWindow, UsageDay
from llmasos.testing import SmallHost, small_host

PERMISSION = ModelPermission(
    capability="model", tiers=("fast",), embeddings=True, reason=LocalisedText(en="for the test")
)
APP = InstalledApp("acme/one", "1.0", "i1", {"model": PERMISSION}, frozenset({"model"}))
ASKED = [json.dumps({"messages": [{"role": "user", "content": "hello"}], "max_tokens": 50})]
# A model that is not fit for the task says so, which is an event.
UNFIT = [json.dumps({"messages": [{"role": "user", "content": "hello"}], "max_tokens": 50, "task": "translate"})]


class Refusing:
    """A guard that refuses every answer."""

    def feed(self, _text: str) -> str:
        raise Denied("The answer is not for this app.")

    def finish(self) -> str:
        return ""


class Guarded(PlainSteps):
    refuse = False

    def after(self, _call: ModelCall) -> list[TextFilter]:
        return [Refusing()] if self.refuse else []


@pytest.fixture
def provider() -> ScriptedProvider:
    return ScriptedProvider()


@pytest.fixture
def steps() -> Guarded:
    return Guarded()


@pytest.fixture
def database(database: Database) -> Database:
    with database.write() as session:
        name = QuotaName("default", Scope.APP, APP.id, Meter.TOKENS, Window.DAY)
        service.set_quota(session, lambda event, detail: None, name, 100_000)
    return database


@pytest.fixture
def capability(tmp_path: Path, provider: ScriptedProvider, steps: Guarded) -> ModelCapability:
    models = (scripted_entry(tasks=("chat",), languages=("en",)), scripted_entry("vectors", kind="embedding"))
    return ModelCapability(Gateway(ModelRegistry(tmp_path, extra=models), Engine({SCRIPTED: provider}), steps=steps))


@pytest.fixture
async def host(database: Database, capability: ModelCapability) -> AsyncIterator[SmallHost]:
    async with small_host(database, capability) as host:
        yield host


async def call(host: SmallHost, function: str, arguments: list[str], emit: EventSink = discard) -> object:
    async with host.invocations.open(Principal(), APP, "act", emit=emit) as invocation:
        return await host.guest(invocation, "model", function, arguments)


def charged(database: Database) -> tuple[int, int, int]:
    """Used and reserved of the quota, and the tokens of the day."""
    database.write_queue.submit(lambda transaction: None).result()
    with database.read() as session:
        window = session.exec(select(LedgerWindow)).one()
        day = session.exec(select(UsageDay).where(UsageDay.model != "")).all()
        return window.used, window.reserved, sum(row.prompt_tokens + row.completion_tokens for row in day)


async def gone(_event: Event) -> None:
    raise ConnectionResetError("the caller hung up")


@pytest.mark.parametrize("function", ["generate", "open"])
async def test_an_answer_whose_caller_hung_up_is_charged(host, database, provider, function) -> None:
    provider.say(ScriptedReply(("Good day",), usage=(4, 2)))
    with pytest.raises(LlmasosError):
        await call(host, function, UNFIT, gone)
    used, reserved, of_day = charged(database)
    # A stream that is closed before its end is counted by the host, what a whole answer used the provider told.
    assert used == of_day == 6 if function == "generate" else used == of_day > 0
    assert reserved == 0
    assert provider.running == 0


async def test_an_answer_that_a_guard_refuses_is_charged(host, database, provider, steps) -> None:
    steps.refuse = True
    provider.say(ScriptedReply(("Good day",), usage=(40, 20)))
    with pytest.raises(Denied):
        await call(host, "generate", ASKED)
    assert charged(database) == (60, 0, 60)


async def test_a_call_that_is_cancelled_after_the_answer_is_charged(host, database, provider) -> None:
    answered = asyncio.Event()

    async def slow(_event: Event) -> None:
        answered.set()
        await asyncio.sleep(60)

    provider.say(ScriptedReply(("Good day",), usage=(40, 20)))
    task = asyncio.create_task(call(host, "generate", UNFIT, slow))
    await answered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert charged(database) == (60, 0, 60)


@pytest.mark.parametrize("function", ["generate", "open"])
async def test_a_call_that_is_cancelled_before_its_provider_reports_is_charged_its_reservation(
    host, database, provider, function
) -> None:
    """11-S6: a caller who disconnected from a call that was not streamed was charged 0 (10,025 were used)."""
    provider.say(ScriptedReply(("Good day",), usage=(40, 20), delay_seconds=30))
    task = asyncio.create_task(call(host, function, ASKED))
    while not provider.running:  # noqa: ASYNC110 - the provider gives no event
        await asyncio.sleep(0.01)
    reserved = charged(database)[1]
    assert reserved > 60
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert charged(database) == (reserved, 0, reserved)


async def test_a_call_that_never_reached_an_answer_is_not_charged(host, database, provider) -> None:
    provider.say(ScriptedReply((), error=ConnectionError("no route")))
    with pytest.raises(LlmasosError):
        await call(host, "generate", ASKED)
    assert charged(database) == (0, 0, 0)


async def test_a_stream_too_many_is_closed_and_what_it_said_is_charged(host, database, provider) -> None:
    provider.say(ScriptedReply(("a", "b"), usage=(4, 2)))
    async with host.invocations.open(Principal(), APP, "act") as invocation:
        for _ in range(MAX_STREAMS):
            await host.guest(invocation, "model", "open", ASKED)
        before = charged(database)[0]
        with pytest.raises(LlmasosError, match="streams are open"):
            await host.guest(invocation, "model", "open", ASKED)
        assert charged(database)[0] > before
    assert charged(database)[1] == 0


async def test_embeddings_know_what_they_used(capability) -> None:
    call = capability.prepare(Invocation(Principal(), APP, "act"), Embed(EmbedRequest(input=["abc", "d"])))
    assert call.used(call.demand).tokens == 0
    await call.execute(call.demand)
    assert call.used(call.demand).tokens == 2
