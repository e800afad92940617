"""Running apps in the pages, and what was run, over HTTP: real pages, host and database; apps are functions here."""

import asyncio
import base64
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlmodel import select
from tests.server.web.conftest import Browser, Pages, serving

from llmasos.bundles.manifest import parse_manifest
from llmasos.bundles.testing import manifest_text
from llmasos.errors import AppFailed
from llmasos.host import HostParts
from llmasos.installs import repository
from llmasos.installs.tables import Installation, InstalledRelease
from llmasos.invocations import content, records
from llmasos.kernel.invocation import Event, Principal
from llmasos.quotas import service as quotas
from llmasos.quotas.meters import Meter, Scope, Window
from llmasos.quotas.service import QuotaName
from llmasos.testing import FakeAction, FakeApps, Guest
from llmasos_sdk.files import file_schema
from llmasos_server.accounts.people import Role
from llmasos_server.web import activity

EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>{{7*7}}"
PNG = "data:image/png;base64,iVBORw0KGgo="


class Apps(FakeApps):
    """Apps of the test; `wait` runs until it is released."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self.loop: asyncio.AbstractEventLoop | None = None
        self.released = asyncio.Event()
        text = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}
        closed = {**text, "additionalProperties": False}
        more = {
            **text["properties"],
            "count": {"type": "integer", "minimum": 1, "default": 2},
            "tags": {"type": "array", "items": {"type": "string"}, "default": []},
        }
        self.add(
            "acme/tool",
            echo=FakeAction(self.echo, {**closed, "properties": more}),
            wait=FakeAction(self.wait, text, streaming=True),
            table=FakeAction(self.table),
            evil=FakeAction(self.evil),
            fail=FakeAction(self.fail, streaming=True),
            read=FakeAction(self.read, {"type": "object", "properties": {"document": file_schema()}}),
        )
        self.add("acme/other", echo=FakeAction(self.echo))

    async def echo(self, guest: Guest) -> object:
        self.calls += 1
        return guest.input

    async def wait(self, guest: Guest) -> object:
        self.loop = asyncio.get_running_loop()
        await guest.invocation.emit(Event("chunk", "so far, "))
        await self.released.wait()
        self.released.clear()
        return f"**waited** for {guest.input['text']}"

    async def table(self, guest: Guest) -> object:
        return [{"name": "Ann", "sum": 12345.5, "note": "=1+1"}, {"name": "王", "sum": None}]

    async def evil(self, guest: Guest) -> object:
        guest.invocation.add_log(EVIL)
        await guest.invocation.emit(Event("notice", EVIL))
        svg = f"<svg xmlns='http://www.w3.org/2000/svg'>{EVIL}</svg>"
        file = {
            "name": f"../{EVIL}.html",
            "media_type": "text/html",
            "base64": base64.b64encode(EVIL.encode()).decode(),
        }
        return {
            EVIL: EVIL,
            "list": [EVIL, [EVIL]],
            "rows": [{EVIL: EVIL}],
            "svg": svg,
            "png": PNG,
            "file": file,
            "half": "\ud800",
        }

    async def read(self, guest: Guest) -> object:
        return [guest.input["document"]]

    async def fail(self, guest: Guest) -> object:
        await guest.invocation.emit(Event("chunk", "half of it"))
        raise AppFailed(f"It broke: {EVIL}")

    def release(self) -> None:
        assert self.loop is not None
        self.loop.call_soon_threadsafe(self.released.set)


@pytest.fixture(scope="module")
def apps() -> Apps:
    return Apps()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, apps: Apps) -> Iterator[Pages]:
    home: Path = tmp_path_factory.mktemp("running")
    with serving(home, HostParts(runnables=lambda _: apps, runtimes={"wasm": apps.runtime})) as pages:
        yield pages


@pytest.fixture(scope="module")
def owner(running: Pages) -> Browser:
    return running.owner()


def begin(browser: Browser, action: str, **fields: str) -> str:
    """Run an action by its form; returns the run's id."""
    assert browser.get(f"/apps/acme/tool?action={action}").status_code == 200
    sent = browser.send(f"/apps/acme/tool/actions/{action}", **{f"in/{name}": value for name, value in fields.items()})
    assert sent.status_code == 303, sent.text
    found = re.fullmatch(rf"/apps/acme/tool\?action={action}&run=([0-9a-f]{{32}})", sent.headers["location"])
    assert found, sent.headers["location"]
    return found[1]


