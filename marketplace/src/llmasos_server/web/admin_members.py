"""`/admin/members`: who is in the workspace, with which role, and who is invited."""

from __future__ import annotations

import asyncio
from typing import Final

from starlette.responses import Response

from llmasos.database.engine import WriteSession
from llmasos.errors import Invalid, LlmasosError
from llmasos.i18n import _
from llmasos.kernel.invocation import Principal
from llmasos_server.accounts import invitations, people
from llmasos_server.accounts.people import Role
from llmasos_server.rest.context import host_of
from llmasos_server.rest.identity import TokenScope
from llmasos_server.web.admin import is_operator
from llmasos_server.web.page import Shown, View, field, pages, redirect
from llmasos_server.web.settings import Done, writing
from llmasos_server.web.signing_in import site_of

router = pages()

DONE: Final = {
    "role": _("The role is changed, from that member's next step on."),
    "removed": _("The member is removed, with all sessions and tokens here."),
    "revoked": _("The invitation is taken back."),
}


@router.get("/admin/members")
async def members(view: Shown, done: Done = "") -> Response:
    """Members, invitations, and the form to invite."""
    return _members(view, done=done)


@router.post("/admin/members/invite")
async def invite(view: Shown) -> Response:
    """Make an invitation, and show its link once."""
    view.require(TokenScope.ADMIN)
    form = await view.form()

    def make() -> str:
        with host_of(view.request).database.write() as session:
            return invitations.invite(session, view.principal, field(form, "email"), _role(field(form, "role"))).text

    try:
        link = await asyncio.to_thread(make)
    except LlmasosError as error:
        return _members(view, error)
    return _members(view, link=f"{site_of(view.request).origin}/invitations/{link}")


@router.post("/admin/members/uninvite")
async def uninvite(view: Shown) -> Response:
    """Take an invitation back."""
    view.require(TokenScope.ADMIN)
    form = await view.form()
    await asyncio.to_thread(writing, view, lambda session, by: invitations.revoke(session, by, field(form, "id")))
    return redirect("/admin/members?done=revoked")


@router.post("/admin/members/role")
async def change_role(view: Shown) -> Response:
    """Give a member another role."""
    view.require(TokenScope.ADMIN)
    form = await view.form()

    def change(session: WriteSession, by: Principal) -> None:
        people.set_role(session, by, field(form, "id"), _role(field(form, "role")))

    try:
        await asyncio.to_thread(writing, view, change)
    except Invalid as error:
        return _members(view, error)
    return redirect("/admin/members?done=role")


@router.post("/admin/members/remove")
async def remove(view: Shown) -> Response:
    """Take a member out of the workspace."""
    view.require(TokenScope.ADMIN)
    form = await view.form()
    try:
        await asyncio.to_thread(writing, view, lambda session, by: people.remove_member(session, by, field(form, "id")))
    except Invalid as error:
        return _members(view, error)
    return redirect("/admin/members?done=removed")


def _role(text: str) -> Role:
    try:
        return Role(text)
    except ValueError as error:
        raise Invalid(_("Choose a role.")) from error


def _members(view: View, error: LlmasosError | None = None, link: str | None = None, *, done: str = "") -> Response:
    me = view.require(TokenScope.ADMIN)
    with host_of(view.request).database.read() as session:
        return view.render(
            "admin_members.html.jinja",
            error.status if error else 200,
            operator=is_operator(view),
            me=me,
            members=people.members(session, me.principal.workspace),
            invitations=invitations.open_invitations(session, me.principal.workspace),
            roles=[role.value for role in Role if me.role.may_appoint(role)],
            link=link,
            done=DONE.get(done),
            error=error,
        )
