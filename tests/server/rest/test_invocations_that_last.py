"""12-5: an invocation lasts longer than the request that began it: its events, its content, its key."""

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from typing import Any

import httpx
import pytest

from llmasos.host import Host, HostParts
from llmasos.invocations import content, journal, journals
from llmasos.kernel.invocation import Event, Principal
from llmasos.secrets import KEY_FILE
from llmasos.testing import FakeAction, FakeApps, Guest

RUN = "/api/v1/apps/acme/tool/actions"
EVENTS = {"accept": "text/event-stream"}
LATER = {"prefer": "respond-async"}
ALL = ["chunk", "progress"] * 3 + ["notice", "usage", "end"]
Told = list[tuple[int, str, Any]]


async def told(answer: httpx.Response) -> AsyncIterator[tuple[int, str, Any]]:
    """(id, name, data) of each event."""
    number, name = 0, ""
    async for line in answer.aiter_lines():
        if line.startswith("id: "):
            number = int(line.removeprefix("id: "))
        elif line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            data = json.loads(line.removeprefix("data: "))
        elif not line and name:
            yield number, name, data
            name = ""


async def follow(served: Any, id_: str, after: int | None = None, token: str = "all") -> Told:
    headers = {"authorization": f"Bearer {token}"} | ({} if after is None else {"last-event-id": str(after)})
    async with served.client.stream("GET", f"/api/v1/invocations/{id_}/events", headers=headers) as answer:
        assert answer.status_code == 200, await answer.aread()
        return [event async for event in told(answer)]


async def begin(served: Any, action: str, value: Any = None, **headers: str) -> str:
    answer = await served.client.post(f"{RUN}/{action}", json=value or {}, headers={**LATER, **headers})
    assert answer.status_code == 202, answer.text
    assert answer.headers["preference-applied"] == "respond-async"
    id_ = answer.json()["id"]
    assert answer.headers["location"] == f"/api/v1/invocations/{id_}"
    return id_


async def ran(served: Any, action: str, value: Any = None) -> str:
    return (await served.client.post(f"{RUN}/{action}", json=value or {})).json()["id"]


async def kept(served: Any, id_: str, token: str = "all") -> Any:
    headers = {"authorization": f"Bearer {token}"}
    return (await served.client.get(f"/api/v1/invocations/{id_}/content", headers=headers)).json()


async def status_of(served: Any, id_: str) -> str:
    return (await served.client.get(f"/api/v1/invocations/{id_}")).json()["status"]


async def test_a_run_that_returns_at_once_goes_on_and_is_followed_from_the_first_event(served: Any) -> None:
    id_ = await begin(served, "wait")
    await served.until_started()
    following = asyncio.create_task(follow(served, id_))
    assert await status_of(served, id_) == "running"
    served.released.set()
    events = await following
    assert [(number, name) for number, name, _ in events] == [(1, "chunk"), (2, "usage"), (3, "end")]
    assert events[-1][2] == {"id": id_, "output": "waited"}


@pytest.mark.parametrize("after", range(9))
async def test_events_are_resumed_behind_any_of_them_after_the_end(served: Any, after: int) -> None:
    id_ = await ran(served, "count")
    events = await follow(served, id_, after)
    assert [number for number, _, _ in events] == list(range(after + 1, 10))
    assert [name for _, name, _ in events] == ALL[after:]
    assert events[-1][2]["output"] == "three"


async def test_a_reader_who_has_the_end_is_told_to_ask_no_more(served: Any) -> None:
    id_ = await ran(served, "count")
    answer = await served.client.get(f"/api/v1/invocations/{id_}/events", headers={"last-event-id": "9"})
    assert (answer.status_code, answer.content) == (204, b"")
    refused = await served.client.get(f"/api/v1/invocations/{id_}/events", headers={"last-event-id": "x"})
    assert refused.json()["code"] == "invalid"


async def test_the_ids_of_a_plain_stream_are_those_that_are_resumed(served: Any) -> None:
    async with served.client.stream("POST", f"{RUN}/count", json={}, headers=EVENTS) as answer:
        plain = [event async for event in told(answer)]
        id_ = answer.headers["location"].rpartition("/")[2]
    assert plain == await follow(served, id_)


async def test_many_readers_each_get_every_event(served: Any) -> None:
    id_ = await begin(served, "wait")
    await served.until_started()
    readers = [asyncio.create_task(follow(served, id_)) for _ in range(40)]
    await asyncio.sleep(0)
    served.released.set()
    for events in await asyncio.gather(*readers):
        assert [name for _, name, _ in events] == ["chunk", "usage", "end"]


