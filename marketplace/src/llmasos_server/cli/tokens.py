"""`tokens`: make, list and revoke what programs authenticate with."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmasos.i18n import _
from llmasos_server.cli.home_database import opened_database
from llmasos_server.cli.output import emit_json, local_time, note, options, say, say_table, tr
from llmasos_server.cli.remote import named_server, segment

if TYPE_CHECKING:
    from llmasos_server.accounts.tables import ApiToken

tokens = typer.Typer(no_args_is_help=True, help=tr("Create, list and revoke tokens."))


@tokens.command("create")
def create(
    name: Annotated[str, typer.Option(help=tr("What it is for."))] = "",
    scope: Annotated[
        list[str] | None,
        typer.Option(help=tr("What it allows: run, read, install or admin; may be given again. Else run and read.")),
    ] = None,
    app: Annotated[
        list[str] | None,
        typer.Option(help=tr("An app that it reaches; may be given again. Else every app.")),
    ] = None,
    days: Annotated[int, typer.Option(min=1, max=3650, help=tr("How long it is good."))] = 90,
    forever: Annotated[bool, typer.Option("--forever", help=tr("Good until it is revoked."))] = False,
) -> None:
    """Make a token. It is shown once."""
    from llmasos.errors import Invalid
    from llmasos.kernel.invocation import Principal
    from llmasos_server.accounts.tokens import create_token
    from llmasos_server.rest.identity import TokenScope

    try:
        scopes = [TokenScope(each) for each in scope] if scope else [TokenScope.RUN, TokenScope.READ]
    except ValueError as error:
        known = ", ".join(TokenScope)
        raise Invalid(
            _("There is no scope {split}; there are {known}.", split=str(error).split()[0], known=known),
        ) from error
    life = None if forever else timedelta(days=days)
    with named_server() as server:
        if server:
            asked = {"name": name, "scopes": [each.value for each in scopes], "apps": app or []}
            sent = server.send("POST", "/api/v1/tokens", **asked, days=None if forever else days)
            id_, token = sent["id"], sent["token"]
        else:
            with opened_database() as database, database.write() as session:
                made = create_token(session, Principal(), name=name, scopes=scopes, apps=app or (), life=life)
            id_, token = made.id, made.token
    if options().json:
        emit_json({"id": id_, "token": token})
        return
    say(token)
    note(tr("Keep it: it is not shown again. To revoke it: llmasos tokens revoke {made}", made=id_))


@tokens.command("list")
def list_() -> None:
    """List the tokens, without their secrets."""
    with named_server() as server:
        found = server.items("/api/v1/tokens") if server else _kept()
    if options().json:
        emit_json(found)
        return
    if not found:
        say(tr("There is no token. Make one: llmasos tokens create"))
        return
    table: list[tuple[str, ...]] = []
    for each in found:
        used = local_time(each["last_used_at"]) if each["last_used_at"] else "-"
        allows = " ".join([*each["scopes"], *(each["apps"] or ())])
        table.append((each["id"], each["name"], allows, _state(each["state"]), used))
    say_table(table, (tr("id"), tr("name"), tr("allows"), tr("state"), tr("last used")))


def _kept() -> list[dict[str, Any]]:
    from llmasos.kernel.invocation import Principal
    from llmasos_server.accounts import repository

    with opened_database() as database, database.read() as session:
        return [_described(row) for row in repository.of_workspace(session, Principal().workspace)]


@tokens.command("revoke")
def revoke(
    token_id: Annotated[str, typer.Argument(metavar="ID", help=tr("As `tokens list` shows it."))],
) -> None:
    """End a token now."""
    from llmasos.kernel.invocation import Principal
    from llmasos_server.accounts.tokens import revoke_token

    with named_server() as server:
        if server:
            server.delete(f"/api/v1/tokens/{segment(token_id)}")
        else:
            with opened_database() as database, database.write() as session:
                revoke_token(session, Principal(), token_id)
    if options().json:
        emit_json({"id": token_id, "state": "revoked"})
    else:
        say(tr("The token {token} is revoked.", token=token_id))


def _state(state: str) -> str:
    return {
        "good": tr("good"),
        "expired": tr("expired"),
        "revoked": tr("revoked"),
    }[state]


def _described(row: ApiToken) -> dict[str, Any]:
    from llmasos_server.accounts.tokens import scopes_of, state_of

    scopes, apps = scopes_of(row)
    return {
        "id": row.id,
        "name": row.name,
        "scopes": sorted(scopes),
        "apps": sorted(apps) if apps else None,
        "state": state_of(row),
        "created_at": row.created_at.isoformat(),
        "expires_at": row.expires_at.isoformat() if row.expires_at else None,
        "last_used_at": row.last_used_at.isoformat() if row.last_used_at else None,
    }
