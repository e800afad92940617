"""Runs an author's project without publishing it: what `run .` and `dev` share."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmasos.i18n import _
from llmasos_server.cli.output import locale, options, tr

if TYPE_CHECKING:
    from llmasos.authoring.development import DevelopedApp
    from llmasos.connection import LocalConnection
    from llmasos.gateway.embedded.local import OnFetch
    from llmasos.host import Host

_MANIFEST = "llmapp.toml"

AllowLoopback = Annotated[
    bool,
    typer.Option("--allow-loopback", help=tr("Of a project: let its requests reach this computer, in this run.")),
]
Config = Annotated[
    list[str] | None,
    typer.Option("--config", "-c", metavar="KEY=VALUE", help=tr("Of a project: a value of its form.")),
]


def project_of(word: str) -> Path | None:
    """The project that a word names: a path with a manifest. None for an app's id, `publisher/name`."""
    is_path = word.startswith((".", "/", "~")) or word.count("/") != 1 or word.endswith("/")
    path = Path(word).expanduser()
    is_explicit = word.startswith((".", "/", "~"))
    return path if is_explicit or (is_path and (path / _MANIFEST).is_file()) else None


@dataclass
class ProjectRuns:
    """A host that runs a project."""

    host: Host
    app: DevelopedApp
    connection: LocalConnection
    _shown: object = None

    async def load(self) -> str:
        """Take the project as it is now, and show what it may do unless that was shown; returns the app's id.

        Raises:
            LlmasosError: It has faults, does not build, or describes no actions.
        """
        from llmasos.authoring.project import open_project
        from llmasos.installs.consent import first_consent
        from llmasos_server.cli.asking import show_request, working

        manifest = open_project(self.app.path).manifest
        request = first_consent(manifest)
        asked = (request.permissions, manifest.limits)
        if asked != self._shown and not options().json:
            show_request(request)
        self._shown = asked
        with working(_("Building…")):
            return (await self.app.load(self.host.runtimes)).app.id


@asynccontextmanager
async def project_runs(
    path: Path, *, config: Mapping[str, Any] | None, allow_loopback: bool, on_fetch: OnFetch | None = None
) -> AsyncGenerator[ProjectRuns]:
    """A host in this process that runs a project, until the block ends. Nothing is built yet.

    Args:
        path: The project's folder.
        config: Values of the app's form; None if no action will be run.
        allow_loopback: Whether its requests may reach this computer.
        on_fetch: Is told how far a model's weights are fetched.
    """
    from llmasos.authoring.development import DevelopedApp
    from llmasos.connection import LocalConnection
    from llmasos.host import Host, open_gateway
    from llmasos.kernel.invocation import Principal
    from llmasos.settings import Settings

    settings = Settings()
    if allow_loopback:
        from ipaddress import IPv4Network, IPv6Network

        loopback = (IPv4Network("127.0.0.0/8"), IPv6Network("::1/128"))
        settings = settings.model_copy(update={"http_networks": (*settings.http_networks, *loopback)})
    with DevelopedApp(path, settings, config) as app:
        parts = app.parts(lambda settings, database, plugins: open_gateway(settings, database, plugins, on_fetch))
        async with Host.open(settings, parts) as host:
            yield ProjectRuns(host, app, LocalConnection(host, Principal(locale=locale())))


async def actions_of(path: Path) -> list[dict[str, Any]]:
    """The actions of a project, as `actions.json` lists them.

    Raises:
        LlmasosError: It has faults, does not build, or describes no actions.
    """
    from llmasos_server.cli.asking import working

    async with project_runs(path, config=None, allow_loopback=False) as runs:
        with working(_("Building…")):
            found = await runs.app.load(runs.host.runtimes)
        return [dict(action.raw) for action in found.actions.values()]
