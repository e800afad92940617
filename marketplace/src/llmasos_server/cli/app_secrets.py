"""Asks for the secrets that an installed app may use and does not have."""

from __future__ import annotations

import getpass
import sys
from typing import TYPE_CHECKING

from llmasos.errors import LlmasosError
from llmasos.printable import one_line
from llmasos_server.cli.output import is_interactive, message_of, note, options, tr

if TYPE_CHECKING:
    from llmasos.bundles.parts import SecretPlace
    from llmasos_server.local import Local


def missing_secrets(local: Local, app: str) -> list[SecretPlace]:
    """The secrets that an app was granted and that the user has not set for it."""
    from llmasos.bundles.parts import SecretsPermission
    from llmasos.installs import repository
    from llmasos.secrets import SecretOwner, Secrets

    me = local.principal
    with local.database.read() as session:
        found = repository.current(session, me.workspace, app)
        grant = repository.active_grants(session, found[1]).get("secrets") if found else None
        if not isinstance(grant, SecretsPermission):
            return []
        known = Secrets(local.settings.home).names(session, SecretOwner(me.workspace, me.user, app))
    by_name = {place.name: place for place in grant.secrets}
    return [place for name, place in by_name.items() if name not in known]


def ask_for_secrets(local: Local, app: str) -> None:
    """Ask for each missing secret on a terminal; elsewhere say how to set it."""
    for place in missing_secrets(local, app):
        command = f"llmasos secrets set {place.name} --app {app}"
        value = _asked(app, place) if is_interactive() and not options().json else ""
        if not value:
            if not options().json:
                note(
                    tr(
                        "{app} cannot use its secret {name} yet. Set it with: {command}",
                        app=app,
                        name=place.name,
                        command=command,
                    )
                )
            continue
        try:
            _keep(local, app, place.name, value)
        except LlmasosError as error:
            note(message_of(error))


def _asked(app: str, place: SecretPlace) -> str:
    question = tr(
        "{app} asks for the secret {name}, which is sent to {host} alone. Its value (Enter: later):",
        app=app,
        name=place.name,
        host=place.host,
    )
    try:
        return getpass.getpass(one_line(question) + " ", stream=sys.stderr).strip()
    except EOFError:
        return ""


def _keep(local: Local, app: str, name: str, value: str) -> None:
    from llmasos.secrets import SecretOwner, Secrets

    owner = SecretOwner(local.principal.workspace, local.principal.user, app)
    with local.database.write() as session:
        Secrets(local.settings.home).set(session, owner, name, value)
