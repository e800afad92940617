"""`/admin`, `/admin/audit`, `/admin/plugins`: how the host does, and what was done."""

from __future__ import annotations

import asyncio
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Final

from fastapi import Query
from sqlmodel import col, select
from starlette.responses import Response

from llmasos.errors import NotFound
from llmasos.home import WORKSPACE
from llmasos.kernel.audit import Verification, verify
from llmasos.kernel.tables import AuditEntry
from llmasos.printable import one_line
from llmasos_server.accounts import people
from llmasos_server.accounts.sessions import SignedIn
from llmasos_server.doctor import check_home, check_log, check_schema, examine
from llmasos_server.doctor_machine import Finding, check_model
from llmasos_server.rest.context import host_of
from llmasos_server.rest.identity import TokenScope
from llmasos_server.web.page import Shown, View, pages

router = pages()

LINES: Final = 50
Before = Annotated[int | None, Query(ge=0, le=1 << 62)]
_RANK: Final = {"problem": 0, "note": 1, "ok": 2}


def operator(view: View) -> SignedIn:
    """Whoever administers the host itself: an administrator of the workspace that it began with.

    Raises:
        NotFound: An administrator of another workspace: "not yours" answers as "not there".
    """
    known = view.require(TokenScope.ADMIN)
    if not is_operator(view):
        raise NotFound
    return known


def is_operator(view: View) -> bool:
    """Whether models, plugins and the host's health are this administrator's."""
    known = view.signed_in
    return known is not None and TokenScope.ADMIN in known.role.scopes and known.principal.workspace == WORKSPACE


@router.get("/admin")
async def overview(view: Shown) -> Response:
    """What is quick to know."""
    view.require(TokenScope.ADMIN)
    settings = host_of(view.request).settings
    findings: list[Finding] = []
    if is_operator(view):
        findings = await asyncio.to_thread(_quick, settings.home, settings.resolved_database_url)
    return _overview(view, findings, full=False)


@router.post("/admin/checks")
async def check_all(view: Shown) -> Response:
    """Everything that `llmasos doctor` checks."""
    operator(view)
    await view.form()
    settings = host_of(view.request).settings

    async def look() -> list[Finding]:
        return [finding async for finding in examine(settings.home, settings.resolved_database_url)]

    # In a thread with a loop of its own: several of the checks read whole tables.
    findings = await asyncio.to_thread(lambda: asyncio.run(look()))
    return _overview(view, findings, full=True)


def _quick(home: Path, url: str) -> list[Finding]:
    return [check_home(home), check_schema(url), check_model(home), check_log(home)]


def _overview(view: View, findings: list[Finding], *, full: bool) -> Response:
    host = host_of(view.request)
    workspace = view.principal.workspace
    with host.database.read() as session:
        members = len(people.members(session, workspace))
    return view.render(
        "admin.html.jinja",
        operator=is_operator(view),
        findings=sorted(findings, key=lambda each: _RANK[each.status]),
        problems=sum(each.status == "problem" for each in findings),
        full=full,
        version=version("llmasos"),
        running=host.actions.active if is_operator(view) else None,
        members=members,
    )


@router.get("/admin/audit")
async def audit(
    view: Shown,
    before: Annotated[int | None, Query(ge=0, le=1 << 62)] = None,
    checked: Annotated[bool, Query()] = False,
) -> Response:
    """The newest lines, older ones page by page, and whether all are as they were written."""
    view.require(TokenScope.ADMIN)
    return await asyncio.to_thread(_audit, view, before, checked)


def _audit(view: View, before: int | None, checked: bool) -> Response:
    workspace = view.principal.workspace
    query = select(AuditEntry).where(AuditEntry.workspace_id == workspace)
    if before is not None:
        query = query.where(col(AuditEntry.seq) < before)
    found: Verification | None = None
    with host_of(view.request).database.read() as session:
        rows = session.exec(query.order_by(col(AuditEntry.seq).desc()).limit(LINES + 1)).all()
        names = {each.id: each.name for each in people.members(session, workspace)}
        if checked:
            found = verify(session, workspace)
        lines = [(row, names.get(row.user_id, row.user_id), _detail(row)) for row in rows[:LINES]]
        return view.render(
            "admin_audit.html.jinja",
            operator=is_operator(view),
            lines=lines,
            older=rows[LINES - 1].seq if len(rows) > LINES else None,
            newest=before is None,
            found=found,
            workspace=workspace,
        )


def _detail(row: AuditEntry) -> str:
    return one_line(", ".join(f"{name}: {value}" for name, value in row.detail.items()))


@router.get("/admin/plugins")
async def plugins(view: Shown) -> Response:
    """What extends the host, and why something does not."""
    operator(view)
    host = host_of(view.request)
    states = await asyncio.to_thread(host.plugins.states)
    return view.render("admin_plugins.html.jinja", operator=True, plugins=states, enabled=host.settings.plugins == "on")