async def test_a_reader_who_goes_away_ends_nothing(served: Any) -> None:
    id_ = await begin(served, "wait")
    async with served.client.stream("GET", f"/api/v1/invocations/{id_}/events") as answer:
        async for _ in told(answer):
            break
    assert await status_of(served, id_) == "running"
    served.released.set()
    assert (await follow(served, id_))[-1][1] == "end"


async def test_an_end_is_told_after_its_commit(served: Any) -> None:
    file = served.host.database.url.removeprefix("sqlite:///")
    with closing(sqlite3.connect(file)) as elsewhere:
        for action, status in (("count", "succeeded"), ("lie", "failed")) * 3:
            id_ = await begin(served, action)
            await follow(served, id_)
            query = "SELECT status, events FROM invocation WHERE id = ?"
            assert elsewhere.execute(query, (id_,)).fetchone() == (status, 7 if action == "count" else 0)


async def test_a_failure_is_told_as_a_problem_in_the_readers_language(served: Any) -> None:
    answer = await served.client.post(f"{RUN}/lie", json={})
    path = f"/api/v1/invocations/{answer.json()['invocation']}/events"
    async with served.client.stream("GET", path, headers={"accept-language": "zh-CN"}) as answer:
        events = [event async for event in told(answer)]
    assert [(number, name) for number, name, _ in events] == [(1, "usage"), (2, "error")]
    assert events[-1][2]["code"] == "app-failed"
    assert "需由作者修正" in events[-1][2]["detail"]


async def test_what_fell_out_of_the_bound_is_told_by_an_event(served: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "MAX_JOURNAL_BYTES", 500)
    monkeypatch.setattr(journal, "_LEFT_OUT_AT_ONCE", 100)
    id_ = await ran(served, "count")
    events = await follow(served, id_)
    first = events[1][0]
    assert events[0] == (first - 1, "gap", {"first": 1, "last": first - 1})
    assert [number for number, _, _ in events[1:]] == list(range(first, 10))
    assert await follow(served, id_, first - 1) == events[1:]


@asynccontextmanager
async def elsewhere(served: Any) -> AsyncIterator[Host]:
    """Another host on the same home, whose app shows what it is told to."""
    apps = FakeApps()

    async def show(guest: Guest) -> object:
        for number in range(3):
            await guest.invocation.emit(Event("chunk", f"{number}"))
        served.started.append(guest)
        await served.released.wait()
        return "shown"

    apps.add("acme/tool", show=FakeAction(show, streaming=True))
    parts = HostParts(runnables=lambda _: apps, runtimes={"wasm": apps.runtime})
    async with Host.open(served.host.settings, parts) as host:
        yield host


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journals, "FLUSH_SECONDS", 0.02)
    monkeypatch.setattr(journals, "FOLLOW_SECONDS", 0.02)


@pytest.mark.usefixtures("quick")
async def test_what_another_host_runs_is_followed_while_it_runs(served: Any) -> None:
    async with elsewhere(served) as host:
        running = asyncio.create_task(host.actions.run(Principal(user="ann"), "acme/tool", "show", {}))
        await served.until_started()
        id_ = served.started[0].invocation.id
        async with served.client.stream("GET", f"/api/v1/invocations/{id_}/events") as answer:
            events: Told = []
            async for event in told(answer):
                events.append(event)
                if event[0] == 3:
                    assert not running.done()
                    served.released.set()
        await running
    assert [(number, name) for number, name, _ in events[:3]] == [(1, "chunk"), (2, "chunk"), (3, "chunk")]
    assert [name for _, name, _ in events[3:]] == ["usage", "end"]
    assert events[-1][2]["output"] == "shown"


@pytest.mark.usefixtures("quick")
async def test_an_invocation_whose_host_died_ends_with_an_error(served: Any) -> None:
    async with elsewhere(served) as host:
        running = asyncio.create_task(host.actions.run(Principal(user="ann"), "acme/tool", "show", {}))
        await served.until_started()
        id_ = served.started[0].invocation.id
        following = asyncio.create_task(follow(served, id_))
        ahead = asyncio.create_task(follow(served, id_, 50))
        await asyncio.sleep(0.1)
        with served.host.database.write() as session:
            from llmasos.database.transaction import Transaction
            from llmasos.invocations import records

            records.lose(Transaction.of(session), host.invocations._ledger.lease.id)
        events = await following
        assert events[-1][1] == "error"
        assert events[-1][2]["code"] == "host-died"
        assert [(number, name) for number, name, _ in await ahead] == [(51, "usage"), (52, "error")]
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running


