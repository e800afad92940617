"""The catalog and the installations, opened in this process by a command that may not run any app."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from llmasos.authoring.describe import describe
from llmasos.database.engine import Database
from llmasos.database.schema import ensure_schema
from llmasos.host import Host
from llmasos.i18n import environment_locale
from llmasos.installs.code import CodeStore
from llmasos.installs.installer import Installer
from llmasos.kernel.invocation import Json, Principal
from llmasos.runtimes.component import ComponentRuntime
from llmasos.runtimes.kinds import Runtimes
from llmasos.settings import Settings
from llmasos_marketplace.catalog.service import Catalog
from llmasos_marketplace.catalog.store import BundleStore
from llmasos_marketplace.publishing.service import Publishing
from llmasos_server.accounts import people


@dataclass(frozen=True)
class Local:
    """The parts that a command needs. Whatever may compile or run code is used inside `running`."""

    settings: Settings
    principal: Principal
    database: Database
    catalog: Catalog
    host: Host
    """None of its parts is made before a command needs it."""

    @classmethod
    def of(cls, host: Host) -> Self:
        """Make the parts from an open host."""
        catalog = Catalog(host.database, BundleStore(host.settings.home / "bundles"))
        return cls(host.settings, Principal(), host.database, catalog, host)

    @property
    def runtimes(self) -> Runtimes:
        """The runtimes of every kind of app."""
        return self.host.runtimes

    async def describe(self, path: Path, capabilities: frozenset[str], kind: str) -> str:
        """Ask a built binary for its actions, for `build`."""
        return await describe(self.host.runtimes, path, capabilities, kind)

    @property
    def installer(self) -> Installer:
        """Changes what is installed."""
        return installer_of(self.host, self.catalog, environment_locale())

    @property
    def publishing(self) -> Publishing:
        """Publishes to the catalog."""
        return Publishing(self.catalog, self.host.runtimes.of, self.host.plugins)

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Close at the end of the block what was started in it."""
        try:
            yield
        finally:
            await self.host.close()


def installer_of(host: Host, catalog: Catalog, locale: str) -> Installer:
    """What changes the installations of a host; apps hear of it in the language of whoever changed them."""

    async def tell(principal: Principal, app_id: str, event: str, value: Json) -> None:
        await host.actions.tell(replace(principal, locale=locale), app_id, event, value)

    async def end_invocations(installation_id: str) -> None:
        await host.invocations.end_of_installation(installation_id)

    return Installer(
        host.database,
        catalog,
        CodeStore.in_home(host.settings.home),
        host.runtimes.of,
        tell=tell,
        end_invocations=end_invocations,
        is_administrator=people.is_administrator,
    )


@contextmanager
def open_local(settings: Settings | None = None) -> Generator[Local]:
    """Open the home, and create or migrate it if necessary.

    Raises:
        Unavailable: It cannot be read or written.
    """
    chosen = settings or Settings()
    ensure_schema(chosen.resolved_database_url, chosen.home)
    database = Database(chosen.resolved_database_url)
    try:
        yield Local.of(Host(chosen, database))
    finally:
        database.close()


def confinement_of(host: Host) -> tuple[str, ...]:
    """The confinement of this host's component runners, if any were started."""
    runtime = host.runtimes.of("wasm")
    return runtime.confinement if isinstance(runtime, ComponentRuntime) else ()