def events_of(browser: Browser, id_: str, after: int = 0) -> list[tuple[int, str, Any]]:
    """The events of a run, to its end."""
    with browser.client.stream("GET", f"/activity/{id_}/events", headers={"last-event-id": str(after)}) as stream:
        assert stream.status_code == 200
        text = stream.read().decode()
    found: list[tuple[int, str, Any]] = []
    for block in text.strip().split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        found.append((int(lines["id"]), lines["event"], json.loads(lines["data"])))
    return found


def ended(browser: Browser, action: str, **fields: str) -> str:
    """Run an action to its end."""
    id_ = begin(browser, action, **fields)
    events_of(browser, id_)
    return id_


def test_a_form_runs_an_action_and_shows_its_answer(owner: Browser) -> None:
    """12-6: the form left, the answer right; without any script."""
    id_ = begin(owner, "echo", text="line one\r\nline two", count="3")
    events_of(owner, id_)
    html = owner.get(f"/apps/acme/tool?action=echo&run={id_}").text
    assert "line one\nline two</textarea>" in html
    assert 'value="3"' in html
    assert re.search(r"<dt>text</dt><dd>\s*<div class=\"prose\"[^>]*><p>line one\s+line two</p>", html)
    assert 'name="once"' in html


def test_a_fault_is_shown_at_its_field_and_nothing_runs(owner: Browser, apps: Apps) -> None:
    """12-6: values are parsed strictly on the server."""
    before = apps.calls
    for fields, name in (
        ({"in/text": ""}, "in/text"),
        ({"in/text": "x", "in/count": "0"}, "in/count"),
        ({"in/text": "x", "in/count": "1.5"}, "in/count"),
    ):
        owner.get("/apps/acme/tool?action=echo")
        refused = owner.send("/apps/acme/tool/actions/echo", **fields)
        assert refused.status_code == 422
        assert f'id="{name}-fault"' in refused.text
        assert refused.text.count("-fault") == 2
    assert apps.calls == before


def test_what_no_form_can_express_is_checked_as_well(owner: Browser) -> None:
    for text, told in (("[1]", "must be a JSON object"), ("{", "This is not JSON")):
        owner.get("/apps/acme/tool?action=table")
        refused = owner.send("/apps/acme/tool/actions/table", **{"in": text})
        assert refused.status_code == 422
        assert told in refused.text


def test_a_file_goes_in_and_comes_out(owner: Browser) -> None:
    """12-7: files in forms; its name and type are the browser's, and it is saved as it was."""
    html = owner.get("/apps/acme/tool?action=read").text
    assert 'enctype="multipart/form-data"' in html
    fields = dict(re.findall(r'name="(form_token|once)" value="([0-9a-f]+)"', html))
    content = bytes(range(256)) * 100
    files = {"in/document": ("../année <b>.pdf", content, "application/pdf")}
    origin = {"origin": str(owner.client.base_url).rstrip("/")}
    sent = owner.client.post("/apps/acme/tool/actions/read", data=fields, files=files, headers=origin)
    assert sent.status_code == 303, sent.text
    id_ = sent.headers["location"].rpartition("=")[2]
    events_of(owner, id_)
    shown = owner.get(f"/apps/acme/tool?action=read&run={id_}").text
    assert "année &lt;b&gt;.pdf" in shown
    saved = owner.get(f"/activity/{id_}/files/0")
    assert saved.content == content
    assert "filename*=UTF-8''ann%C3%A9e%20%3Cb%3E.pdf" in saved.headers["content-disposition"]


def test_a_run_past_a_quota_is_refused_and_the_form_keeps_what_was_written(running: Pages) -> None:
    """12-6: an error says what was not done, and nothing that was written is lost."""
    user = running.member("max", Role.MEMBER)
    with running.database.write() as session:
        name = QuotaName("default", Scope.USER, user, Meter.INVOCATIONS, Window.DAY, "operator")
        quotas.set_quota(session, lambda *_: None, name, 1)
    browser = running.signed_in("max")
    ended(browser, "echo", text="first")
    browser.get("/apps/acme/tool?action=echo")
    refused = browser.send("/apps/acme/tool/actions/echo", **{"in/text": "my long text"})
    assert refused.status_code == 429
    assert 'role="alert"' in refused.text
    assert "my long text</textarea>" in refused.text


def test_a_row_is_added_without_running(owner: Browser, apps: Apps) -> None:
    before = apps.calls
    owner.get("/apps/acme/tool?action=echo")
    shown = owner.send("/apps/acme/tool/actions/echo", **{"in/text": "kept", "in/tags/0": "one", "more": "in/tags"})
    assert shown.status_code == 200
    assert 'name="in/tags/1"' in shown.text
    assert "kept</textarea>" in shown.text
    assert apps.calls == before


