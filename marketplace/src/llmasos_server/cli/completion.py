"""`completion`: commands, apps and actions are completed by the user's shell."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from enum import StrEnum
from importlib import import_module
from pathlib import PurePath
from typing import Annotated, Any, TypeAlias

import typer

from llmasos.errors import Invalid, LlmasosError
from llmasos.home import WORKSPACE, server_url_and_token, state_home_and_database_url
from llmasos.i18n import _
from llmasos_server.cli.output import in_locale, local_text, options, say, tr

Completions: TypeAlias = list[tuple[str, str]]
"""Each with its help, which zsh and fish show."""


class Shell(StrEnum):
    """The shells that a script is made for."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


def completion(
    shell: Annotated[Shell | None, typer.Argument(help=tr("bash, zsh or fish; else the shell that you use."))] = None,
    install: Annotated[bool, typer.Option("--install", help=tr("Add it to the shell's own settings."))] = False,
) -> None:
    """Print the script that completes commands, apps and actions in a shell, or install it."""
    from llmasos_server.cli.shell import COMPLETE_VARIABLE, PROGRAM

    typers: Any = import_module("typer.completion")  # which it does not export
    chosen = (shell or _of_this_user()).value
    if not install:
        say(typers.get_completion_script(prog_name=PROGRAM, complete_var=COMPLETE_VARIABLE, shell=chosen))
        return
    _shell, path = typers.install(shell=chosen, prog_name=PROGRAM, complete_var=COMPLETE_VARIABLE)
    if not options().json:
        say(tr("Completion for {shell} is installed in {path}: open a new terminal.", shell=chosen, path=path))


def _of_this_user() -> Shell:
    name = PurePath(os.environ.get("SHELL", "")).name
    try:
        return Shell(name)
    except ValueError:
        raise Invalid(_("Name your shell: llmasos completion bash, zsh or fish.")) from None


def _read(query: Callable[[str], list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """What the database returns; nothing if it cannot be read, since the user is in the middle of a line."""
    from llmasos_marketplace.catalog import reader

    with suppress(LlmasosError, OSError):
        if server_url_and_token() is not None:
            return []  # its apps are not this home's, and asking it would hold up the user's typing
        url = state_home_and_database_url()[1]
        return query(url) if reader.is_ready(url) else []
    return []


def installed_apps(incomplete: str) -> Completions:
    """The installed apps that start like this."""
    from llmasos_marketplace.catalog import reader

    rows = _read(lambda url: reader.installations(url, WORKSPACE))
    manifests: list[tuple[str, dict[str, Any]]] = [(row["app_id"], row["manifest"] or {}) for row in rows]
    named = [(app_id, local_text(manifest.get("name"))) for app_id, manifest in manifests]
    return [each for each in named if each[0].startswith(incomplete)]


def catalog_apps(incomplete: str) -> Completions:
    """The apps of the catalog that start like this."""
    from llmasos_marketplace.catalog import reader

    rows = _read(lambda url: reader.search(url, incomplete, 100))
    return [(str(row["id"]), in_locale(row, "summary")) for row in rows if str(row["id"]).startswith(incomplete)]


def actions(ctx: typer.Context, incomplete: str) -> Completions:
    """The actions, which start like this, of the app that was typed."""
    from llmasos_marketplace.catalog import reader

    app = str(ctx.params.get("app"))
    rows = _read(lambda url: reader.installed_actions(url, WORKSPACE, app) or [])
    named = [(str(row["name"]), local_text(row.get("title"))) for row in rows]
    return [each for each in named if each[0].startswith(incomplete)]
