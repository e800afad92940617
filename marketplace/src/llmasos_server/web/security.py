"""`/settings/security`: what I sign in with, and where I am signed in."""

from __future__ import annotations

import asyncio
import ipaddress
from typing import cast

import segno
from fastapi import Request
from starlette.responses import Response

from llmasos.database.engine import WriteSession
from llmasos.errors import LlmasosError
from llmasos.kernel.invocation import Principal
from llmasos_server.accounts import own_account, passkeys, passwords, second_factor, sessions
from llmasos_server.accounts.passkeys import Ceremony
from llmasos_server.accounts.second_factor import SecondFactors
from llmasos_server.rest.context import host_of
from llmasos_server.rest.guards import host_name
from llmasos_server.rest.identity import TokenScope
from llmasos_server.web.page import Shown, View, field, pages, redirect
from llmasos_server.web.settings import DONE, Done, writing
from llmasos_server.web.signing_in import browser_of, signing_of, site_of

router = pages()


@router.get("/settings/security")
async def security(view: Shown, done: Done = "") -> Response:
    """Password, passkeys, second factor, sessions."""
    return _security(view, done=done)


@router.post("/settings/security/password")
async def change_password(view: Shown) -> Response:
    """Take another password, which signs every other browser out."""
    me, form = view.require(TokenScope.READ), await view.form()

    def change() -> None:
        _confirm(view, field(form, "password"))
        hashed = passwords.hash_of(field(form, "new"), me.user.name, me.user.email or "")
        writing(view, lambda session, by: own_account.set_password(session, by, hashed, me.session_id))

    try:
        await asyncio.to_thread(change)
    except LlmasosError as error:
        return _security(view, error, "password")
    return redirect("/settings/security?done=password")


@router.post("/settings/security/passkeys/begin")
async def begin_passkey(view: Shown) -> Response:
    """The page that asks the browser to make a passkey."""
    view.require(TokenScope.READ)
    form = await view.form()

    def begin() -> Ceremony:
        _confirm(view, field(form, "password"))
        with host_of(view.request).database.write() as session:
            return passkeys.begin_adding(session, own_account.own(session, view.principal), site_of(view.request))

    try:
        asked = await asyncio.to_thread(begin)
    except LlmasosError as error:
        return _security(view, error, "passkeys")
    return view.render("settings_passkey.html.jinja", ceremony=asked, name=field(form, "name"))


@router.post("/settings/security/passkeys")
async def add_passkey(view: Shown) -> Response:
    """Keep the passkey that the browser made."""
    view.require(TokenScope.READ)
    form = await view.form()
    code, response, name = field(form, "code"), field(form, "response"), field(form, "name")

    def add(session: WriteSession, by: Principal) -> None:
        passkeys.add(session, own_account.own(session, by), site_of(view.request), code, response, name=name)
        own_account.note(session, by, "account.passkey.add")

    try:
        await asyncio.to_thread(writing, view, add)
    except LlmasosError as error:
        return _security(view, error, "passkeys")
    return redirect("/settings/security?done=passkey-added")


@router.post("/settings/security/passkeys/remove")
async def remove_passkey(view: Shown) -> Response:
    """Forget a passkey."""
    view.require(TokenScope.READ)
    form = await view.form()

    def remove(session: WriteSession, by: Principal) -> None:
        passkeys.remove(session, by.user, field(form, "id"))
        own_account.note(session, by, "account.passkey.remove")

    try:
        await asyncio.to_thread(_confirm, view, field(form, "password"))
        await asyncio.to_thread(writing, view, remove)
    except LlmasosError as error:
        return _security(view, error, "passkeys")
    return redirect("/settings/security?done=passkey-removed")


@router.post("/settings/security/second-factor/begin")
async def begin_second_factor(view: Shown) -> Response:
    """The picture that an app on a phone reads."""
    view.require(TokenScope.READ)
    form = await view.form()

    def begin() -> None:
        _confirm(view, field(form, "password"))
        writing(view, lambda session, by: _factors(view.request).begin(session, own_account.own(session, by)))

    try:
        await asyncio.to_thread(begin)
    except LlmasosError as error:
        return _security(view, error, "second-factor")
    return await asyncio.to_thread(_picture, view)