async def test_closing_the_connection_of_a_run_that_returned_at_once_does_not_end_it(served: Any) -> None:
    async with httpx.AsyncClient(base_url=served.client.base_url, headers=served.client.headers) as client:
        id_ = (await client.post(f"{RUN}/wait", json={}, headers=LATER)).json()["id"]
    await served.until_started()
    served.released.set()
    await served.until_idle()
    assert served.ended == ["finished"]
    assert await status_of(served, id_) == "succeeded"


async def test_a_request_that_is_refused_is_refused_at_once(served: Any) -> None:
    answer = await served.client.post(f"{RUN}/echo", json={"n": 1}, headers=LATER)
    assert (answer.status_code, answer.json()["code"]) == (422, "input-rejected")


async def test_a_revoked_token_ends_its_readers(served: Any) -> None:
    id_ = await begin(served, "wait")
    await served.until_started()
    headers = {"authorization": "Bearer admin"}
    async with served.client.stream("GET", f"/api/v1/invocations/{id_}/events", headers=headers) as answer:
        served.app.state.authenticator.revoked.add("admin")
        assert [name async for _, name, _ in told(answer)] == ["chunk"]
    assert await status_of(served, id_) == "running"


@pytest.mark.parametrize(
    ("token", "events", "read", "delete"),
    [
        ("bob", 404, 404, 404),
        ("bounded", 404, 404, 404),
        ("run", 403, 403, 200),
        ("read", 200, 200, 403),
        ("admin", 200, 200, 200),
    ],
)
async def test_who_may_see_an_invocation_may_see_its_events_and_content(
    served: Any, token: str, events: int, read: int, delete: int
) -> None:
    """11-17: with the scope run alone there are no details."""
    id_ = await ran(served, "count")
    headers = {"authorization": f"Bearer {token}"}
    path = f"/api/v1/invocations/{id_}"
    got = [
        (await served.client.get(f"{path}/events", headers=headers)).status_code,
        (await served.client.get(f"{path}/content", headers=headers)).status_code,
        (await served.client.delete(f"{path}/content", headers=headers)).status_code,
    ]
    assert got == [events, read, delete]


async def test_input_and_output_are_kept_and_nowhere_in_clear(served: Any) -> None:
    id_ = await ran(served, "echo", {"text": "for your eyes"})
    value = {"text": "for your eyes", "n": 1}
    assert await kept(served, id_) == {"id": id_, "kept": True, "input": value, "output": value, "shown": ""}
    home = served.host.settings.home
    for file in home.glob("llmasos.db*"):
        assert b"for your eyes" not in file.read_bytes()


async def test_what_a_cancelled_run_had_shown_is_kept(served: Any) -> None:
    """11-23: a paid answer is in the history."""
    id_ = await begin(served, "wait")
    await served.until_started()
    await served.client.delete(f"/api/v1/invocations/{id_}")
    assert (await follow(served, id_))[-1][2]["code"] == "cancelled"
    assert (await kept(served, id_))["shown"] == "waiting"


async def test_deleted_content_is_gone_with_its_events_and_log(served: Any) -> None:
    id_ = await ran(served, "count")
    assert (await served.client.delete(f"/api/v1/invocations/{id_}/content")).json() == {
        "id": id_,
        "status": "succeeded",
    }
    assert (await kept(served, id_))["kept"] is False
    events = await follow(served, id_)
    assert events[0] == (7, "gap", {"first": 1, "last": 7})
    assert events[-1] == (9, "end", {"id": id_, "output": None, "kept": False})


async def test_content_of_what_runs_is_not_deleted(served: Any) -> None:
    id_ = await begin(served, "wait")
    answer = await served.client.delete(f"/api/v1/invocations/{id_}/content")
    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")
    served.released.set()
    await follow(served, id_)


async def test_a_workspace_that_keeps_nothing_has_nothing_written_down(served: Any) -> None:
    with served.host.database.write() as session:
        content.set_retention_days(session, Principal(), 0)
    id_ = await ran(served, "count")
    assert (await kept(served, id_))["kept"] is False
    with closing(sqlite3.connect(served.host.database.url.removeprefix("sqlite:///"))) as database:
        for table in ("invocation_content", "invocation_events"):
            assert database.execute(f"SELECT COUNT(*) FROM {table}").fetchone() == (0,)