def test_a_form_that_is_sent_twice_runs_once(owner: Browser, apps: Apps) -> None:
    """12-5: a double click, or a browser that sends again, pays once."""
    before = apps.calls
    owner.get("/apps/acme/tool?action=echo")
    form = owner.last
    sent = []
    for text in ("same", "same", "another"):
        owner.last = form
        sent.append(owner.send("/apps/acme/tool/actions/echo", **{"in/text": text}).headers["location"])
    for each in set(sent):
        events_of(owner, each.rpartition("=")[2])
    assert sent[0] == sent[1] != sent[2]
    assert apps.calls == before + 2


def test_a_run_streams_and_a_reload_in_the_middle_resumes(owner: Browser, apps: Apps) -> None:
    """12-6: closing the page does not end the run; any number of readers follow it from any event on."""
    id_ = begin(owner, "wait", text="you")
    with owner.client.stream("GET", f"/activity/{id_}/events") as stream:
        first = next(iter(stream.iter_text()))
        assert "so far, " in first
    shown = owner.get(f"/apps/acme/tool?action=wait&run={id_}").text
    assert f'data-events="/activity/{id_}/events"' in shown
    assert "you</textarea>" in shown
    assert '<noscript><meta http-equiv="refresh"' in shown
    assert "Running" in owner.get("/activity").text
    apps.release()
    kinds = [kind for _number, kind, _data in events_of(owner, id_)]
    assert kinds == ["chunk", "usage", "end"]
    assert [kind for _number, kind, _data in events_of(owner, id_, after=1)] == ["usage", "end"]
    assert owner.get(f"/activity/{id_}/events", **{"last-event-id": "3"}).status_code == 204
    fragment = owner.get(f"/activity/{id_}/answer").text
    assert "<strong>waited</strong> for you" in fragment
    assert "<html" not in fragment
    assert "http-equiv" not in owner.get(f"/apps/acme/tool?action=wait&run={id_}").text


def test_a_run_is_stopped_by_a_form(owner: Browser) -> None:
    """12-6: Stop."""
    id_ = begin(owner, "wait", text="x")
    owner.get(f"/apps/acme/tool?action=wait&run={id_}")
    stopped = owner.send(f"/activity/{id_}/stop")
    assert (stopped.status_code, stopped.headers["location"]) == (303, f"/apps/acme/tool?action=wait&run={id_}")
    assert events_of(owner, id_)[-1][1] == "error"
    html = owner.get(f"/activity/{id_}").text
    assert "It was stopped." in html
    assert "so far," in html


def test_what_a_failed_run_had_shown_is_kept_with_its_reason(owner: Browser) -> None:
    html = owner.get(f"/activity/{ended(owner, 'fail')}").text
    assert "half of it" in html
    assert "It broke: &lt;script&gt;" in html


def test_records_are_a_table_and_a_file(owner: Browser) -> None:
    """12-6: a list of objects as a table with CSV; numbers by the locale; no cell is a formula."""
    id_ = ended(owner, "table")
    html = owner.get(f"/activity/{id_}").text
    assert '<th scope="col">name</th>' in html
    assert "<td>12,345.5</td>" in html
    saved = owner.get(f"/activity/{id_}/output?as=csv")
    assert saved.content.decode("utf-8-sig").splitlines() == ["name,sum,note", "Ann,12345.5,'=1+1", "王,,"]
    assert saved.headers["content-disposition"].startswith('attachment; filename="tool-table-')
    assert json.loads(owner.get(f"/activity/{id_}/output").text)[1] == {"name": "王", "sum": None}


def test_nothing_that_an_app_writes_runs_in_a_page(owner: Browser) -> None:
    """12: XSS in outputs, logs, messages, names of files, SVG; each as text, or as a picture by <img>."""
    id_ = ended(owner, "evil")
    for path in (f"/activity/{id_}", f"/apps/acme/tool?run={id_}", f"/activity/{id_}/answer", "/activity"):
        html = owner.get(path).text
        assert "<script>alert" not in html
        assert "<img src=x" not in html
        assert "<svg xmlns" not in html
        assert "{{7*7}}" in html or path == "/activity"
    html = owner.get(f"/activity/{id_}").text
    assert '<img src="data:image/svg+xml;base64,' in html
    assert f'<img src="{PNG}"' in html
    saved = owner.get(f"/activity/{id_}/files/2")
    assert saved.content.decode() == EVIL
    assert saved.headers["content-type"] == "application/octet-stream"
    assert saved.headers["content-disposition"].startswith("attachment; ")
    assert "/" not in saved.headers["content-disposition"].partition("filename=")[2].partition(";")[0]
    assert saved.headers["content-security-policy"].startswith("sandbox")
    assert owner.get(f"/activity/{id_}/files/3").status_code == 404


