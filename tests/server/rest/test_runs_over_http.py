"""Running actions over HTTP: as JSON, as events, cancelled in every way."""

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing, suppress
from typing import Any

import httpx
import pytest

from llmasos.errors import LlmasosError
from llmasos.kernel.invocation import Principal
from llmasos.testing import FakeAction, Guest

RUN = "/api/v1/apps/acme/tool/actions"
EVENTS = {"accept": "text/event-stream"}


async def events_of(answer: httpx.Response) -> AsyncIterator[tuple[str, Any]]:
    """The events of a stream, decoded as a browser decodes them."""
    name = ""
    async for line in answer.aiter_lines():
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield name, json.loads(line.removeprefix("data: "))


async def all_events(served: Any, action: str, language: str = "en", **options: Any) -> list[tuple[str, Any]]:
    headers = {**EVENTS, "accept-language": language}
    async with served.client.stream("POST", f"{RUN}/{action}", headers=headers, **options) as answer:
        assert answer.status_code == 200, await answer.aread()
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        return [event async for event in events_of(answer)]


async def invocations(served: Any) -> list[dict[str, Any]]:
    return (await served.client.get("/api/v1/invocations")).json()["items"]


async def test_a_run_answers_its_output_with_defaults_filled_in(served: Any) -> None:
    answer = await served.client.post(f"{RUN}/echo", json={"text": "héllo"})
    assert answer.status_code == 200
    body = answer.json()
    assert body["output"] == {"text": "héllo", "n": 1}
    assert set(body) == {"id", "output", "usage"}
    assert body["usage"]["fuel"] == 1000
    assert answer.headers["location"] == f"/api/v1/invocations/{body['id']}"
    read = (await served.client.get(answer.headers["location"])).json()
    assert (read["status"], read["app"], read["action"]) == ("succeeded", "acme/tool", "echo")


async def test_a_stream_sends_what_the_app_shows_then_usage_then_end(served: Any) -> None:
    events = await all_events(served, "count", json={})
    assert [name for name, _ in events] == ["chunk", "progress"] * 3 + ["notice", "usage", "end"]
    assert events[2][1] == {"text": "1 é\n"}
    assert events[1][1] == {"fraction": 0.0, "message": "counting"}
    assert events[-3][1] == {"message": "only to three"}
    assert set(events[-2][1]) >= {"prompt_tokens", "completion_tokens", "cost_micro_usd", "fuel", "duration_ms"}
    assert events[-1][1]["output"] == "three"


async def test_no_caller_reaches_a_hook_by_its_reserved_name(served: Any) -> None:
    heard: list[Any] = []

    async def note(guest: Guest) -> None:
        heard.append(guest)

    served.apps.add("acme/hooked", act=FakeAction(note), **{"@install": FakeAction(note)})
    for name in ("@install", "%40install"):
        for answer in (
            await served.client.post(f"/api/v1/apps/acme/hooked/actions/{name}", json={}),
            await served.client.get(f"/api/v1/apps/acme/hooked/actions/{name}"),
        ):
            assert (answer.status_code, answer.json()["code"]) == (404, "not-found")
            assert "@install" in answer.json()["detail"]
    assert heard == []


async def test_a_json_answer_tells_notices_too(served: Any) -> None:
    assert (await served.client.post(f"{RUN}/count")).json()["notices"] == ["only to three"]


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("", "application/json"),
        ("*/*", "application/json"),
        ("application/json", "application/json"),
        ("text/event-stream", "text/event-stream; charset=utf-8"),
        ("application/json, text/event-stream", "application/json"),
        ("text/event-stream, application/json", "text/event-stream; charset=utf-8"),
        ("application/json;q=0.5, text/event-stream", "text/event-stream; charset=utf-8"),
        ("text/event-stream;q=0, */*", "application/json"),
        ("text/html", "application/problem+json"),
        ("text/event-stream;q=zero", "application/problem+json"),
    ],
)
async def test_the_accept_header_chooses(served: Any, accept: str, kind: str) -> None:
    answer = await served.client.post(f"{RUN}/echo", json={"text": "a"}, headers={"accept": accept})
    assert answer.headers["content-type"] == kind
    assert (answer.status_code == 406) == (kind == "application/problem+json")


