"""The catalog and what is installed, opened in this process by a command that runs no app."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

from llmasos.db import Database
from llmasos.errors import Denied, Unavailable
from llmasos.host import Parts
from llmasos.installs.code import CodeStore
from llmasos.installs.current import InstalledApps
from llmasos.installs.installer import Installer
from llmasos.kernel.invocation import Invocation, Principal
from llmasos.runtimes.component import ComponentRuntime
from llmasos.runtimes.runtime import Runtime, SyscallDoor
from llmasos.schema import ensure_schema
from llmasos.settings import Settings
from llmasos_marketplace.catalog.service import Catalog
from llmasos_marketplace.catalog.store import BundleStore
from llmasos_marketplace.publishing.service import Publishing


async def _no_door(_invocation: Invocation, capability: str, _function: str, _arguments: list[Any]) -> Any:
    # Checking and compiling answer no call of an app: it has no grants, and nobody is charged.
    raise Denied(f"{capability} is not available while an app is checked.")


class Runtimes:
    """The runtimes that check and prepare code, each made when something of its kind first needs it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._made: dict[str, Runtime] = {}

    def of(self, kind: str) -> Runtime:
        """The runtime of a kind.

        Raises:
            Unavailable: There is none for it.
        """
        if kind not in self._made:
            match kind:
                case "wasm":
                    self._made[kind] = ComponentRuntime(self._settings, _no_door)
                case _:
                    raise Unavailable(f"This host cannot run apps of the kind {kind!r}.")
        return self._made[kind]

    async def close(self) -> None:
        """End every runner."""
        for runtime in self._made.values():
            await runtime.close()


@dataclass(frozen=True)
class Local:
    """The parts that a command needs. Whatever may compile or run code is used inside `running`."""

    settings: Settings
    principal: Principal
    database: Database
    catalog: Catalog
    runtimes: Runtimes

    @property
    def installer(self) -> Installer:
        """Changes what is installed."""
        code = CodeStore.in_home(self.settings.home)
        return Installer(self.database, self.catalog, code, self.runtimes.of)

    @property
    def publishing(self) -> Publishing:
        """Publishes to the catalog."""
        return Publishing(self.catalog, self.runtimes.of)

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
        yield Local(chosen, Principal(), database, catalog, Runtimes(chosen))
    finally:
        database.close()


class HostRunners:
    """The component runtime of a host that `host_parts` made, for who wants to look at it."""

    def __init__(self) -> None:
        self.components: ComponentRuntime | None = None

    @property
    def walls(self) -> tuple[str, ...]:
        """What the system confines the runners with, as far as they were started."""
        return self.components.walls if self.components else ()


def host_parts(settings: Settings, runners: HostRunners | None = None) -> Parts:
    """The parts of a host that runs what is installed here."""

    def components(door: SyscallDoor) -> Runtime:
        made = ComponentRuntime(settings, door)
        if runners is not None:
            runners.components = made
        return made

    return Parts(runnables=InstalledApps, runtimes={"wasm": components})
