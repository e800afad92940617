"""`secrets set/list/remove`: values that the host uses for you, and never shows again."""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import Annotated

import typer

from llmasos.database.engine import Database
from llmasos.database.schema import ensure_schema
from llmasos.errors import Invalid
from llmasos.i18n import _
from llmasos.kernel.invocation import Principal
from llmasos.secrets import Secrets
from llmasos.settings import Settings
from llmasos_server.cli.output import emit_json, is_interactive, options, say, tr

secrets = typer.Typer(no_args_is_help=True)
Name = Annotated[str, typer.Argument(help=tr("Lower-case letters, digits and underscores."))]


@secrets.callback()
def _group() -> None:
    """Secrets, encrypted in the home."""


@secrets.command("set")
def set_(name: Name) -> None:
    """Keep a secret. Its value is asked for, or read from standard input; never an argument, which others can see."""
    value = _value(name)
    me, settings = Principal(), Settings()
    with _database(settings) as database, database.write() as session:
        Secrets(settings.home).set(session, me.workspace, me.user, name, value)
    if options().json:
        emit_json({"name": name})
    else:
        say(tr("{name} is set.", name=name))


@secrets.command("list")
def list_() -> None:
    """List the names that are set. Values are never shown."""
    me, settings = Principal(), Settings()
    with _database(settings) as database, database.read() as session:
        names = Secrets(settings.home).names(session, me.workspace, me.user)
    if options().json:
        emit_json({"secrets": [{"name": name} for name in names]})
    else:
        say("\n".join(names) if names else tr("No secret is set."))


@secrets.command("remove")
def remove(name: Name) -> None:
    """Forget a secret."""
    me, settings = Principal(), Settings()
    with _database(settings) as database, database.write() as session:
        Secrets(settings.home).remove(session, me.workspace, me.user, name)
    if options().json:
        emit_json({"name": name})
    else:
        say(tr("{name} is forgotten.", name=name))


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