async def test_an_unforeseen_error_of_a_runtime_tells_nothing_of_the_inside(served: Any, caplog: Any) -> None:
    answer = await served.client.post(f"{RUN}/crash", json={})
    assert answer.status_code == 500
    assert "secret" not in answer.text
    events = await all_events(served, "crash", json={})
    assert [name for name, _ in events] == ["usage", "error"]
    assert events[-1][1]["code"] == "internal"
    assert "secret" not in json.dumps(events)


async def test_an_output_against_its_schema_is_the_apps_failure(served: Any) -> None:
    answer = await served.client.post(f"{RUN}/lie", json={})
    assert (answer.status_code, answer.json()["code"]) == (422, "app-failed")
    assert answer.json()["invocation"]
    events = await all_events(served, "lie", json={})
    assert events[-1][0] == "error"
    assert events[-1][1]["code"] == "app-failed"
    assert {each["status"] for each in await invocations(served)} == {"failed"}


async def test_bad_input_is_refused_before_a_stream_begins(served: Any) -> None:
    answer = await served.client.post(f"{RUN}/echo", json={"n": "x"}, headers=EVENTS)
    assert answer.status_code == 422
    problem = answer.json()
    assert problem["code"] == "input-rejected"
    assert problem["detail"] == "text: is missing; n: must be of type integer"
    assert {each["pointer"] for each in problem["errors"]} == {"/text", "/n"}
    assert await invocations(served) == []


async def test_bad_input_is_told_in_the_callers_language(served: Any) -> None:
    answer = await served.client.post(f"{RUN}/echo", json={}, headers={"accept-language": "zh-CN,zh;q=0.9"})
    assert answer.json()["detail"] == "text：缺少此项"


async def test_the_error_that_ends_a_stream_is_told_in_the_callers_language(served: Any) -> None:
    events = await all_events(served, "lie", language="zh-CN", json={})
    assert "需由作者修正" in events[-1][1]["detail"]


async def test_a_run_is_written_down_before_anybody_outside_has_its_answer(served: Any) -> None:
    file = served.host.database.url.removeprefix("sqlite:///")
    with closing(sqlite3.connect(file)) as elsewhere:
        for action, status in (("echo", "succeeded"), ("lie", "failed")) * 5:
            with suppress(LlmasosError):
                await served.host.actions.run(
                    Principal(), "acme/tool", action, {"text": "x"} if action == "echo" else {}
                )
            newest = "SELECT status FROM invocation ORDER BY started_at DESC LIMIT 1"
            assert elsewhere.execute(newest).fetchone() == (status,)


async def test_why_an_invocation_failed_is_kept_in_both_languages(served: Any) -> None:
    answer = await served.client.post(f"{RUN}/lie", json={})
    address = f"/api/v1/invocations/{answer.json()['invocation']}"
    in_english = (await served.client.get(address)).json()["error"]
    in_chinese = (await served.client.get(address, headers={"accept-language": "zh-CN"})).json()["error"]
    assert in_english == {"code": "app-failed", "message": answer.json()["detail"]}
    assert "需由作者修正" in in_chinese["message"]
    listed = await served.client.get("/api/v1/invocations", headers={"accept-language": "zh-CN"})
    assert listed.json()["items"][0]["error"] == in_chinese


@pytest.mark.parametrize(
    ("body", "media", "status", "code"),
    [
        (b"{", "application/json", 400, "invalid-json"),
        (b"\xff", "application/json", 400, "invalid-json"),
        (b'{"a": NaN}', "application/json", 400, "invalid-json"),
        (b"[" * 100_000, "application/json", 400, "invalid-json"),
        (b"[1]", "application/json", 422, "input-rejected"),
        (b"text=a", "application/x-www-form-urlencoded", 415, "unsupported-media-type"),
        (b'{"text": "a"}', "text/plain", 415, "unsupported-media-type"),
        (b'{"text": "\xff"}', "application/json", 400, "invalid-json"),
        (b"x" * (3 << 20 | 1), "application/json", 413, "body-too-large"),
        (json.dumps({"text": "x" * (1 << 20)}).encode(), "application/json", 422, "input-rejected"),
    ],
)
async def test_a_bad_body_is_one_clear_problem(served: Any, body: bytes, media: str, status: int, code: str) -> None:
    answer = await served.client.post(f"{RUN}/echo", content=body, headers={"content-type": media})
    assert (answer.status_code, answer.json()["code"]) == (status, code)


