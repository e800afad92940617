"""`plugins list`: what extends this host."""

from __future__ import annotations

from dataclasses import asdict

import typer

from llmasos.hooks import ENTRY_POINT_GROUP
from llmasos.plugins import Plugins
from llmasos.settings import Settings
from llmasos_server.cli.output import emit_json, options, say, say_table, tr

plugins = typer.Typer(no_args_is_help=True)


@plugins.callback()
def _group() -> None:
    """Operator plugins."""


@plugins.command("list")
def list_() -> None:
    """List the built-in and installed plugins, their hooks, and why one was refused."""
    enabled = Settings().plugins == "on"
    states = Plugins.load(only_built_in=not enabled).states()
    if options().json:
        emit_json({"enabled": enabled, "plugins": [asdict(state) for state in states]})
        return
    rows: list[tuple[str, ...]] = [
        (
            *(state.name, state.version, state.source),
            tr("refused: {problem}", problem=state.problem) if state.problem else ", ".join(state.hooks),
        )
        for state in states
    ]
    say_table(rows, (tr("name"), tr("version"), tr("source"), tr("hooks")))
    if not enabled:
        say(tr("Installed plugins are off: LLMASOS_PLUGINS=off."))
    elif all(state.source == "built-in" for state in states):
        say(
            tr(
                "None is installed; a package with the entry point {entry_point_group} adds one.",
                entry_point_group=ENTRY_POINT_GROUP,
            )
        )
