"""A signal in the middle of a stream: the stream ends with an error, the run is settled, nothing stays reserved."""

import asyncio
import json
import signal
from contextlib import suppress
from pathlib import Path

import httpx
from sqlmodel import Session, create_engine, select

from llmasos.database.engine import Database
from llmasos.database.schema import ensure_schema
from llmasos.host import Host, HostParts
from llmasos.invocations.tables import InvocationRow
from llmasos.kernel.invocation import Event, Principal
from llmasos.quotas.tables import LedgerWindow, Quota, ReservationRow
from llmasos.settings import Settings
from llmasos.testing import FakeAction, FakeApps, Guest
from llmasos_server.accounts.tokens import create_token
from llmasos_server.server import Server, create_app, listen


async def wait(guest: Guest) -> object:
    await guest.invocation.emit(Event("chunk", "waiting"))
    await asyncio.sleep(600)
    return None


def prepared(home: Path) -> tuple[Settings, str]:
    """A home with a token, and a quota of which every run reserves a part."""
    settings = Settings(home=home)
    ensure_schema(settings.resolved_database_url, home)
    with Database(settings.resolved_database_url) as database, database.write() as session:
        from llmasos.database.engine import utc_now

        session.add(
            Quota(
                workspace_id="default",
                scope="workspace",
                scope_id="default",
                meter="invocations",
                window="day",
                limit=100,
                created_at=utc_now(),
            )
        )
        return settings, create_token(session, Principal()).token


async def test_sigterm_ends_streams_with_an_error_and_settles(tmp_path: Path) -> None:
    settings, token = prepared(tmp_path)
    apps = FakeApps()
    apps.add("acme/tool", wait=FakeAction(wait, streaming=True))
    app = create_app(settings, parts=HostParts(runnables=lambda _: apps, runtimes={"wasm": apps.runtime}))
    ready = asyncio.Event()
    with listen("127.0.0.1", 0) as listener:
        server = Server(app, ready.set)
        serving = asyncio.create_task(server._serve([listener]))
        await ready.wait()
        base = f"http://127.0.0.1:{listener.getsockname()[1]}"
        headers = {"authorization": f"Bearer {token}", "accept": "text/event-stream"}
        async with httpx.AsyncClient(base_url=base, headers=headers) as client:
            async with client.stream("POST", "/api/v1/apps/acme/tool/actions/wait") as answer:
                lines = answer.aiter_lines()
                assert await anext(lines) == "event: chunk"
                server.handle_exit(signal.SIGTERM, None)
                rest = [line async for line in lines if line]
            async with asyncio.timeout(20):
                await serving
    assert rest[-3] == "event: error"
    assert json.loads(rest[-2].removeprefix("data: "))["code"] == "stopping"
    with Session(create_engine(settings.resolved_database_url)) as session:
        assert [row.status for row in session.exec(select(InvocationRow))] == ["cancelled"]
        assert list(session.exec(select(ReservationRow))) == []
        assert [(window.used, window.reserved) for window in session.exec(select(LedgerWindow))] == [(1, 0)]


async def test_sigterm_ends_those_who_follow_an_invocation_wherever_it_runs(tmp_path: Path) -> None:
    """12-5."""
    settings, token = prepared(tmp_path)
    apps = FakeApps()
    apps.add("acme/tool", wait=FakeAction(wait, streaming=True))
    parts = HostParts(runnables=lambda _: apps, runtimes={"wasm": apps.runtime})
    app = create_app(settings, parts=parts)
    ready, begun = asyncio.Event(), asyncio.Event()
    async with Host.open(settings, parts) as other:
        ids: list[str] = []
        elsewhere = asyncio.create_task(
            other.actions.run(
                Principal(), "acme/tool", "wait", {}, on_start=lambda it: (ids.append(it.id), begun.set())
            )
        )
        await begun.wait()
        with listen("127.0.0.1", 0) as listener:
            server = Server(app, ready.set)
            serving = asyncio.create_task(server._serve([listener]))
            await ready.wait()
            base = f"http://127.0.0.1:{listener.getsockname()[1]}"
            async with httpx.AsyncClient(base_url=base, headers={"authorization": f"Bearer {token}"}) as client:
                later = {"prefer": "respond-async"}
                ids.append((await client.post("/api/v1/apps/acme/tool/actions/wait", headers=later)).json()["id"])

                async def follow(id_: str) -> list[str]:
                    async with client.stream("GET", f"/api/v1/invocations/{id_}/events") as answer:
                        following.release()
                        return [line async for line in answer.aiter_lines() if line.startswith("event")]

                following = asyncio.Semaphore(0)
                readers = [asyncio.create_task(follow(id_)) for id_ in ids]
                for _ in readers:
                    await following.acquire()
                server.handle_exit(signal.SIGTERM, None)
                async with asyncio.timeout(20):
                    there, here = await asyncio.gather(*readers)
                    await serving
        assert not elsewhere.done()
        assert "event: end" not in there
        assert "event: error" not in there
        assert here[-1] == "event: error"
        elsewhere.cancel()
        with suppress(asyncio.CancelledError):
            await elsewhere