async def test_content_under_a_lost_key_is_told_as_such(served: Any) -> None:
    id_ = await ran(served, "count")
    (served.host.settings.home / KEY_FILE).unlink()
    async with Host.open(served.host.settings) as host:
        row = await host.invocations.find(id_, Principal(), of_anybody=True)
        for read in (host.invocations.content, host.invocations.events):
            with pytest.raises(Exception, match="put that key back"):
                await read(row)


async def test_the_same_request_under_a_key_is_one_invocation(served: Any) -> None:
    key = {"idempotency-key": "k-1"}
    first = await served.client.post(f"{RUN}/echo", json={"text": "a", "n": 2}, headers=key)
    again = await served.client.post(f"{RUN}/echo", json={"n": 2, "text": "a"}, headers=key)
    assert again.json() == first.json()
    assert again.headers["location"] == first.headers["location"]
    other = await served.client.post(f"{RUN}/echo", json={"text": "b"}, headers=key)
    assert (other.status_code, other.json()["code"]) == (409, "idempotency-key-reused")
    bobs = await served.client.post(f"{RUN}/echo", json={"text": "b"}, headers={**key, "authorization": "Bearer bob"})
    assert bobs.status_code == 200
    assert len((await served.client.get("/api/v1/invocations")).json()["items"]) == 1


@pytest.mark.parametrize("action", ["count", "lie"])
async def test_a_repeated_request_gets_the_answer_in_the_form_it_wants(served: Any, action: str) -> None:
    key = {"idempotency-key": "k"}
    first = await served.client.post(f"{RUN}/{action}", json={}, headers=key)
    again = await served.client.post(f"{RUN}/{action}", json={}, headers=key)
    assert (again.status_code, again.json()) == (first.status_code, first.json())
    async with served.client.stream("POST", f"{RUN}/{action}", json={}, headers={**key, **EVENTS}) as answer:
        names = [name async for _, name, _ in told(answer)]
    assert names == (ALL if action == "count" else ["usage", "error"])
    later = await served.client.post(f"{RUN}/{action}", json={}, headers={**key, **LATER})
    assert later.json()["status"] == ("succeeded" if action == "count" else "failed")


async def test_requests_at_once_under_a_key_are_one_invocation(served: Any) -> None:
    served.released.set()
    key = {"idempotency-key": "k"}
    answers = await asyncio.gather(*(served.client.post(f"{RUN}/wait", json={}, headers=key) for _ in range(8)))
    assert {answer.json()["id"] for answer in answers} == {answers[0].json()["id"]}
    assert len(served.started) == 1


async def test_a_key_is_free_again_if_its_request_was_refused(served: Any) -> None:
    key = {"idempotency-key": "k"}
    refused = await served.client.post(f"{RUN}/echo", json={"n": 1}, headers=key)
    assert refused.json()["code"] == "input-rejected"
    assert (await served.client.post(f"{RUN}/echo", json={"text": "a"}, headers=key)).status_code == 200


@pytest.mark.parametrize("key", ["", "a b", "k" * 256])
async def test_a_key_that_is_none_is_refused(served: Any, key: str) -> None:
    answer = await served.client.post(f"{RUN}/echo", json={"text": "a"}, headers={"idempotency-key": key})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid")


async def test_a_key_whose_process_died_before_it_began_is_taken_over(served: Any) -> None:
    await served.client.post(f"{RUN}/echo", json={"text": "a"}, headers={"idempotency-key": "k"})
    with served.host.database.write() as session:
        session.connection().exec_driver_sql("UPDATE idempotency_key SET lease_id = 'gone', invocation_id = 'none'")
    assert (
        await served.client.post(f"{RUN}/echo", json={"text": "a"}, headers={"idempotency-key": "k"})
    ).status_code == 200


async def test_the_output_of_a_repeated_request_that_is_not_kept_is_told_as_such(served: Any) -> None:
    with served.host.database.write() as session:
        content.set_retention_days(session, Principal(), 0)
    for status in (200, 410):
        answer = await served.client.post(f"{RUN}/count", json={}, headers={"idempotency-key": "k"})
        assert answer.status_code == status
    assert answer.json()["code"] == "output-not-kept"