async def test_an_input_is_measured_without_its_escapes(served: Any) -> None:
    """10-21: a body that is three times as long as its input, as Python's json module writes it."""
    schema = {"type": "object", "properties": {"text": {"type": "string"}}}

    async def measure(guest: Guest) -> object:
        return len(guest.input["text"])

    served.apps.add("acme/meter", measure=FakeAction(measure, schema))
    content = json.dumps({"text": "é" * 500_000})
    headers = {"content-type": "application/json"}
    answer = await served.client.post("/api/v1/apps/acme/meter/actions/measure", content=content, headers=headers)
    assert (answer.status_code, answer.json().get("output")) == (200, 500_000)


async def test_a_body_in_chunks_is_bounded_too(served: Any) -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b" " * 65536

    headers = {"content-type": "application/json"}
    try:
        answer = await served.client.post(f"{RUN}/echo", content=endless(), headers=headers)
    except httpx.TransportError:
        return  # the server answered and closed while we still sent
    assert (answer.status_code, answer.json()["code"]) == (413, "body-too-large")


async def test_an_unknown_app_and_a_hidden_one_look_the_same(served: Any) -> None:
    bounded = {"authorization": "Bearer bounded"}
    hidden = await served.client.post(f"{RUN}/echo", json={"text": "a"}, headers=bounded)
    unknown = await served.client.post("/api/v1/apps/acme/tool2/actions/echo", json={}, headers=bounded)
    assert hidden.status_code == unknown.status_code == 404
    assert hidden.json()["detail"].replace("acme/tool", "X") == unknown.json()["detail"].replace("acme/tool2", "X")
    assert (await served.client.post("/api/v1/apps/acme/other/actions/echo", headers=bounded)).status_code == 200


async def test_an_unknown_action_names_the_known_ones(served: Any) -> None:
    answer = await served.client.post(f"{RUN}/ecko", json={})
    assert answer.status_code == 404
    assert "echo" in answer.json()["detail"]


async def test_closing_a_stream_cancels_its_run(served: Any, caplog: pytest.LogCaptureFixture) -> None:
    async with served.client.stream("POST", f"{RUN}/wait", headers=EVENTS) as answer:
        assert (await anext(events_of(answer)))[0] == "chunk"
    await served.until_idle()
    assert served.ended == ["cancelled"]
    assert [each["status"] for each in await invocations(served)] == ["cancelled"]
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == []


async def test_hanging_up_on_a_json_run_cancels_it(served: Any) -> None:
    asking = asyncio.create_task(served.client.post(f"{RUN}/wait"))
    await served.until_started()
    asking.cancel()
    await asyncio.wait({asking})
    await served.until_idle()
    assert served.ended == ["cancelled"]


async def test_a_reader_who_does_not_read_holds_the_app_up_and_frees_it_when_gone(served: Any) -> None:
    async with served.client.stream("POST", f"{RUN}/flood", headers=EVENTS):
        await served.until_started()
        await asyncio.sleep(0.5)
        assert served.host.actions.active == 1
    await served.until_idle()


async def test_deleting_an_invocation_ends_its_stream_with_an_error(served: Any) -> None:
    async with served.client.stream("POST", f"{RUN}/wait", headers=EVENTS) as answer:
        events = events_of(answer)
        await anext(events)
        deleted = await served.client.delete(answer.headers["location"])
        assert deleted.status_code == 202
        rest = [event async for event in events]
    assert [name for name, _ in rest] == ["usage", "error"]
    assert rest[-1][1]["code"] == "cancelled"
    read = (await served.client.get(answer.headers["location"])).json()
    assert (read["status"], read["error"]["code"]) == ("cancelled", "cancelled")
    again = await served.client.delete(answer.headers["location"])
    assert (again.status_code, again.json()["status"]) == (202, "cancelled")


async def test_cancelling_shows_no_more_than_the_scope_run_may_see(served: Any) -> None:
    """11-S17: the answer to DELETE had the details and the log."""
    made = (await served.client.post(f"{RUN}/echo", json={"text": "a"}, headers={"authorization": "Bearer run"})).json()
    deleted = await served.client.delete(f"/api/v1/invocations/{made['id']}", headers={"authorization": "Bearer run"})
    assert (deleted.status_code, deleted.json()) == (202, {"id": made["id"], "status": "succeeded"})


