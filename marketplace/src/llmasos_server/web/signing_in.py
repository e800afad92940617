"""`/sign-in`, `/sign-out`, `/invitations/…`: how a browser becomes somebody's."""

from __future__ import annotations

import asyncio
from typing import Annotated, Final, cast

from fastapi import Query, Request
from starlette.responses import Response

from llmasos.database.engine import Database
from llmasos.errors import LlmasosError
from llmasos.i18n import languages
from llmasos_server.accounts import invitations, sessions
from llmasos_server.accounts.credentials import Credential
from llmasos_server.accounts.passkeys import Site
from llmasos_server.accounts.sessions import LIFE
from llmasos_server.accounts.sign_in import Browser, SecondFactorNeeded, SignIn
from llmasos_server.rest.context import host_of
from llmasos_server.web.page import (
    LOCALE_COOKIE,
    SESSION_COOKIE,
    THEME_COOKIE,
    THEMES,
    Shown,
    View,
    field,
    local,
    pages,
    redirect,
)

router = pages()

YEAR_SECONDS: Final = 365 * 86_400


@router.get("/sign-in")
async def sign_in_page(view: Shown, next: Annotated[str, Query()] = "/") -> Response:  # noqa: A002 - the query's name
    """The form to sign in."""
    if view.signed_in is not None:
        return redirect(next)
    return _form(view, next)


@router.post("/sign-in")
async def sign_in(view: Shown) -> Response:
    """Sign in by address and password."""
    form = await view.form()
    email, password, onward = field(form, "email"), field(form, "password"), field(form, "next")
    try:
        made = await asyncio.to_thread(signing_of(view.request).by_password, email, password, browser_of(view.request))
    except LlmasosError as error:
        return _form(view, onward, error, email)
    if isinstance(made, SecondFactorNeeded):
        return view.render("second_factor.html.jinja", waiting=made.code, next=local(onward), error=None)
    return _signed_in(view.request, made, onward)


@router.post("/sign-in/second-factor")
async def second_factor(view: Shown) -> Response:
    """Go on with a code of the phone, or for recovery."""
    form = await view.form()
    waiting, code, onward = field(form, "waiting"), field(form, "code"), field(form, "next")
    try:
        made = await asyncio.to_thread(
            signing_of(view.request).by_second_factor, waiting, code, browser_of(view.request)
        )
    except LlmasosError as error:
        return view.render("second_factor.html.jinja", error.status, waiting=waiting, next=local(onward), error=error)
    return _signed_in(view.request, made, onward)


@router.post("/sign-in/passkey/begin")
async def begin_passkey(view: Shown) -> Response:
    """The page that asks the browser for a passkey."""
    form = await view.form()
    onward, request = field(form, "next"), view.request
    try:
        asked = await asyncio.to_thread(signing_of(request).begin_passkey, site_of(request), browser_of(request))
    except LlmasosError as error:
        return _form(view, onward, error)
    return view.render("passkey.html.jinja", ceremony=asked, next=local(onward))


@router.post("/sign-in/passkey")
async def passkey(view: Shown) -> Response:
    """Sign in by the passkey that the browser used."""
    form = await view.form()
    code, response, onward = field(form, "code"), field(form, "response"), field(form, "next")
    signing, browser = signing_of(view.request), browser_of(view.request)
    try:
        made = await asyncio.to_thread(signing.by_passkey, site_of(view.request), code, response, browser)
    except LlmasosError as error:
        return _form(view, onward, error)
    return _signed_in(view.request, made, onward)


@router.get("/sign-in/link/{link}")
async def link_page(view: Shown, link: str) -> Response:
    """A button that uses a link: programs that look at links in advance must not use it up."""
    return view.render("sign_in_link.html.jinja", link=link)


@router.post("/sign-in/link/{link}")
async def use_link(view: Shown, link: str) -> Response:
    """Sign in by a one-time link."""
    made = await asyncio.to_thread(signing_of(view.request).by_link, link, browser_of(view.request))
    return _signed_in(view.request, made, "/")


@router.post("/sign-out")
async def sign_out(view: Shown) -> Response:
    """End this browser's session."""
    await view.form()
    known = view.signed_in
    if known is not None:
        await asyncio.to_thread(_end, _database(view.request), known)
    response = redirect("/sign-in")
    response.delete_cookie(SESSION_COOKIE)
    return response


@router.get("/invitations/{link}")
async def invitation_page(view: Shown, link: str) -> Response:
    """What one is invited to, and the form to accept it."""
    return _invitation(view, link)


@router.post("/invitations/{link}")
async def accept_invitation(view: Shown, link: str) -> Response:
    """Become a member: as whoever is signed in, or as a new user."""
    form = await view.form()
    database, known = _database(view.request), view.signed_in
    name, password = field(form, "name"), field(form, "password")

    def accept() -> Credential | None:
        with database.write() as session:
            if known is not None:
                invitations.join(session, link, known.user)
                return None
            workspace = invitations.find(session, link).workspace_id
            user = invitations.accept(session, link, name, password)
            return sessions.begin(session, user, workspace, browser_of(view.request).device)

    try:
        made = await asyncio.to_thread(accept)
    except LlmasosError as error:
        return _invitation(view, link, error, name)
    return redirect("/") if made is None else _signed_in(view.request, made, "/")


@router.post("/preferences")
async def preferences(view: Shown) -> Response:
    """Remember language and theme in this browser."""
    form = await view.form()
    response = redirect(field(form, "next"))
    for cookie, name, known in ((LOCALE_COOKIE, "locale", languages()), (THEME_COOKIE, "theme", THEMES)):
        if (value := field(form, name)) in known:
            response.set_cookie(cookie, value, max_age=YEAR_SECONDS, samesite="lax", httponly=True)
    return response


def _invitation(view: View, link: str, error: LlmasosError | None = None, name: str = "") -> Response:
    with _database(view.request).read() as session:
        row = invitations.find(session, link)
        context: dict[str, object] = {"workspace": row.workspace_id, "email": row.email, "role": row.role}
    context |= {"link": link, "error": error, "name": name}
    return view.render("invitation.html.jinja", error.status if error else 200, **context)


def _form(view: View, onward: str, error: LlmasosError | None = None, email: str = "") -> Response:
    status = error.status if error else 200
    return view.render("sign_in.html.jinja", status, next=local(onward), error=error, email=email)


def _signed_in(request: Request, cookie: Credential, onward: str) -> Response:
    response = redirect(onward)
    response.set_cookie(
        SESSION_COOKIE,
        cookie.text,
        max_age=int(LIFE.total_seconds()),
        httponly=True,
        samesite="lax",
        secure=request.url.scheme == "https",
    )
    return response


def _end(database: Database, known: sessions.SignedIn) -> None:
    with database.write() as session:
        sessions.end(session, known.principal, known.session_id)


def site_of(request: Request) -> Site:
    """Where the browser sees these pages. `Guards` refused a host that is not ours."""
    return Site(f"{request.url.scheme}://{request.headers['host']}")


def signing_of(request: Request) -> SignIn:
    """What signs browsers in."""
    return cast("SignIn", request.app.state.sign_in)


def _database(request: Request) -> Database:
    return host_of(request).database


def browser_of(request: Request) -> Browser:
    """Who sent a request, as the limits on attempts count it."""
    address = request.client.host if request.client else ""
    return Browser(address, request.headers.get("user-agent", ""))