def test_activity_is_filtered_and_paged(running: Pages, owner: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    """12-6: by app, state and day; the newest first, each once."""
    monkeypatch.setattr(activity, "PAGE_SIZE", 3)
    running.member("pat", Role.MEMBER)
    browser = running.signed_in("pat")
    assert "No runs yet" in browser.get("/activity").text
    ids = [ended(browser, "echo", text=str(number)) for number in range(activity.PAGE_SIZE + 2)]
    ids.append(ended(browser, "fail"))
    seen: list[str] = []
    path = "/activity"
    while path:
        html = browser.get(path).text
        seen += re.findall(r'<li><a href="/activity/([0-9a-f]{32})"', html)
        older = re.search(r'href="(/activity\?[^"]*before=[^"]+)"', html)
        path = older[1].replace("&amp;", "&") if older else ""
    assert seen == ids[::-1]
    assert f"/activity/{ids[-1]}" in browser.get("/activity?state=failed").text
    assert "No run matches" in browser.get("/activity?state=cancelled").text
    assert "No run matches" in browser.get("/activity?app=acme/other").text
    assert "No run matches" in browser.get("/activity?day=2001-01-01").text
    today = datetime.now().astimezone().date().isoformat()
    assert ids[-1] in browser.get(f"/activity?day={today}&app=acme/tool").text
    for odd in ("/activity?day=x&state=<b>&who=all", "/activity?day=9999-12-31", "/activity?day=0001-01-01"):
        assert browser.get(odd).status_code == 200
    assert browser.get(f"/activity?before={'0' * 32}").status_code == 404
    assert ids[-1] not in owner.get("/activity").text
    assert ids[-1] in owner.get("/activity?who=all").text


def test_what_a_run_was_given_is_deleted_and_that_it_ran_stays(running: Pages, owner: Browser) -> None:
    id_ = ended(owner, "echo", text="a secret thought")
    assert "a secret thought" in owner.get(f"/activity/{id_}").text
    assert owner.send(f"/activity/{id_}/delete").status_code == 303
    html = owner.get(f"/activity/{id_}").text
    assert "a secret thought" not in html
    assert "its answer is not kept" in html
    assert owner.get(f"/activity/{id_}/output").status_code == 404


def test_another_s_run_is_not_there(running: Pages, owner: Browser, apps: Apps) -> None:
    """12: ids of others guessed on every route; "not yours" is answered as "not there"."""
    running.member("sam", Role.MEMBER)
    browser = running.signed_in("sam")
    browser.get("/apps/acme/tool")
    token = re.search('name="form_token" value="([0-9a-f]{64})"', browser.last.text)
    assert token
    theirs = begin(owner, "wait", text="x")
    for id_ in (theirs, "0" * 32, "x", "%2e%2e"):
        for path in ("", "/answer", "/events", "/output", "/files/0"):
            assert browser.get(f"/activity/{id_}{path}").status_code == 404
        for path in ("/stop", "/delete"):
            assert browser.post(f"/activity/{id_}{path}", form_token=token[1]).status_code == 404
        assert browser.get(f"/apps/acme/tool?run={id_}").status_code == 404
    apps.release()
    assert events_of(owner, theirs)[-1][1] == "end"
    assert owner.get(f"/apps/acme/other?run={theirs}").status_code == 404
    for path in ("/apps/acme/none", "/apps/acme/tool?action=none", "/apps/acme/tool?action=@install"):
        assert browser.get(path).status_code == 404


def test_a_viewer_looks_and_runs_nothing(running: Pages, apps: Apps) -> None:
    """12-2: every page checks the role."""
    running.member("vic", Role.VIEWER)
    browser = running.signed_in("vic")
    html = browser.get("/apps/acme/tool?action=echo").text
    assert "but not run them" in html
    before = apps.calls
    assert browser.send("/apps/acme/tool/actions/echo", **{"in/text": "x"}).status_code == 403
    for path in ("/activity/0/stop", "/activity/0/delete"):
        assert browser.post(path).status_code == 403
    assert apps.calls == before


def test_a_run_needs_a_form_of_this_session(owner: Browser, apps: Apps) -> None:
    """12: CSRF."""
    before = apps.calls
    assert owner.post("/apps/acme/tool/actions/echo", **{"in/text": "x"}).status_code == 403
    assert owner.post("/activity/0/stop", form_token="0" * 64).status_code == 403
    assert apps.calls == before


def test_an_address_fills_in_a_form_and_runs_nothing(owner: Browser, apps: Apps) -> None:
    """12-6: a link to the form, which others may have written."""
    before = apps.calls
    query = {"action": "echo", "in/text": EVIL, "in/count": "7"}
    html = owner.client.get("/apps/acme/tool", params=query).text
    assert "<script>alert" not in html
    assert "&lt;script&gt;alert(1)" in html
    assert 'value="7"' in html
    assert apps.calls == before


def test_a_stream_ends_with_its_session(running: Pages, owner: Browser, apps: Apps) -> None:
    """12: a session that is ended while it follows a run."""
    running.member("kim", Role.MEMBER)
    browser = running.signed_in("kim")
    id_ = begin(browser, "wait", text="x")
    other = running.signed_in("kim")
    other.client.cookies = httpx.Cookies(browser.client.cookies)
    with other.client.stream("GET", f"/activity/{id_}/events") as stream:
        parts = stream.iter_text()
        assert "so far" in next(parts)
        token = re.search('name="form_token" value="([0-9a-f]{64})"', browser.get("/activity").text)
        assert token
        assert browser.post("/sign-out", form_token=token[1]).status_code == 303
        assert "".join(parts) == ""
    apps.release()


def test_a_switch_keeps_nothing_and_the_pages_say_so(running: Pages, owner: Browser) -> None:
    with running.database.write() as session:
        content.set_retention_days(session, Principal(), 0)
    try:
        html = owner.get(f"/activity/{ended(owner, 'echo', text='unkept words')}").text
    finally:
        with running.database.write() as session:
            content.set_retention_days(session, Principal(), 30)
    assert "its answer is not kept" in html
    assert "The input is not kept." in html


def test_every_page_is_in_the_readers_language(running: Pages, owner: Browser) -> None:
    id_ = ended(owner, "table")
    browser = running.owner()
    browser.client.cookies.set("llmasos_locale", "zh")
    for path, word in (("/activity", "活动"), (f"/activity/{id_}", "回答"), (f"/apps/acme/tool?run={id_}", "再次运行")):
        assert word in browser.get(path).text


def install(pages: Pages, app_id: str) -> None:
    """The rows of an installed app, which Home lists."""
    with pages.database.write() as session:
        repository.ensure_workspace(session, "default")
        at = datetime.now(UTC)
        session.add(
            Installation(id=app_id, workspace_id="default", app_id=app_id, installed_by="local", installed_at=at)
        )
        session.flush()
        manifest = parse_manifest(manifest_text(app_id)).model_dump(mode="json", by_alias=True, exclude_none=True)
        manifest["name"] = {"en": f"{EVIL} {app_id}"}
        empty: dict[str, Any] = {"limits": {}, "config": {}, "lock": {}, "actions": []}
        release = InstalledRelease(
            **{
                "installation_id": app_id,
                "version": "1.0.0",
                "digest": "d",
                "component_digest": "c",
                "runtime": "wasm",
            },
            **{"manifest": manifest, "state": "current", "created_at": at, **empty},
        )
        session.add(release)
        session.flush()
        session.exec(select(Installation).where(Installation.id == app_id)).one().current_id = release.id


def test_home_launches_the_app_that_was_used_last(running: Pages, owner: Browser) -> None:
    """12-6: installed apps as a grid, the last used first; recent runs; three cards for a first visit."""
    running.member("new", Role.MEMBER)
    browser = running.signed_in("new")
    first = browser.get("/").text
    assert 'href="/store"' in first
    assert "Try an app" in first
    assert "Ask an administrator" in first
    for app_id in ("acme/tool", "acme/other", "acme/another"):
        install(running, app_id)
    assert 'href="/apps/acme/another"' in browser.get("/").text
    id_ = ended(browser, "echo", text="x")
    html = browser.get("/").text
    assert re.findall(r'<li><a href="/apps/([^"]+)"', html) == ["acme/tool", "acme/another", "acme/other"]
    assert f'href="/activity/{id_}"' in html
    assert "Try an app" not in html
    assert "<script>alert" not in html + browser.get("/activity").text + browser.get("/apps/acme/tool").text


def test_listing_narrows_by_every_filter(running: Pages, owner: Browser) -> None:
    with running.database.read() as session:
        rows = records.listing(session, "default", None, 500)
        failed = records.listing(session, "default", None, 500, status="failed")
        begun = min(row.started_at for row in rows)
        earlier = records.listing(session, "default", None, 500, started=(begun, max(row.started_at for row in rows)))
        assert {row.status for row in failed} == {"failed"}
        assert len(earlier) == len(rows) - 1