async def test_an_invocation_of_somebody_else_does_not_exist(served: Any) -> None:
    made = (await served.client.post(f"{RUN}/echo", json={"text": "a"})).json()["id"]
    bob = {"authorization": "Bearer bob"}
    for method in ("GET", "DELETE"):
        answer = await served.client.request(method, f"/api/v1/invocations/{made}", headers=bob)
        assert answer.status_code == 404
    assert (await served.client.get("/api/v1/invocations", headers=bob)).json()["items"] == []
    bounded = {"authorization": "Bearer bounded"}
    assert (await served.client.get(f"/api/v1/invocations/{made}", headers=bounded)).status_code == 404


async def test_a_field_that_is_one_of_the_apps_settings_is_told_where_it_is_set(served: Any) -> None:
    served.apps.config["acme/tool"] = {"words": 300}
    answer = await served.client.post(f"{RUN}/echo", json={"text": "a", "words": 300})
    assert answer.json()["code"] == "input-rejected"
    assert "llmasos install acme/tool -c words=" in answer.json()["detail"]
    other = await served.client.post(f"{RUN}/echo", json={"text": "a", "other": 300})
    assert "-c" not in other.json()["detail"]


async def test_an_admin_sees_and_cancels_what_others_of_the_workspace_run(served: Any) -> None:
    bob, admin = {"authorization": "Bearer bob"}, {"authorization": "Bearer admin"}
    running = asyncio.create_task(served.client.post(f"{RUN}/wait", json={}, headers=bob))
    await served.until_started()
    [seen] = (await served.client.get("/api/v1/invocations", headers=admin)).json()["items"]
    assert (seen["user"], seen["status"]) == ("bob", "running")
    ended = await served.client.delete(f"/api/v1/invocations/{seen['id']}", headers=admin)
    assert ended.status_code == 202
    assert (await running).json()["code"] == "cancelled"
    read = await served.client.get(f"/api/v1/invocations/{seen['id']}", headers=admin)
    assert (read.json()["status"], read.json()["user"]) == ("cancelled", "bob")


async def test_a_cursor_of_what_one_may_not_see_is_refused(served: Any) -> None:
    bob, admin = {"authorization": "Bearer bob"}, {"authorization": "Bearer admin"}
    for _ in range(2):
        await served.client.post(f"{RUN}/echo", json={"text": "a"}, headers=bob)
    page = (await served.client.get("/api/v1/invocations?limit=1", headers=admin)).json()
    follow = f"/api/v1/invocations?cursor={page['next']}"
    assert len((await served.client.get(follow, headers=admin)).json()["items"]) == 1
    assert (await served.client.get(follow)).json()["code"] == "invalid-cursor"


async def test_invocations_are_listed_in_pages(served: Any) -> None:
    made = [(await served.client.post(f"{RUN}/echo", json={"text": "a"})).json()["id"] for _ in range(5)]
    listed: list[str] = []
    cursor: str | None = None
    while True:
        query = {"limit": 2} | ({"cursor": cursor} if cursor else {})
        page = (await served.client.get("/api/v1/invocations", params=query)).json()
        listed += [each["id"] for each in page["items"]]
        cursor = page["next"]
        if cursor is None:
            break
    assert listed == made[::-1]


@pytest.mark.parametrize("query", ["cursor=nonsense", "limit=0", "limit=x", "limit=201"])
async def test_a_bad_page_is_a_problem(served: Any, query: str) -> None:
    answer = await served.client.get(f"/api/v1/invocations?{query}")
    assert answer.status_code == 422
    assert answer.json()["code"] in ("invalid", "invalid-cursor")


async def test_stopping_ends_streams_with_an_error_and_settles(served: Any) -> None:
    async with served.client.stream("POST", f"{RUN}/wait", headers=EVENTS) as answer:
        events = events_of(answer)
        await anext(events)
        stopping = asyncio.create_task(served.host.stop())
        rest = [event async for event in events]
        await stopping
    assert rest[-1] == ("error", rest[-1][1])
    assert rest[-1][1]["code"] == "stopping"
    refused = await served.client.post(f"{RUN}/echo", json={"text": "a"})
    assert (refused.status_code, refused.json()["code"]) == (503, "stopping")
    assert (await served.client.get("/readyz")).status_code == 503
    assert (await served.client.get("/healthz")).status_code == 200
