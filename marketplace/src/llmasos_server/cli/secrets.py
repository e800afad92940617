"""`secrets set/list/remove`: values that the host uses for you, and never shows again."""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import Annotated

import typer

from llmasos.bundles.manifest import APP_ID
from llmasos.database.engine import Database
from llmasos.database.schema import ensure_schema
from llmasos.errors import Invalid
from llmasos.i18n import _
from llmasos.kernel.invocation import Principal
from llmasos.secrets import SecretOwner, Secrets
from llmasos.settings import Settings
from llmasos_server.cli.output import emit_json, is_interactive, options, say, tr

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
    settings, owners = Settings(), _owners(app)
    with _database(settings) as database, database.write() as session:
        for owner in owners:
            Secrets(settings.home).set(session, owner, name, value)
    if options().json:
        emit_json({"name": name, "apps": app or []})
    elif app:
        say(tr("{name} is set for {apps}.", name=name, apps=app))
    else:
        say(tr("{name} is set for this host; no app can use it.", name=name))


@secrets.command("list")
def list_() -> None:
    """List the names that are set. Values are never shown."""
    me, settings = Principal(), Settings()
    with _database(settings) as database, database.read() as session:
        found = Secrets(settings.home).listed(session, me.workspace, me.user)
    if options().json:
        emit_json({"secrets": [{"name": name, "app": app or None} for app, name in found]})
    else:
        lines = [f"{name}  {app or tr('(this host)')}" for app, name in found]
        say("\n".join(lines) if lines else tr("No secret is set."))


@secrets.command("remove")
def remove(name: Name, app: Apps = None) -> None:
    """Forget a secret of apps, or of the host itself."""
    settings, owners = Settings(), _owners(app)
    with _database(settings) as database, database.write() as session:
        for owner in owners:
            Secrets(settings.home).remove(session, owner, name)
    if options().json:
        emit_json({"name": name, "apps": app or []})
    else:
        say(tr("{name} is forgotten.", name=name))


def _owners(apps: list[str] | None) -> list[SecretOwner]:
    me = Principal()
    for app in apps or ():
        if not APP_ID.fullmatch(app):
            raise Invalid(_("{app!r} is not an app's id such as acme/translator.", app=app[:128]))
    return [SecretOwner(me.workspace, me.user, app) for app in apps or ("",)]


@contextmanager
def _database(settings: Settings) -> Generator[Database]:
    ensure_schema(settings.resolved_database_url, settings.home)
    with Database(settings.resolved_database_url) as database:
        yield database


def _value(name: str) -> str:
    if is_interactive():
        return str(typer.prompt(tr("Value of {name}", name=name), hide_input=True, err=True))
    value = sys.stdin.readline().rstrip("\r\n")
    if not value:
        raise Invalid(
            _("no value: pipe it in, as in  printf %s VALUE | llmasos secrets set {name}", name=name),
        )
    return value
