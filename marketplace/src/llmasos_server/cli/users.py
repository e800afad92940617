"""`users`: who is a member of the workspace, invitations, and links to sign in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmasos.i18n import _
from llmasos_server.cli.output import emit_json, note, options, say, say_table, tr
from llmasos_server.cli.remote import named_server, segment

if TYPE_CHECKING:
    from llmasos_server.accounts.people import Role
    from llmasos_server.cli.remote import Server

users = typer.Typer(no_args_is_help=True, help=tr("List and invite members, and change their roles."))

_Url = Annotated[str, typer.Option(help=tr("The server's address, as browsers reach it."))]
_HERE = "http://localhost:8765"


@users.command("list")
def list_() -> None:
    """List members and open invitations."""
    with named_server() as server:
        if server:
            members, invited = server.items("/api/v1/users"), server.items("/api/v1/invitations")
        else:
            members, invited = _kept()
    if options().json:
        shown = [{field: it[field] for field in ("id", "name", "email", "role")} for it in members]
        waiting = [{field: it[field] for field in ("id", "email", "role")} for it in invited]
        emit_json({"members": shown, "invitations": waiting})
        return
    rows: list[tuple[str, ...]] = [(it["id"], it["name"], it["email"] or "-", _role(it["role"])) for it in members]
    rows += [(it["id"], tr("invited"), it["email"], _role(it["role"])) for it in invited]
    say_table(rows, tuple(tr("id|name|e-mail|role").split("|")))


def _kept() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    from llmasos.kernel.invocation import Principal
    from llmasos_server.accounts import invitations, people
    from llmasos_server.cli.home_database import opened_database

    me = Principal()
    with opened_database() as database, database.read() as session:
        members = [
            {"id": it.id, "name": it.name, "email": it.email, "role": it.role.value}
            for it in people.members(session, me.workspace)
        ]
        invited = [
            {"id": row.id, "email": row.email, "role": row.role}
            for row in invitations.open_invitations(session, me.workspace)
        ]
    return members, invited


@users.command("invite")
def invite(
    email: Annotated[str, typer.Argument(help=tr("Whom you invite."))],
    role: Annotated[str, typer.Option(help=tr("owner, admin, member or viewer."))] = "member",
    url: _Url = _HERE,
) -> None:
    """Make a link that its holder joins with. It is shown once and is good for 7 days."""
    from llmasos.kernel.invocation import Principal
    from llmasos_server.accounts import invitations
    from llmasos_server.cli.home_database import opened_database

    wanted = _parsed(role)
    with named_server() as server:
        if server:
            sent = server.send("POST", "/api/v1/invitations", email=email, role=wanted.value)
            _show((server.url if url == _HERE else url).rstrip("/") + sent["path"], sent["id"])
            return
    with opened_database() as database, database.write() as session:
        made = invitations.invite(session, Principal(), email, wanted)
    _show(f"{url.rstrip('/')}/invitations/{made.text}", made.id)


@users.command("uninvite")
def uninvite(
    invitation_id: Annotated[str, typer.Argument(metavar="ID", help=tr("As `users list` shows it."))],
) -> None:
    """Take an invitation back."""
    from llmasos.kernel.invocation import Principal
    from llmasos_server.accounts import invitations
    from llmasos_server.cli.home_database import opened_database

    with named_server() as server:
        if server:
            server.delete(f"/api/v1/invitations/{segment(invitation_id)}")
        else:
            with opened_database() as database, database.write() as session:
                invitations.revoke(session, Principal(), invitation_id)
    _done(invitation_id, tr("The invitation is taken back."))


@users.command("role")
def role(
    user: Annotated[str, typer.Argument(help=tr("The id or the e-mail address."))],
    role: Annotated[str, typer.Argument(help=tr("owner, admin, member or viewer."))],
) -> None:
    """Give a member another role."""
    from llmasos.kernel.invocation import Principal
    from llmasos_server.accounts import people
    from llmasos_server.cli.home_database import opened_database

    wanted = _parsed(role)
    with named_server() as server:
        if server:
            user_id = _id_on(server, user)
            server.send("PATCH", f"/api/v1/users/{segment(user_id)}", role=wanted.value)
        else:
            with opened_database() as database, database.write() as session:
                user_id = people.id_of(session, user)
                people.set_role(session, Principal(), user_id, wanted)
    _done(user_id, tr("The role is now: {role}.", role=_role(wanted)))


@users.command("remove")
def remove(user: Annotated[str, typer.Argument(help=tr("The id or the e-mail address."))]) -> None:
    """Take a user out of the workspace, with the user's sessions and tokens in it."""
    from llmasos.kernel.invocation import Principal
    from llmasos_server.accounts import people
    from llmasos_server.cli.home_database import opened_database

    with named_server() as server:
        if server:
            user_id = _id_on(server, user)
            server.delete(f"/api/v1/users/{segment(user_id)}")
        else:
            with opened_database() as database, database.write() as session:
                user_id = people.id_of(session, user)
                people.remove_member(session, Principal(), user_id)
    _done(user_id, tr("The member is removed."))


@users.command("link")
def link(
    user: Annotated[str, typer.Argument(help=tr("The id or the e-mail address; else you."))] = "local",
    url: _Url = _HERE,
) -> None:
    """Make a link that signs a browser in once, within 15 minutes: for you, or for a member who has no other way."""
    from llmasos.kernel.invocation import Principal
    from llmasos_server.accounts import people, sign_in
    from llmasos_server.cli.home_database import opened_database

    with opened_database() as database, database.write() as session:
        user_id = people.id_of(session, user)
        people.require_member(session, Principal().workspace, user_id)
        made = sign_in.new_link(session, user_id)
    _show(f"{url.rstrip('/')}/sign-in/link/{made.text}", made.id)


def _id_on(server: Server, user: str) -> str:
    """The id of a server's user who is named by it, or by an address."""
    named = user.strip().casefold()
    return next((it["id"] for it in server.items("/api/v1/users") if it["email"] == named), user)


def _show(address: str, id_: str) -> None:
    if options().json:
        emit_json({"id": id_, "url": address})
        return
    say(address)
    note(tr("Hand it over on a safe way: whoever has it may use it, once."))


def _done(id_: str, said: str) -> None:
    if options().json:
        emit_json({"id": id_})
    else:
        say(said)


def _parsed(role: str) -> Role:
    from llmasos.errors import Invalid
    from llmasos_server.accounts.people import Role

    try:
        return Role(role)
    except ValueError as error:
        raise Invalid(_("There is no role {role!r}: owner, admin, member or viewer.", role=role[:40])) from error


def _role(role: str) -> str:
    return {"owner": tr("owner"), "admin": tr("administrator"), "member": tr("member"), "viewer": tr("viewer")}[role]
