"""The catalog and what is installed, opened in this process by a command that runs no app."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace

from llmasos.authoring.describe import Runners
from llmasos.database.engine import Database
from llmasos.database.schema import ensure_schema
from llmasos.host import Host
from llmasos.i18n import environment_locale
from llmasos.installs.code import CodeStore
from llmasos.installs.installer import Installer
from llmasos.kernel.invocation import Json, Principal
from llmasos.plugins import Plugins
from llmasos.runtimes.component import ComponentRuntime
from llmasos.settings import Settings
from llmasos_marketplace.catalog.service import Catalog
from llmasos_marketplace.catalog.store import BundleStore
from llmasos_marketplace.publishing.service import Publishing


@dataclass(frozen=True)
class Local:
    """The parts that a command needs. Whatever may compile or run code is used inside `running`."""

    settings: Settings
    principal: Principal
    database: Database
    catalog: Catalog
    runtimes: Runners

    @property
    def installer(self) -> Installer:
        """Changes what is installed."""
        code = CodeStore.in_home(self.settings.home)
        return Installer(self.database, self.catalog, code, self.runtimes.of, tell=self._tell)

    async def _tell(self, principal: Principal, app_id: str, moment: str, value: Json) -> None:
        """Run an app's hook. A whole host, since a hook may do what any action may; opened where there is a hook."""
        async with Host.open(self.settings) as host:
            await host.runs.tell(replace(principal, locale=environment_locale()), app_id, moment, value)

    @property
    def publishing(self) -> Publishing:
        """Publishes to the catalog."""
        plugins = Plugins.load(only_built_in=self.settings.plugins == "off")
        return Publishing(self.catalog, self.runtimes.of, plugins)

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Close the runners at the end."""
        try:
            yield
        finally:
            await self.runtimes.close()


@contextmanager
def open_local(settings: Settings | None = None) -> Generator[Local]:
    """Open the home, made and migrated where it must be.

    Raises:
        Unavailable: It cannot be read or written.
    """
    chosen = settings or Settings()
    ensure_schema(chosen.resolved_database_url, chosen.home)
    database = Database(chosen.resolved_database_url)
    try:
        catalog = Catalog(database, BundleStore(chosen.home / "bundles"))
        yield Local(chosen, Principal(), database, catalog, Runners(chosen))
    finally:
        database.close()


def confinement_of(host: Host) -> tuple[str, ...]:
    """What the system confines this host's component runners with, as far as they were started."""
    runtime = host.runtime_of("wasm")
    return runtime.confinement if isinstance(runtime, ComponentRuntime) else ()
