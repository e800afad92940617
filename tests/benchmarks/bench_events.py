"""What following invocations costs a server: `python tests/benchmarks/bench_events.py [STREAMS] [INVOCATIONS]`.

STREAMS event streams (1,000) on five invocations, each of which shows a chunk a second: `/healthz` p99 must stay below
50 ms. Then INVOCATIONS runs (10,000) to their end: the server's memory must stay as it is. The server is a process of
its own, with the real host, kernel, ledger and database; the apps are functions.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import httpx
import uvicorn
from fakes import Anybody, tick
from fastapi import FastAPI

from llmasos.host import Host, HostParts
from llmasos.kernel.invocation import Event, InvocationLimits
from llmasos.settings import Settings
from llmasos.testing import FakeAction, FakeApps, Guest
from llmasos_server.local import Local
from llmasos_server.rest.application import create_api, serve_host

FOLLOWED = 5
PROBES = 200
LIMIT_MS = 50.0
# What the allocator may keep of 10,000 runs.
GROWTH_MIB = 16.0
AT_ONCE = 20


async def say(guest: Guest) -> object:
    for _ in range(5):
        await guest.invocation.emit(Event("chunk", "a few words of an answer "))
    return "a few words of an answer " * 5


def serve(home: str, port: int) -> None:
    apps = FakeApps(limits=InvocationLimits(wall_seconds=600))
    apps.add("acme/clock", tick=FakeAction(tick, streaming=True), say=FakeAction(say, streaming=True))

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        parts = HostParts(runnables=lambda _: apps, runtimes={"wasm": apps.runtime})
        async with Host.open(Settings(home=Path(home)), parts) as host:
            serve_host(app, host, Anybody(), lambda: Local.of(host).installer)
            yield

    app = create_api(lifespan, hosts={"127.0.0.1"})
    uvicorn.run(app, port=port, log_level="warning", backlog=1024, timeout_graceful_shutdown=1)


async def probe(client: httpx.AsyncClient) -> list[float]:
    took: list[float] = []
    for _ in range(PROBES):
        start = time.perf_counter()
        (await client.get("/healthz")).raise_for_status()
        took.append((time.perf_counter() - start) * 1000)
        await asyncio.sleep(0.01)
    return sorted(took)


def resident_mib(pid: int) -> float:
    line = next(it for it in Path(f"/proc/{pid}/status").read_text().splitlines() if it.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


async def run_many(client: httpx.AsyncClient, count: int) -> None:
    async def some() -> None:
        for _ in range(count // AT_ONCE):
            (await client.post("/api/v1/apps/acme/clock/actions/say", json={})).raise_for_status()

    await asyncio.gather(*(some() for _ in range(AT_ONCE)))


async def follow(callers: httpx.AsyncClient, watcher: httpx.AsyncClient, streams: int) -> bool:
    quiet = await probe(watcher)
    ids: list[str] = []
    for _ in range(FOLLOWED):
        began = await callers.post("/api/v1/apps/acme/clock/actions/tick", json={}, headers={"prefer": "respond-async"})
        ids.append(began.raise_for_status().json()["id"])
    async with AsyncExitStack() as stack:
        start = time.perf_counter()
        for number in range(streams):
            request = callers.stream("GET", f"/api/v1/invocations/{ids[number % FOLLOWED]}/events")
            (await stack.enter_async_context(request)).raise_for_status()
        print(f"{streams} streams opened in {time.perf_counter() - start:.1f} s")
        busy = await probe(watcher)
    for id_ in ids:
        await callers.delete(f"/api/v1/invocations/{id_}")
    print(f"{'/healthz, ms':24}{'p50':>8}{'p99':>8}{'max':>8}")
    for name, took in (("no stream", quiet), (f"{streams} streams", busy)):
        print(f"{name:24}{took[PROBES // 2]:8.1f}{took[PROBES * 99 // 100]:8.1f}{took[-1]:8.1f}")
    return busy[PROBES * 99 // 100] < LIMIT_MS


async def measure(port: int, pid: int, streams: int, invocations: int) -> bool:
    limits = httpx.Limits(max_connections=None)
    base = f"http://127.0.0.1:{port}"
    headers = {"authorization": "Bearer any"}
    async with (
        httpx.AsyncClient(base_url=base, headers=headers, limits=limits, timeout=120) as callers,
        httpx.AsyncClient(base_url=base, timeout=30) as watcher,
    ):
        for _ in range(200):
            try:
                await watcher.get("/readyz")
                break
            except httpx.ConnectError:
                await asyncio.sleep(0.1)
        await run_many(callers, max(AT_ONCE, invocations // 10))
        before, start = resident_mib(pid), time.perf_counter()
        await run_many(callers, invocations)
        growth = resident_mib(pid) - before
        print(f"{invocations} invocations in {time.perf_counter() - start:.1f} s: {before:.1f} MiB, {growth:+.1f} MiB")
        return await follow(callers, watcher, streams) and growth < GROWTH_MIB


def main() -> None:
    given = [int(word) for word in sys.argv[1:]]
    streams, invocations = [*given, *(1000, 10_000)[len(given) :]]
    port = 18798
    with tempfile.TemporaryDirectory() as home:
        server = subprocess.Popen([sys.executable, __file__, "--serve", home, str(port)])
        try:
            good = asyncio.run(measure(port, server.pid, streams, invocations))
        finally:
            server.terminate()
            server.wait(timeout=60)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(sys.argv[2], int(sys.argv[3]))
    else:
        main()
