"""`/settings/tokens`: what my programs authenticate with."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Final

from starlette.responses import Response

from llmasos.database.engine import WriteSession
from llmasos.errors import Invalid, LlmasosError
from llmasos.i18n import _
from llmasos.kernel.invocation import Principal
from llmasos_server.accounts import repository, tokens
from llmasos_server.accounts.tokens import NewToken
from llmasos_server.rest.context import host_of
from llmasos_server.rest.identity import TokenScope
from llmasos_server.web.page import Shown, View, field, pages, redirect
from llmasos_server.web.settings import DONE, Done, writing
from llmasos_server.web.signing_in import browser_of, signing_of

router = pages()

DAYS: Final = (7, 30, 90, 365)
MAX_NAME: Final = 80


@router.get("/settings/tokens")
async def own_tokens(view: Shown, done: Done = "") -> Response:
    """Tokens, and the form for a new one."""
    return _tokens(view, done=done)


@router.post("/settings/tokens")
async def create(view: Shown) -> Response:
    """Make a token, and show it once."""
    me, form = view.require(TokenScope.READ), await view.form()
    chosen = {str(each) for each in form.getlist("scope")}
    name, days = " ".join(field(form, "name").split())[:MAX_NAME], field(form, "days")
    scopes = [scope for scope in TokenScope if scope.value in chosen and scope in me.role.scopes]

    def make() -> NewToken:
        if days not in {str(each) for each in DAYS}:
            raise Invalid(_("Choose for how long the token is good."))
        signing_of(view.request).confirm(me.user.id, field(form, "password"), browser_of(view.request))
        with host_of(view.request).database.write() as session:
            return tokens.create_token(
                session, view.principal, name=name, scopes=scopes, life=timedelta(days=int(days))
            )

    try:
        made = await asyncio.to_thread(make)
    except LlmasosError as error:
        return _tokens(view, error)
    return _tokens(view, made=made)


@router.post("/settings/tokens/revoke")
async def revoke(view: Shown) -> Response:
    """Make a token useless."""
    view.require(TokenScope.READ)
    form = await view.form()

    def change(session: WriteSession, by: Principal) -> None:
        tokens.revoke_own(session, by, field(form, "id"))

    await asyncio.to_thread(writing, view, change)
    return redirect("/settings/tokens?done=token")


def _tokens(view: View, error: LlmasosError | None = None, made: NewToken | None = None, *, done: str = "") -> Response:
    me = view.require(TokenScope.READ)
    with host_of(view.request).database.read() as session:
        rows = repository.of_user(session, me.user.id, me.principal.workspace)
        listed = [(row, tokens.state_of(row), sorted(tokens.scopes_of(row)[0])) for row in rows]
        return view.render(
            "settings_tokens.html.jinja",
            error.status if error else 200,
            me=me,
            tokens=[each for each in listed if each[1] != "revoked"],
            scopes=sorted(me.role.scopes),
            days=DAYS,
            made=made,
            done=DONE.get(done),
            error=error,
        )
