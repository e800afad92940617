"""`/admin/quotas`, `/admin/secrets`: what may be used, and the names of what is kept secret."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from starlette.datastructures import FormData
from starlette.responses import Response

from llmasos.database.engine import WriteSession
from llmasos.errors import Invalid, LlmasosError
from llmasos.i18n import _
from llmasos.installs import repository as installs
from llmasos.kernel import audit
from llmasos.kernel.audit import Line
from llmasos.kernel.invocation import Principal
from llmasos.quotas import service as quotas
from llmasos.quotas.meters import Meter, Scope, Window
from llmasos.quotas.service import OPERATOR, QuotaName, Recorder
from llmasos.secrets import Secrets
from llmasos_server.accounts import people
from llmasos_server.rest.context import host_of
from llmasos_server.rest.identity import TokenScope
from llmasos_server.web.admin import is_operator
from llmasos_server.web.page import Shown, View, field, pages, redirect
from llmasos_server.web.settings import Done, writing

router = pages()

DONE: Final = {"set": _("The limit is set."), "removed": _("The limit is removed.")}


@router.get("/admin/quotas")
async def all_quotas(view: Shown, done: Done = "") -> Response:
    """Every quota, and the form to set one."""
    return await asyncio.to_thread(_quotas, view, done=done)


@router.post("/admin/quotas")
async def set_quota(view: Shown) -> Response:
    """Set a quota, or change its limit."""
    view.require(TokenScope.ADMIN)
    form = await view.form()

    def change(session: WriteSession, by: Principal) -> None:
        scope, _colon, scope_id = field(form, "for").partition(":")
        name = _name(by, form, scope, scope_id or by.workspace)
        limit = field(form, "limit").strip()
        if not (limit.isascii() and limit.isdecimal() and len(limit) < 20):
            raise Invalid(_("Write the limit as a whole number."))
        if name.scope is Scope.USER:
            people.require_member(session, by.workspace, name.scope_id)
        if name.scope is Scope.MODEL:
            host_of(view.request).gateway.registry.get(name.scope_id)
        quotas.check_subject(session, name)
        quotas.set_quota(session, _recorder(session, by), name, int(limit))

    try:
        await asyncio.to_thread(writing, view, change)
    except LlmasosError as error:
        return await asyncio.to_thread(_quotas, view, error)
    return redirect("/admin/quotas?done=set")


@router.post("/admin/quotas/remove")
async def remove_quota(view: Shown) -> Response:
    """Remove a quota that an administrator set."""
    view.require(TokenScope.ADMIN)
    form = await view.form()

    def remove(session: WriteSession, by: Principal) -> None:
        name = _name(by, form, field(form, "scope"), field(form, "scope_id"))
        quotas.remove_quota(session, _recorder(session, by), name)

    await asyncio.to_thread(writing, view, remove)
    return redirect("/admin/quotas?done=removed")


@router.get("/admin/secrets")
async def secrets(view: Shown) -> Response:
    """The names of the workspace's secrets; a value is shown to nobody."""
    view.require(TokenScope.ADMIN)
    host, workspace = host_of(view.request), view.principal.workspace

    def read() -> Response:
        with host.database.read() as session:
            names = {each.id: each.name for each in people.members(session, workspace)}
            found = Secrets(host.settings.home).of_workspace(session, workspace)
        listed = [(names.get(user, user), app, name) for user, app, name in found]
        return view.render("admin_secrets.html.jinja", operator=is_operator(view), secrets=listed)

    return await asyncio.to_thread(read)


def _name(by: Principal, form: FormData, scope: str, scope_id: str) -> QuotaName:
    try:
        found = Scope(scope), Meter(field(form, "meter")), Window(field(form, "window"))
    except ValueError as error:
        raise Invalid(_("Choose for whom, of what and over which time.")) from error
    return QuotaName(by.workspace, found[0], scope_id, found[1], found[2])


def _recorder(session: WriteSession, by: Principal) -> Recorder:
    def record(event: str, detail: Mapping[str, Any]) -> None:
        audit.record(session, Line(by.workspace, by.user, event, detail=detail))

    return record


def _quotas(view: View, error: LlmasosError | None = None, *, done: str = "") -> Response:
    me = view.require(TokenScope.ADMIN)
    host, workspace = host_of(view.request), me.principal.workspace
    with host.database.read() as session:
        members = people.members(session, workspace)
        return view.render(
            "admin_quotas.html.jinja",
            error.status if error else 200,
            operator=is_operator(view),
            quotas=quotas.list_quotas(session, workspace),
            names={each.id: each.name for each in members},
            apps=[found.app_id for found, _release in installs.all_current(session, workspace)],
            members=members,
            models=list(host.gateway.registry.models),
            meters=[each.value for each in Meter],
            windows=[each.value for each in (Window.DAY, Window.MONTH, Window.HOUR, Window.MINUTE, Window.RUN)],
            by_operator=OPERATOR,
            done=DONE.get(done),
            error=error,
        )
