"""`/activity`: what was run, and each run with its input, output, calls and log, live while it runs."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Final, cast
from urllib.parse import quote, urlencode

from fastapi import Header, Query
from starlette.responses import Response

from llmasos.bundles.manifest import Manifest
from llmasos.errors import NotFound
from llmasos.installs import repository
from llmasos.invocations import records
from llmasos.invocations.tables import InvocationRow
from llmasos.kernel import audit
from llmasos_server.rest import sse
from llmasos_server.rest.context import host_of
from llmasos_server.rest.identity import Revocations, TokenScope
from llmasos_server.web.formats import Formats
from llmasos_server.web.page import Shown, View, local, pages, redirect
from llmasos_server.web.presenter import Download, download_of, file_of, present
from llmasos_server.web.run_answers import answer_of, day_bounds, find_run
from llmasos_server.web.running import installed_card

router = pages()

PAGE_SIZE: Final = 30
STATES: Final = ("running", "succeeded", "failed", "cancelled")
MAX_CALLS: Final = 200


@dataclass(frozen=True, slots=True)
class RunLine:
    """A run in a list."""

    id: str
    app: str
    action: str
    status: str
    started: str
    seconds: str
    user: str


@dataclass(frozen=True, slots=True)
class CallLine:
    """What a run did outside its sandbox: one call of a host function."""

    event: str
    outcome: str
    at: str
    detail: str


@router.get("/activity")
async def activity(
    view: Shown,
    *,
    app: str = "",
    state: str = "",
    day: str = "",
    who: str = "",
    before: Annotated[str, Query(max_length=64)] = "",
) -> Response:
    """The runs of whoever looks, or for an administrator who asks everybody's; the newest first."""
    known = view.require(TokenScope.READ)
    is_admin = TokenScope.ADMIN in known.role.scopes
    everybody = is_admin and who == "all"
    filters = {"app": app, "state": state if state in STATES else "", "day": day if day_bounds(day) else ""}
    filters["who"] = "all" if everybody else ""

    def read() -> tuple[list[InvocationRow], dict[str, str]]:
        with host_of(view.request).database.read() as session:
            user = None if everybody else known.user.id
            mark = records.find(session, before, known.principal.workspace, user) if before else None
            if before and mark is None:
                raise NotFound
            rows = records.listing(
                *(session, known.principal.workspace, user, PAGE_SIZE + 1),
                before=mark,
                app_id=filters["app"] or None,
                status=filters["state"] or None,
                started=day_bounds(filters["day"]),
            )
            return rows, app_names(view)

    rows, names = await asyncio.to_thread(read)
    shown = rows[:PAGE_SIZE]
    chosen = {key: value for key, value in filters.items() if value}
    older = "/activity?" + urlencode({**chosen, "before": shown[-1].id}) if len(rows) > PAGE_SIZE else ""
    return view.render(
        "activity.html.jinja",
        runs=[run_line(view, row, names) for row in shown],
        apps=sorted({**names, **({app: names.get(app, app)} if app else {})}.items(), key=lambda each: each[1]),
        filters=filters,
        older=older,
        is_filtered=bool(chosen),
        is_admin=is_admin,
    )


@router.get("/activity/{id_}")
async def run(view: Shown, id_: str) -> Response:
    """A run."""
    row = await find_run(view, id_)
    answer = await answer_of(view, row)
    given = answer.content.input if answer.content and answer.content.input_json else None
    calls = await asyncio.to_thread(_calls, view, row)
    formats = Formats(view.locale)
    return view.render(
        "run_record.html.jinja",
        answer=answer,
        app=installed_card(view, row.app_id) if row.app_id else None,
        given=present(given, view.locale) if given else None,
        calls=calls,
        started=formats.at(row.started_at),
        ended=formats.at(row.ended_at) if row.ended_at else "",
    )


@router.get("/activity/{id_}/answer")
async def answer_fragment(view: Shown, id_: str) -> Response:
    """How a run stands, as a part of a page: what the script puts in place of the stream once it has ended."""
    answer = await answer_of(view, await find_run(view, id_))
    return view.render("answer_alone.html.jinja", answer=answer)


