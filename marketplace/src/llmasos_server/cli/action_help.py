"""What `llmasos run APP --help` and `llmasos run APP ACTION --help` print."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from llmasos.errors import NotFound
from llmasos.home import WORKSPACE
from llmasos.i18n import _
from llmasos_marketplace.catalog import reader
from llmasos_server.cli.inputs import example_of, inputs_of, say_inputs
from llmasos_server.cli.output import emit_json, local_text, options, say, tr
from llmasos_server.cli.projects import project_of
from llmasos_server.cli.reading import database
from llmasos_server.cli.remote import Server, named_server


def say_actions(app: str, action: str | None = None) -> None:
    """Print the inputs of one action of an installed app, or of all its actions.

    Raises:
        NotFound: The app is not installed, or has no such action.
    """
    if (project := project_of(app)) is not None:
        known = _of_project(project)
    else:
        with named_server() as server:
            known = _installed_on(server, app) if server else _installed(app)
    found = [each for each in known if action in (None, each["name"])]
    if not found:
        names = ", ".join(each["name"] for each in known)
        raise NotFound(_("{app} has no action {action!r}; it has {names}.", app=app, action=action, names=names))
    if options().json:
        emit_json({"app": app, "actions": found})
        return
    for index, each in enumerate(found):
        if index:
            say()
        _say_action(app, each)


def _of_project(project: Path) -> list[dict[str, Any]]:
    from llmasos_server.cli.projects import actions_of

    return asyncio.run(actions_of(project))


def _say_action(app: str, action: Mapping[str, Any]) -> None:
    schema: Mapping[str, Any] = action["input_schema"]
    title = local_text(action.get("title"))
    say(f"{app} {action['name']}" + (f"  {title}" if title and title != action["name"] else ""))
    described = local_text(action.get("description"))
    if described:
        say(described)
    say()
    say_inputs(schema)
    say()
    say(tr("For example:"))
    say(f"  {example_of(app, action['name'], schema)}")
    if any(each.kind == tr("text") for each in inputs_of(schema)):
        say(tr("  -p KEY=@FILE takes a text from a file."))


def _installed(app: str) -> list[dict[str, Any]]:
    url = database()
    actions = reader.installed_actions(url, WORKSPACE, app) if url else None
    if actions is None:
        raise _not_installed(app)
    return actions


def _installed_on(server: Server, app: str) -> list[dict[str, Any]]:
    for each in server.items("/api/v1/installations"):
        if each["app"] == app:
            return cast("list[dict[str, Any]]", each["actions"])
    raise _not_installed(app)


def _not_installed(app: str) -> NotFound:
    return NotFound(_("{app} is not installed: see `llmasos list`, or run `llmasos install {app}`.", app=app))