@router.post("/settings/security/second-factor/confirm")
async def confirm_second_factor(view: Shown) -> Response:
    """Put the second factor in force, and show the recovery codes once."""
    me, form = view.require(TokenScope.READ), await view.form()
    codes: list[str] = []

    def confirm(session: WriteSession, by: Principal) -> None:
        codes.extend(_factors(view.request).confirm(session, by.user, field(form, "code")))
        sessions.end_others(session, by.user, me.session_id)
        own_account.note(session, by, "account.second-factor.add")

    try:
        await asyncio.to_thread(writing, view, confirm)
    except LlmasosError as error:
        return await asyncio.to_thread(_picture, view, error)
    return view.render("settings_recovery.html.jinja", codes=codes)


@router.post("/settings/security/second-factor/codes")
async def new_codes(view: Shown) -> Response:
    """New recovery codes, in place of those of before."""
    me, form = view.require(TokenScope.READ), await view.form()

    def make() -> list[str]:
        _confirm(view, field(form, "password"))
        with host_of(view.request).database.write() as session:
            own_account.note(session, view.principal, "account.recovery-codes")
            on = second_factor.is_on(session, me.user.id)
            return second_factor.new_recovery_codes(session, me.user.id) if on else []

    try:
        codes = await asyncio.to_thread(make)
    except LlmasosError as error:
        return _security(view, error, "second-factor")
    return view.render("settings_recovery.html.jinja", codes=codes) if codes else redirect("/settings/security")


@router.post("/settings/security/second-factor/remove")
async def remove_second_factor(view: Shown) -> Response:
    """Sign in without a second factor from now on."""
    me, form = view.require(TokenScope.READ), await view.form()

    def remove(session: WriteSession, by: Principal) -> None:
        second_factor.remove(session, by.user)
        sessions.end_others(session, by.user, me.session_id)
        own_account.note(session, by, "account.second-factor.remove")

    try:
        await asyncio.to_thread(_confirm, view, field(form, "password"))
        await asyncio.to_thread(writing, view, remove)
    except LlmasosError as error:
        return _security(view, error, "second-factor")
    return redirect("/settings/security?done=second-factor-removed")


@router.post("/settings/security/sessions/end")
async def end_session(view: Shown) -> Response:
    """Sign another browser out."""
    view.require(TokenScope.READ)
    form = await view.form()
    await asyncio.to_thread(writing, view, lambda session, by: sessions.end(session, by, field(form, "id")))
    return redirect("/settings/security?done=session")


def _confirm(view: View, password: str) -> None:
    me = view.require(TokenScope.READ)
    signing_of(view.request).confirm(me.user.id, password, browser_of(view.request))


def _security(view: View, error: LlmasosError | None = None, failed: str = "", *, done: str = "") -> Response:
    me = view.require(TokenScope.READ)
    with host_of(view.request).database.read() as session:
        context = {
            "passkeys": passkeys.of_user(session, me.user.id),
            "has_second_factor": second_factor.is_on(session, me.user.id),
            "codes_left": second_factor.recovery_codes_left(session, me.user.id),
            "sessions": sessions.listed(session, me.user.id),
        }
        return view.render(
            "settings_security.html.jinja",
            error.status if error else 200,
            me=me,
            by_address=_is_address(site_of(view.request).name),
            done=DONE.get(done),
            error=error,
            failed=failed,
            **context,
        )


def _picture(view: View, error: LlmasosError | None = None) -> Response:
    me = view.require(TokenScope.READ)
    with host_of(view.request).database.read() as session:
        address = _factors(view.request).begun(session, me.user)
    if address is None:
        return redirect("/settings/security")
    picture = segno.make(address, micro=False).svg_data_uri(scale=5, border=4, dark="#000", light="#fff")
    secret = address.partition("secret=")[2].partition("&")[0]
    grouped = " ".join(secret[at : at + 4] for at in range(0, len(secret), 4))
    status = error.status if error else 200
    return view.render("settings_second_factor.html.jinja", status, picture=picture, secret=grouped, error=error)


def _is_address(name: str) -> bool:
    """Whether the pages are seen under an address: passkeys belong to names alone."""
    try:
        ipaddress.ip_address(host_name(name))
    except ValueError:
        return False
    return True


def _factors(request: Request) -> SecondFactors:
    return cast("SecondFactors", request.app.state.second_factors)
