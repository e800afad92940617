"""Models for programs: `import llmasos` in this process and over a server, with and without asyncio: 11-39."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlmodel import select

import llmasos
from llmasos.client import Client
from llmasos.connection import LocalConnection
from llmasos.gateway.testing import ScriptedProvider, ScriptedReply, scripted_gateway
from llmasos.invocations.tables import InvocationRow
from llmasos.kernel.invocation import Principal
from llmasos.settings import Settings

HELLO = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 50}


@pytest.fixture
def provider() -> ScriptedProvider:
    return ScriptedProvider()


@pytest.fixture
async def served(tmp_path: Path, served_by: Any, provider: ScriptedProvider) -> Any:
    return await served_by(scripted_gateway(tmp_path, provider))


@pytest.fixture(params=["in process", "by a server"])
async def client(request: pytest.FixtureRequest, served: Any) -> AsyncIterator[llmasos.AsyncClient]:
    client = llmasos.AsyncClient(str(served.client.base_url), "all")
    if request.param == "in process":
        client._connection = LocalConnection(served.host, Principal(user="ann"))
        yield client
    else:
        async with client:
            yield client


async def test_a_whole_answer(client: llmasos.AsyncClient, provider: ScriptedProvider) -> None:
    provider.say(ScriptedReply(("Good day",), usage=(4, 2)))
    answer = await client.generate_text("hello", max_tokens=50)
    assert (answer.text, answer.usage.prompt_tokens, answer.usage.completion_tokens) == ("Good day", 4, 2)


async def test_a_stream_comes_in_pieces(client: llmasos.AsyncClient, provider: ScriptedProvider) -> None:
    provider.say(ScriptedReply(("Good\u2028", " day"), usage=(4, 2)))
    assert [piece async for piece in client.stream("hello")] == ["Good\u2028", " day"]


async def test_a_stream_that_is_given_up_ends_the_generation(
    client: llmasos.AsyncClient, provider: ScriptedProvider, served: Any
) -> None:
    provider.say(ScriptedReply(tuple("abcdefghij"), delay_seconds=0.1))
    pieces = client.stream("hello")
    assert await anext(pieces) == "a"
    await pieces.aclose()
    await served.until(lambda: provider.running == 0)

    def ended() -> bool:
        with served.host.database.read() as session:
            return {row.status for row in session.exec(select(InvocationRow))} == {"cancelled"}

    await served.until(ended)
    assert (await kept(served))["shown"].startswith("a")


async def kept(served: Any) -> Any:
    [found] = (await served.client.get("/api/v1/invocations")).json()["items"]
    return (await served.client.get(f"/api/v1/invocations/{found['id']}/content")).json()


async def test_what_a_program_asked_and_was_answered_is_kept(
    client: llmasos.AsyncClient, provider: ScriptedProvider, served: Any
) -> None:
    """12-5, 11-23."""
    provider.say(ScriptedReply(("Good day",), usage=(4, 2)))
    await client.generate_text("hello", max_tokens=50)
    found = await kept(served)
    assert found["input"]["messages"][-1]["content"] == "hello"
    assert found["output"]["choices"][0]["message"]["content"] == "Good day"


async def test_the_text_of_a_stream_is_kept(
    client: llmasos.AsyncClient, provider: ScriptedProvider, served: Any
) -> None:
    """12-5, 11-23."""
    provider.say(ScriptedReply(("Good", " day"), usage=(4, 2)))
    assert [piece async for piece in client.stream("hello")] == ["Good", " day"]
    assert (await kept(served))["output"] == "Good day"


async def test_embeddings(client: llmasos.AsyncClient) -> None:
    assert (await client.embed("abc")).vectors == ((3.0, 0.0, 0.0, 1.0),)


async def test_errors_are_those_of_the_package(client: llmasos.AsyncClient, provider: ScriptedProvider) -> None:
    for work in (client.generate_text("hello", engine="none"), anext(client.stream("hello", engine="none"))):
        with pytest.raises(llmasos.NotFound):
            await work
    with pytest.raises(llmasos.Invalid):
        await client.generate_text("hello", temperature=7)


async def test_a_program_without_asyncio_has_the_same(served: Any, provider: ScriptedProvider) -> None:
    provider.say(ScriptedReply(("one", "two")), ScriptedReply(("three",)))
    settings = Settings(url=str(served.client.base_url), token="all")

    def program() -> tuple[list[str], str]:
        with Client(settings) as client:
            return list(client.stream("hello")), client.generate_text("hello").text

    assert await asyncio.to_thread(program) == (["one", "two"], "three")


async def test_an_openai_client_reads_the_stream(served: Any, provider: ScriptedProvider) -> None:
    provider.say(ScriptedReply(("a", "b"), usage=(4, 2)))
    answer = await served.client.post("/v1/chat/completions", json={**HELLO, "stream": True})
    assert answer.headers["content-type"].startswith("text/event-stream")
    lines = [line for line in answer.text.split("\n") if line]
    assert lines[-1] == "data: [DONE]"
    assert all(line.startswith("data: ") for line in lines)


@pytest.mark.parametrize("stream", [True, False])
async def test_what_is_refused_is_a_problem_document(served: Any, stream: bool) -> None:
    for value, status in (({**HELLO, "temprature": 1}, 422), ({**HELLO, "model": "none"}, 404)):
        answer: httpx.Response = await served.client.post("/v1/chat/completions", json={**value, "stream": stream})
        assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")


async def test_a_token_that_is_bound_to_apps_asks_no_model(served: Any) -> None:
    headers = {"authorization": "Bearer bounded"}
    answer = await served.client.post("/v1/chat/completions", json=HELLO, headers=headers)
    assert answer.json()["code"] == "scope-missing"


def test_a_notebook_completes_every_name_before_it_is_imported() -> None:
    code = "import llmasos; print(set(llmasos.__all__) <= set(dir(llmasos)), llmasos.QuotaExceeded.__name__)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert told == "True QuotaExceeded\n"
