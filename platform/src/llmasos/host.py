"""The host: what lives as long as the process does, put together here and nowhere else.

Opening is cheap. litellm, wasmtime and the runners wait until something needs them; `Host.warm` starts them early,
in the background.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Self, TypeAlias

from sqlalchemy import text

from llmasos.capabilities.apps import AppsCapability
from llmasos.capabilities.baseline import ConfigCapability, LogCapability, OutputCapability
from llmasos.capabilities.http import HttpCapability
from llmasos.capabilities.model import ModelCapability
from llmasos.capabilities.secrets import SecretsCapability, UserSecrets
from llmasos.capabilities.storage import StorageCapability
from llmasos.database.engine import Database
from llmasos.database.schema import ensure_schema
from llmasos.errors import Unavailable
from llmasos.gateway import opening
from llmasos.gateway.embedded.local import OnFetch
from llmasos.gateway.gateway import Gateway
from llmasos.installs.code import CodeStore
from llmasos.installs.current import InstalledApps
from llmasos.invocations.run_result import RunResult
from llmasos.invocations.runs import Runnables, Runs, Stopping
from llmasos.kernel.capability import Capability
from llmasos.kernel.invocation import EventSink, Invocation, Json, Principal, discard
from llmasos.kernel.observation import AuditFollower
from llmasos.kernel.syscall import Kernel
from llmasos.plugins import Plugins
from llmasos.quotas.ledger import Ledger
from llmasos.runtimes.kinds import Runtimes
from llmasos.runtimes.runtime import Runtime, RuntimeContext, RuntimeKind, SyscallHandler
from llmasos.secrets import Secrets
from llmasos.settings import Settings

RuntimeMaker: TypeAlias = Callable[[SyscallHandler], Runtime]


@dataclass(frozen=True)
class Parts:
    """Parts of a host that its opener may bring; what is left out is made of the settings."""

    runnables: Callable[[Database], Runnables] | None = None
    runtimes: Mapping[str, RuntimeMaker] = field(default_factory=dict[str, RuntimeMaker])
    """By kind, before those that plugins register."""
    gateway: Callable[[Settings, Database, Plugins], Gateway] | None = None
    capabilities: tuple[Capability, ...] = ()
    """Beside the host's own."""
    plugins: Plugins | None = None
    """Those of operators; what is installed where this is left out."""


class Host:
    """Runs apps and calls models for whoever holds it. `Host.open` makes one."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        kernel: Kernel,
        gateway: Gateway,
        runs: Runs,
        *,
        runtime_of: Callable[[str], Runtime],
    ) -> None:
        self.settings = settings
        self.database = database
        self.kernel = kernel
        self.gateway = gateway
        self.runs = runs
        self.runtime_of = runtime_of
        """The runtime of a kind; installs prepare code with it."""
        self._stopping = False

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: Settings, parts: Parts | None = None) -> AsyncGenerator[Self]:
        """A host, until the block ends: then it refuses what is new, ends what runs, settles it and closes.

        The home and the database are made, or brought up to date, where they need it.

        Args:
            settings: Where the state is, and the limits.
            parts: What to use instead of, or beside, the host's own parts.

        Raises:
            Unavailable: The home or the database cannot be used.
        """
        parts = parts or Parts()
        await asyncio.to_thread(ensure_schema, settings.resolved_database_url, settings.home)
        async with AsyncExitStack() as stack:
            database = Database(settings.resolved_database_url)
            stack.callback(database.close)
            plugins = parts.plugins or Plugins.load(only_built_in=settings.plugins == "off")
            gateway = (parts.gateway or open_gateway)(settings, database, plugins)
            stack.callback(gateway.close)
            if plugins.implements("on_audit"):
                follower = AuditFollower(database, plugins.on_audit)
                follower.start()
                stack.push_async_callback(follower.stop)
            observer = plugins.on_usage if plugins.implements("on_usage") else None
            kernel = await stack.enter_async_context(Kernel(database, Ledger(database), observer=observer))
            installed = InstalledApps(database, CodeStore.in_home(settings.home))
            context = RuntimeContext(settings, kernel.syscall, installed.still)
            brought = {kind: _brought(kind, make) for kind, make in parts.runtimes.items()}
            runtimes = Runtimes({**plugins.runtimes(), **brought}.get, context)
            stack.push_async_callback(runtimes.close)
            runnables = parts.runnables(database) if parts.runnables else installed
            runs = Runs(kernel, runnables, runtimes.of)
            own = capabilities_of(settings, database, gateway, runs)
            for capability in (*own, *parts.capabilities, *plugins.capabilities(taken=own)):
                kernel.register(capability)
            host = cls(settings, database, kernel, gateway, runs, runtime_of=runtimes.of)
            stack.push_async_callback(host.stop)
            yield host

    async def run(
        self,
        principal: Principal,
        app_id: str,
        action: str,
        value: Json,
        emit: EventSink = discard,
        *,
        parent: Invocation | None = None,
    ) -> RunResult:
        """Run an action of an installed app; see `Runs.run`."""
        return await self.runs.run(principal, app_id, action, value, emit, parent=parent)

    def warm(self) -> None:
        """Start, in the background, what a first run would wait for."""
        self.gateway.warm()

    def check(self) -> None:
        """Whether requests can be taken now.

        Raises:
            Unavailable: The database does not answer, or the host is stopping.
        """
        if self._stopping:
            raise Stopping
        try:
            with self.database.read() as session:
                session.connection().execute(text("SELECT 1 FROM invocation LIMIT 1"))
        except Exception as error:
            raise Unavailable(
                "The database does not answer; run `llmasos doctor`.", zh="数据库无响应；请运行 `llmasos doctor`。"
            ) from error

    async def stop(self) -> None:
        """Refuse what is new, end what runs, and wait until it is settled. Safe to call again."""
        self._stopping = True
        await self.runs.stop()


def _brought(kind: str, make: RuntimeMaker) -> RuntimeKind:
    return RuntimeKind(kind, lambda context: make(context.handler))


def capabilities_of(settings: Settings, database: Database, gateway: Gateway, runs: Runs) -> tuple[Capability, ...]:
    """The host's own capabilities."""
    secrets = UserSecrets(database, Secrets(settings.home))
    return (
        ModelCapability(gateway),
        StorageCapability(database),
        OutputCapability(),
        LogCapability(),
        ConfigCapability(),
        HttpCapability(secrets, settings.http_networks),
        SecretsCapability(secrets),
        AppsCapability(runs.run, settings.call_depth),
    )


def open_gateway(settings: Settings, database: Database, plugins: Plugins, on_fetch: OnFetch | None = None) -> Gateway:
    """The models of this home: configured, added and embedded; keys by reference to the operator's secrets.

    Args:
        settings: Where the home is.
        database: Where added models and secrets are.
        plugins: Choose, tune, guard and cache, and offer models of their own.
        on_fetch: Told (model, bytes so far, bytes in all) while weights are fetched, from another thread.
    """
    secrets, operator = Secrets(settings.home), Principal()

    def read_secret(name: str) -> str | None:
        with database.read() as session:
            return secrets.value(session, operator.workspace, operator.user, name)

    return opening.open_gateway(
        settings.home,
        database,
        read_secret=read_secret,
        on_fetch=on_fetch,
        steps=plugins,
        offered=plugins.models(),
    )
