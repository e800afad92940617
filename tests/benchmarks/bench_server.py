"""How long `/healthz` takes while a server holds 500 open streams: `python tests/benchmarks/bench_server.py`.

The server is a process of its own, with the real host, kernel, ledger and database; the apps are functions that send a
chunk a second, so that what is measured is the server's event loop and not a model.
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
from llmasos.kernel.invocation import InvocationLimits
from llmasos.settings import Settings
from llmasos.testing import FakeAction, FakeApps
from llmasos_server.local import Local
from llmasos_server.rest.application import create_api, serve_host

STREAMS = 500
PROBES = 200
LIMIT_MS = 50.0


def serve(home: str, port: int) -> None:
    apps = FakeApps(limits=InvocationLimits(wall_seconds=600))
    apps.add("acme/clock", tick=FakeAction(tick, streaming=True))

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with Host.open(
            Settings(home=Path(home)), HostParts(runnables=lambda _: apps, runtimes={"wasm": apps.runtime})
        ) as host:
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


async def measure(port: int) -> bool:
    limits = httpx.Limits(max_connections=None)
    headers = {"authorization": "Bearer any", "accept": "text/event-stream"}
    base = f"http://127.0.0.1:{port}"
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
        quiet = await probe(watcher)
        async with AsyncExitStack() as stack:
            start = time.perf_counter()

            async def one() -> None:
                path = "/api/v1/apps/acme/clock/actions/tick"
                answer = await stack.enter_async_context(callers.stream("POST", path))
                answer.raise_for_status()

            await asyncio.gather(*(one() for _ in range(STREAMS)))
            opening = time.perf_counter() - start
            busy = await probe(watcher)
            text = (await watcher.get("/metrics")).text
            active = next(line for line in text.splitlines() if line.startswith("llmasos_active_runs"))
    print(f"{STREAMS} streams opened in {opening:.1f} s; {active}")
    print(f"{'/healthz, ms':24}{'p50':>8}{'p99':>8}{'max':>8}")
    for name, took in (("no stream", quiet), (f"{STREAMS} streams", busy)):
        print(f"{name:24}{took[PROBES // 2]:8.1f}{took[PROBES * 99 // 100]:8.1f}{took[-1]:8.1f}")
    return busy[PROBES * 99 // 100] < LIMIT_MS


def main() -> None:
    port = 18799
    with tempfile.TemporaryDirectory() as home:
        server = subprocess.Popen([sys.executable, __file__, "--serve", home, str(port)])
        try:
            good = asyncio.run(measure(port))
        finally:
            server.terminate()
            server.wait(timeout=60)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(sys.argv[2], int(sys.argv[3]))
    else:
        main()
