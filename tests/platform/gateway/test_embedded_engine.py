"""The embedded engine's process: how it ends, its confinement, and the isolation of its callers."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from tests.platform.gateway.streams import text_of

from llmasos import tables  # noqa: F401
from llmasos.errors import Invalid, ModelUnavailable
from llmasos.gateway.embedded import weights
from llmasos.gateway.embedded.local import LocalModels
from llmasos.gateway.embedded.provider import EmbeddedProvider
from llmasos.gateway.engine import Engine
from llmasos.gateway.failures import ContextTooLong
from llmasos.gateway.gateway import Gateway
from llmasos.gateway.models import EMBEDDED
from llmasos.gateway.registry import ModelRegistry
from llmasos.gateway.request import GenerateRequest

pytestmark = pytest.mark.model


@pytest.fixture
def gateway(models: Path, local: LocalModels) -> Gateway:
    registry = ModelRegistry(models.parent)
    return Gateway(registry, Engine({EMBEDDED: EmbeddedProvider(local)}), local)


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.parametrize("streamed", [False, True])
async def test_cancelling_stops_the_decoding(gateway, local, ask, streamed):
    engine = await local.engine("smollm2")
    engine.start()
    request = ask("Count upwards from one, and never stop: 1 2 3 4 5 6 7 8", max_tokens=3000, temperature=1.5, seed=2)
    if streamed:
        stream = await gateway.stream(request)
        await stream.read()
        await stream.close()
        assert stream.used.completion_tokens >= 1
    else:
        task = asyncio.create_task(gateway.generate(request))
        await asyncio.sleep(0.3)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    # The engine looks once a second whether anybody still listens.
    used = [cpu_seconds(engine.pid)]
    async with asyncio.timeout(20):
        while len(used) == 1 or used[-1] - used[-2] > 0.05:
            await asyncio.sleep(0.3)
            used.append(cpu_seconds(engine.pid))


async def test_a_kill_in_the_middle_of_a_stream_is_an_error_and_the_next_call_works(gateway, local, ask):
    stream = await gateway.stream(ask("Tell a very long story.", max_tokens=2000))
    await stream.read()
    engine = await local.engine("smollm2")
    os.kill(engine.pid, signal.SIGKILL)
    with pytest.raises(ModelUnavailable, match=r"stopped in the middle of the answer \(signal 9\)"):
        await text_of(stream)
    await stream.close()
    answer = await gateway.generate(ask("Say hello.", max_tokens=8))
    assert answer.text


def test_a_crash_loop_delays_the_next_start(models):
    registry = ModelRegistry(models.parent)
    local = LocalModels(models, registry.get)
    engine = asyncio.run(local.engine("smollm2"))
    try:
        for _ in range(2):
            engine.start()
            os.kill(engine.pid, signal.SIGKILL)
            while engine.pid is not None:
                time.sleep(0.01)
        with pytest.raises(ModelUnavailable, match="crashed 2 times"):
            engine.start()
    finally:
        local.close()


async def test_many_calls_share_one_engine(gateway, local, ask):
    answers = await asyncio.gather(*(gateway.generate(ask(f"Say {n}.", max_tokens=12)) for n in range(8)))
    assert all(answer.text for answer in answers)
    assert len(local._engines) == 1


async def test_an_idle_engine_is_stopped_and_comes_back(models, ask):
    registry = ModelRegistry(models.parent)
    local = LocalModels(models, registry.get, idle_seconds=0.3)
    engine = await local.engine("smollm2")
    try:
        engine.start()
        assert engine.pid is not None
        async with asyncio.timeout(10):
            while engine.pid is not None:  # noqa: ASYNC110 - a process gives no event
                await asyncio.sleep(0.05)
        engine.start()
        assert engine.pid is not None
    finally:
        local.close()


def test_the_engine_dies_with_its_host(models):
    script = (
        "import sys, time; from pathlib import Path\n"
        "from llmasos.gateway.embedded.process import *\n"
        "engine = EngineProcess(EngineSpec('smollm2', 'chat', Path(sys.argv[1]), slots=1))\n"
        "engine.start(); print(engine.pid, flush=True); time.sleep(60)"
    )
    path = weights.SMOLLM2_WEIGHTS.path(models)
    host = subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, text=True)
    with host:
        pid = int(host.stdout.readline())
        host.kill()
        host.wait()
        deadline = time.monotonic() + 10
        while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
            if "State:\tZ" in Path(f"/proc/{pid}/status").read_text():
                break
            time.sleep(0.05)
        else:
            assert not Path(f"/proc/{pid}").exists()


async def test_every_thread_of_a_running_engine_is_confined(gateway, local, ask):
    """11-S9. SECURITY L2."""
    await gateway.generate(ask("Say hello.", max_tokens=4))
    engine = await local.engine("smollm2")
    assert engine.confined
    states = [path.read_text() for path in Path(f"/proc/{engine.pid}/task").glob("*/status")]
    assert len(states) > 2
    assert all("Seccomp:\t2" in state for state in states)
    answer = await gateway.generate(ask("Say hello again.", max_tokens=4))
    assert answer.text


async def test_a_schema_that_would_hold_up_others_is_refused(gateway, ask):
    """11-S9: an enumeration of 50,000 values, and others waited for minutes. SECURITY L2."""
    schema = {"type": "object", "properties": {"a": {"enum": [f"value {n}" for n in range(300)]}}}
    shape = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    with pytest.raises(Invalid, match="leaves 301 choices"):
        await gateway.generate(ask(response_format=shape))
    tool = {"type": "function", "function": {"name": "look", "parameters": schema}}
    with pytest.raises(Invalid, match="choices"):
        await gateway.generate(ask(tools=[tool]))
    with pytest.raises(ContextTooLong, match="at most 800 messages"):
        await gateway.generate(GenerateRequest.model_validate({"messages": [{"role": "user", "content": ""}] * 1500}))


async def test_a_call_that_takes_long_to_prepare_delays_no_other_caller(gateway, ask):
    """11-S9: one caller's prompt of 3,000 tokens, or grammar, came before the next token of every other caller."""
    words = " ".join(f"word {number}" for number in range(700))
    shape = {"type": "object", "properties": {"a": {"enum": [f"the value {number}" for number in range(95)]}}}
    response_format = {"type": "json_schema", "json_schema": {"name": "a", "schema": shape}}
    preparing = asyncio.create_task(gateway.generate(ask(words, max_tokens=4, response_format=response_format)))
    for number in range(2):
        short = asyncio.create_task(gateway.generate(ask(f"Hello {number}.", max_tokens=3)))
        done, _ = await asyncio.wait({preparing, short}, return_when=asyncio.FIRST_COMPLETED)
        assert done == {short}, "the short call ends while the long one is still being prepared"
        assert short.result().text
    preparing.cancel()
    await asyncio.wait({preparing})


async def test_its_server_requires_the_key(local):
    engine = await local.engine("smollm2")
    async with engine.running() as address, httpx.AsyncClient(base_url=address.url, trust_env=False) as client:
        assert (await client.post("/v1/chat/completions", json={"messages": []})).status_code == 401
        for path in ("/slots", "/metrics", "/"):
            assert (await client.get(path)).status_code in (401, 404, 501)
        assert "gguf" not in (await client.get("/v1/models")).text


async def test_weights_that_are_no_model_are_a_clear_error(tmp_path):
    from llmasos.gateway.embedded.process import EngineProcess, EngineSpec

    file = tmp_path / "bad.gguf"
    file.write_bytes(b"GGUF" + os.urandom(5000))
    engine = EngineProcess(EngineSpec("bad", "chat", file))
    with pytest.raises(ModelUnavailable, match="engine of bad does not start"):
        engine.start()
    engine.close()
