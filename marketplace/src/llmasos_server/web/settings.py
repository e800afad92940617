"""`/settings`, `/settings/data`: who I am here, in which language and workspace, and what is kept of me."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Annotated, Final

from fastapi import Query
from starlette.responses import Response, StreamingResponse

from llmasos.database.engine import WriteSession
from llmasos.errors import Invalid, LlmasosError
from llmasos.i18n import _, languages
from llmasos.kernel.invocation import Principal
from llmasos.secrets import Sealer
from llmasos_server.accounts import own_account, people, sessions
from llmasos_server.rest.context import host_of
from llmasos_server.rest.identity import TokenScope
from llmasos_server.web.page import (
    LOCALE_COOKIE,
    SESSION_COOKIE,
    THEME_COOKIE,
    THEMES,
    Shown,
    View,
    field,
    pages,
    redirect,
)
from llmasos_server.web.signing_in import YEAR_SECONDS, browser_of, signing_of

router = pages()

LANGUAGE_NAMES: Final = {"en": "English", "zh": "中文"}
# What a page says after a form of it was sent, by the name in the address.
DONE: Final = {
    "profile": _("Your name and address are changed."),
    "password": _("Your password is set. You were signed out everywhere else."),
    "passkey-added": _("The passkey is added: it signs you in alone."),
    "passkey-removed": _("The passkey is removed."),
    "second-factor-removed": _("The second factor is removed."),
    "session": _("The session is ended."),
    "token": _("The token is revoked."),
}

Done = Annotated[str, Query(max_length=40)]


@router.get("/settings")
async def profile(view: Shown, done: Done = "") -> Response:
    """Name, language, theme, workspace."""
    return _profile(view, done=done)


@router.post("/settings/profile")
async def change_profile(view: Shown) -> Response:
    """Take another name or address."""
    me, form = view.require(TokenScope.READ), await view.form()
    name, email = field(form, "name"), field(form, "email")

    def change() -> None:
        if email.strip() != (me.user.email or ""):
            signing_of(view.request).confirm(me.user.id, field(form, "password"), browser_of(view.request))
        writing(view, lambda session, by: own_account.rename(session, by, name, email))

    try:
        await asyncio.to_thread(change)
    except LlmasosError as error:
        return _profile(view, error=error, name=name, email=email)
    return redirect("/settings?done=profile")


@router.post("/settings/appearance")
async def change_appearance(view: Shown) -> Response:
    """Choose language and theme, for this browser and those that have no choice of their own."""
    view.require(TokenScope.READ)
    form = await view.form()
    locale, theme = field(form, "locale"), field(form, "theme")

    def change(session: WriteSession, by: Principal) -> None:
        user = own_account.own(session, by)
        user.locale = locale if locale in languages() else None
        user.theme = theme if theme in THEMES else None

    await asyncio.to_thread(writing, view, change)
    response = redirect("/settings")
    for cookie, value, known in ((LOCALE_COOKIE, locale, languages()), (THEME_COOKIE, theme, THEMES)):
        if value in known:
            response.set_cookie(cookie, value, max_age=YEAR_SECONDS, samesite="lax", httponly=True)
        else:
            response.delete_cookie(cookie)
    return response


@router.post("/settings/workspace")
async def change_workspace(view: Shown) -> Response:
    """Go on in another workspace."""
    me, form = view.require(TokenScope.READ), await view.form()
    workspace = field(form, "workspace")
    await asyncio.to_thread(writing, view, lambda session, _by: sessions.change_workspace(session, me, workspace))
    return redirect("/settings")


@router.get("/settings/data")
async def data(view: Shown) -> Response:
    """What is kept of me."""
    return _data(view)


@router.post("/settings/data/export")
async def export(view: Shown) -> Response:
    """Everything of mine, as a file."""
    me = view.require(TokenScope.READ)
    await view.form()
    host = host_of(view.request)
    sealer = Sealer.in_home(host.settings.home)
    parts = own_account.export(host.database, sealer, me.user.id, json.JSONEncoder(default=str).encode)
    headers = {"content-disposition": 'attachment; filename="llmasos-my-data.json"'}
    return StreamingResponse(parts, media_type="application/json", headers=headers)


@router.post("/settings/data/delete")
async def delete(view: Shown) -> Response:
    """Delete my account, once I typed what confirms it."""
    me, form = view.require(TokenScope.READ), await view.form()

    def remove() -> None:
        if " ".join(field(form, "confirmation").split()) != me.user.name:
            raise Invalid(_("Type your name as it is written above, to confirm."))
        signing_of(view.request).confirm(me.user.id, field(form, "password"), browser_of(view.request))
        writing(view, own_account.delete_account)

    try:
        await asyncio.to_thread(remove)
    except LlmasosError as error:
        return _data(view, error)
    response = redirect("/sign-in")
    response.delete_cookie(SESSION_COOKIE)
    return response


def writing(view: View, change: Callable[[WriteSession, Principal], object]) -> None:
    """Run a change in a transaction, for the caller. Blocks: call it in a thread."""
    with host_of(view.request).database.write() as session:
        change(session, view.principal)


def _profile(
    view: View, error: LlmasosError | None = None, name: str | None = None, email: str | None = None, *, done: str = ""
) -> Response:
    me = view.require(TokenScope.READ)
    with host_of(view.request).database.read() as session:
        workspaces = people.workspaces_of(session, me.user.id)
    return view.render(
        "settings.html.jinja",
        error.status if error else 200,
        me=me,
        name=me.user.name if name is None else name,
        email=me.user.email or "" if email is None else email,
        workspaces=workspaces,
        languages=[(each, LANGUAGE_NAMES.get(each, each)) for each in languages()],
        done=DONE.get(done),
        error=error,
    )


def _data(view: View, error: LlmasosError | None = None) -> Response:
    me = view.require(TokenScope.READ)
    return view.render(
        "settings_data.html.jinja",
        error.status if error else 200,
        me=me,
        deletable=me.user.id != own_account.MACHINES_OWN,
        error=error,
    )
