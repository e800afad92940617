"""A real server on loopback: the real host, kernel, ledger and database, with apps that are functions of the test."""

import asyncio
import contextlib
import shutil
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx
import pytest
import uvicorn
from fastapi import FastAPI

from llmasos.database.schema import ensure_schema
from llmasos.gateway.gateway import Gateway
from llmasos.host import Host, HostParts
from llmasos.kernel.invocation import Event, Principal
from llmasos.settings import Settings
from llmasos.testing import FakeAction, FakeApps, Guest
from llmasos_server.accounts import endpoints as accounts
from llmasos_server.local import Local
from llmasos_server.openai import endpoints as openai
from llmasos_server.rest.application import create_api, serve_host
from llmasos_server.rest.identity import Caller, TokenScope

ANN = Principal(user="ann")
BOB = Principal(user="bob")


CALLERS = {
    "all": Caller(ANN, frozenset({TokenScope.RUN, TokenScope.READ})),
    "admin": Caller(ANN, frozenset({TokenScope.ADMIN})),
    "installer": Caller(ANN, frozenset({TokenScope.INSTALL})),
    "run": Caller(ANN, frozenset({TokenScope.RUN})),
    "read": Caller(ANN, frozenset({TokenScope.READ})),
    "bob": Caller(BOB, frozenset({TokenScope.RUN, TokenScope.READ})),
    "bounded": Caller(ANN, frozenset({TokenScope.RUN, TokenScope.READ}), apps=frozenset({"acme/other"})),
}


class Tokens:
    """An authenticator with a token for each kind of caller."""

    def __init__(self) -> None:
        self.revoked: set[str] = set()

    def authenticate(self, token: str) -> Caller | None:
        caller = CALLERS.get(token)
        return None if caller is None or token in self.revoked else replace(caller, token_id=token)

    def is_good(self, token_id: str) -> bool:
        return token_id not in self.revoked


@dataclass
class Served:
    """A running server, its host, and a client with the token `all`."""

    host: Host
    apps: FakeApps
    app: FastAPI
    server: uvicorn.Server
    client: httpx.AsyncClient
    started: list[Guest] = field(default_factory=list)
    released: asyncio.Event = field(default_factory=asyncio.Event)
    ended: list[str] = field(default_factory=list)

    async def until_idle(self) -> None:
        await self.until(lambda: not self.host.actions.active)

    async def until_started(self, count: int = 1) -> None:
        await self.until(lambda: len(self.started) >= count)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not condition():  # noqa: ASYNC110 - it is true elsewhere, where nobody sets an event
                await asyncio.sleep(0.01)


def install_apps(served: Served) -> None:
    async def echo(guest: Guest) -> object:
        return guest.input

    async def count(guest: Guest) -> object:
        for number in range(3):
            await guest.invocation.emit(Event("chunk", f"{number} é\n"))
            await guest.invocation.emit(Event("progress", "counting", number / 3))
        await guest.invocation.emit(Event("notice", "only to three"))
        return "three"

    async def separators(guest: Guest) -> object:
        for character in "\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029\r\n":
            await guest.invocation.emit(Event("chunk", f"a{character}b"))
        return "a\u2028b\x85c"

    async def wait(guest: Guest) -> object:
        served.started.append(guest)
        try:
            await guest.invocation.emit(Event("chunk", "waiting"))
            await served.released.wait()
        except asyncio.CancelledError:
            served.ended.append("cancelled")
            raise
        served.ended.append("finished")
        return "waited"

    async def flood(guest: Guest) -> object:
        served.started.append(guest)
        for _ in range(100_000):
            await guest.invocation.emit(Event("chunk", "x" * 1000))
        return "flooded"

    async def crash(guest: Guest) -> object:
        raise ZeroDivisionError("the host's own secret")

    async def lie(guest: Guest) -> object:
        return 5

    text = {"type": "object", "properties": {"text": {"type": "string"}, "n": {"type": "integer", "default": 1}}}
    served.apps.add(
        "acme/tool",
        echo=FakeAction(echo, {**text, "required": ["text"], "additionalProperties": False}),
        count=FakeAction(count, streaming=True),
        separators=FakeAction(separators, streaming=True),
        wait=FakeAction(wait, streaming=True),
        flood=FakeAction(flood, streaming=True),
        crash=FakeAction(crash),
        lie=FakeAction(lie, output_schema={"type": "string"}),
    )
    served.apps.add("acme/other", echo=FakeAction(echo))


@asynccontextmanager
async def serving(home: Path, gateway: Gateway | None = None) -> AsyncIterator[Served]:
    apps = FakeApps()
    opened: list[Host] = []

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        made = None if gateway is None else lambda *_: gateway
        parts = HostParts(runnables=lambda _: apps, runtimes={"wasm": apps.runtime}, gateway=made)
        async with Host.open(Settings(home=home), parts) as host:
            opened.append(host)
            serve_host(app, host, Tokens(), lambda: Local.of(host).installer)
            yield

    app = create_api(lifespan, hosts={"127.0.0.1", "localhost"}, routers=(openai.router, accounts.router))
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    port = listener.getsockname()[1]
    config = uvicorn.Config(app, log_level="warning", lifespan="on", timeout_graceful_shutdown=5)
    server = uvicorn.Server(config)
    with contextlib.ExitStack() as stack:
        stack.callback(listener.close)
        # Signals belong to the test runner.
        task = asyncio.create_task(server._serve(sockets=[listener]))
        while not server.started:
            await asyncio.sleep(0.01)
            if task.done():
                task.result()
        headers = {"authorization": "Bearer all"}
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=30) as client:
            served = Served(opened[0], apps, app, server, client)
            install_apps(served)
            yield served
        server.should_exit = True
        await task


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose database is up to date: a copy of it spares each test the migration."""
    home = tmp_path_factory.mktemp("migrated")
    ensure_schema(f"sqlite:///{home}/llmasos.db", home)
    return home


@pytest.fixture
async def served(tmp_path: Path, migrated: Path) -> AsyncIterator[Served]:
    shutil.copy(migrated / "llmasos.db", tmp_path)
    async with serving(tmp_path) as served:
        yield served


@pytest.fixture
async def served_by(tmp_path: Path, migrated: Path) -> AsyncIterator[Callable[[Gateway], Awaitable[Served]]]:
    """Makes a server with a gateway of the test's own."""
    shutil.copy(migrated / "llmasos.db", tmp_path)
    async with contextlib.AsyncExitStack() as stack:
        yield lambda gateway: stack.enter_async_context(serving(tmp_path, gateway))