@router.get("/activity/{id_}/events")
async def events(view: Shown, id_: str, last_event_id: Annotated[int, Header(ge=0, le=1 << 53)] = 0) -> Response:
    """The events of a run, from the first or any later one; whoever goes away ends nothing."""
    row = await find_run(view, id_)
    known = view.require(TokenScope.READ)
    journal = await host_of(view.request).invocations.events(row)
    if sse.has_all(journal, last_event_id):
        return Response(status_code=204)  # which keeps a browser from asking again
    ends = cast("Revocations", view.request.app.state.session_ends)
    return sse.JournalStream(id_, journal, last_event_id, view.locale, partial(ends.until_revoked, known.session_id))


@router.post("/activity/{id_}/stop")
async def stop(view: Shown, id_: str) -> Response:
    """End a run, wherever it runs."""
    known = view.require(TokenScope.RUN)
    form = await view.form()
    row = await find_run(view, id_)
    invocations = host_of(view.request).invocations
    await invocations.cancel(row.id, known.principal, of_anybody=TokenScope.ADMIN in known.role.scopes)
    return redirect(local(str(form.get("next", ""))) if form.get("next") else f"/activity/{id_}")


@router.post("/activity/{id_}/delete")
async def delete(view: Shown, id_: str) -> Response:
    """Delete what a run was given, showed, returned and logged."""
    view.require(TokenScope.RUN)
    await view.form()
    row = await find_run(view, id_)
    await host_of(view.request).invocations.delete_content(row, view.principal)
    return redirect(f"/activity/{id_}")


@router.get("/activity/{id_}/output")
async def output(view: Shown, id_: str, form: Annotated[str, Query(alias="as")] = "") -> Response:
    """The answer of a run, as a file."""
    row = await find_run(view, id_)
    stem = f"{(row.app_id or 'run').rpartition('/')[2]}-{row.action}-{id_[:8]}"
    found = await _output(view, row)
    return attachment(await asyncio.to_thread(download_of, found, stem, as_csv=form == "csv"))


@router.get("/activity/{id_}/files/{number}")
async def file(view: Shown, id_: str, number: int) -> Response:
    """A file of a run's answer."""
    found = await asyncio.to_thread(file_of, await _output(view, await find_run(view, id_)), number)
    if found is None:
        raise NotFound
    return attachment(found)


def attachment(download: Download) -> Response:
    """A file that the browser saves, and never shows as a page of ours."""
    plain = "".join(each if each.isascii() and (each.isalnum() or each in "._-") else "_" for each in download.name)
    disposition = f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(download.name, safe='')}"
    headers = {"content-disposition": disposition, "content-security-policy": "sandbox; default-src 'none'"}
    return Response(download.content, media_type=download.media_type, headers=headers)


async def _output(view: View, row: InvocationRow) -> Any:
    content = await host_of(view.request).invocations.content(row)
    if content is None or content.output_json is None:
        raise NotFound
    return content.output


def app_names(view: View) -> dict[str, str]:
    """The names of the workspace's apps, by their ids."""
    with host_of(view.request).database.read() as session:
        return {
            installation.app_id: Manifest.model_validate(release.manifest).name.in_locale(view.locale)
            for installation, release in repository.all_current(session, view.principal.workspace)
        }


def run_line(view: View, row: InvocationRow, names: dict[str, str]) -> RunLine:
    """A run in a list."""
    formats = Formats(view.locale)
    app = names.get(row.app_id, row.app_id) if row.app_id else ""
    seconds = formats.number(round(row.duration_ms / 1000, 1)) if row.ended_at else ""
    return RunLine(row.id, app, row.action, row.status, formats.at(row.started_at), seconds, row.user_id)


def _calls(view: View, row: InvocationRow) -> list[CallLine]:
    formats = Formats(view.locale)
    with host_of(view.request).database.read() as session:
        lines = audit.of_invocation(session, row.workspace_id, row.id, MAX_CALLS)
        # The invocation's own end is a line too; a call is named `model.generate`.
        called = [line for line in lines if "." in line.event and not line.event.startswith("invocation.")]
        return [CallLine(each.event, each.outcome, formats.at(each.at), _detail(each.detail)) for each in called]


def _detail(detail: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in detail.items() if isinstance(value, str | int | float))
