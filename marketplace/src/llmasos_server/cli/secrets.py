"""`secrets set/list/remove`: values that the host uses for you, and never shows again."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmasos.errors import Invalid
from llmasos.home import state_home_and_database_url
from llmasos.i18n import _
from llmasos_server.cli.home_database import opened_database
from llmasos_server.cli.output import emit_json, is_interactive, options, say, say_table, tr
from llmasos_server.cli.remote import named_server, segment

if TYPE_CHECKING:
    from llmasos.secrets import SecretOwner

secrets = typer.Typer(no_args_is_help=True)
Apps = Annotated[
    list[str] | None,
    typer.Option(
        "--app", help=tr("An app whose requests carry it; several share it. Without it, the host's own: a model's key.")
    ),
]
Name = Annotated[str, typer.Argument(help=tr("Lower-case letters, digits and underscores."))]


@secrets.callback()
def _group() -> None:
    """Secrets, encrypted in the home."""


@secrets.command("set")
def set_(name: Name, app: Apps = None) -> None:
    """Keep a secret, for apps or for the host itself.

    Its value is asked for, or read from standard input; never an argument, which others can see.
    """
    value = _value(name)
    from llmasos.secrets import Secrets

    home, owners = state_home_and_database_url()[0], _owners(app)
    with named_server() as server:
        if server:
            for each in app or (None,):
                server.send("PUT", f"/api/v1/secrets/{segment(name)}", value=value, app=each)
        else:
            with opened_database() as database, database.write() as session:
                for owner in owners:
                    Secrets(home).set(session, owner, name, value)
    if options().json:
        emit_json({"name": name, "apps": app or []})
    elif app:
        say(tr("{name} is set for {apps}.", name=name, apps=app))
    else:
        say(tr("{name} is set for this host; no app can use it.", name=name))


@secrets.command("list")
def list_() -> None:
    """List the names that are set. Values are never shown."""
    with named_server() as server:
        found = server.items("/api/v1/secrets") if server else _kept()
    if options().json:
        emit_json({"secrets": found})
    elif found:
        rows: list[tuple[str, ...]] = [(each["name"], each["app"] or tr("(this host)")) for each in found]
        say_table(rows, (tr("name"), tr("app")))
    else:
        say(tr("No secret is set."))


def _kept() -> list[dict[str, Any]]:
    from llmasos.kernel.invocation import Principal
    from llmasos.secrets import Secrets

    me, (home, _url) = Principal(), state_home_and_database_url()
    with opened_database() as database, database.read() as session:
        found = Secrets(home).listed(session, me.workspace, me.user)
    return [{"name": name, "app": app or None} for app, name in found]


@secrets.command("remove")
def remove(name: Name, app: Apps = None) -> None:
    """Forget a secret of apps, or of the host itself."""
    from llmasos.secrets import Secrets

    home, owners = state_home_and_database_url()[0], _owners(app)
    with named_server() as server:
        if server:
            for each in app or (None,):
                server.delete(f"/api/v1/secrets/{segment(name)}", app=each)
        else:
            with opened_database() as database, database.write() as session:
                for owner in owners:
                    Secrets(home).remove(session, owner, name)
    if options().json:
        emit_json({"name": name, "apps": app or []})
    else:
        say(tr("{name} is forgotten.", name=name))


def _owners(apps: list[str] | None) -> list[SecretOwner]:
    from llmasos.bundles.manifest import APP_ID
    from llmasos.kernel.invocation import Principal
    from llmasos.secrets import SecretOwner

    me = Principal()
    for app in apps or ():
        if not APP_ID.fullmatch(app):
            raise Invalid(_("{app!r} is not an app's id such as acme/translator.", app=app[:128]))
    return [SecretOwner(me.workspace, me.user, app) for app in apps or ("",)]


def _value(name: str) -> str:
    if is_interactive():
        return str(typer.prompt(tr("Value of {name}", name=name), hide_input=True, err=True))
    value = sys.stdin.readline().rstrip("\r\n")
    if not value:
        raise Invalid(
            _("no value: pipe it in, as in  printf %s VALUE | llmasos secrets set {name}", name=name),
        )
    return value
