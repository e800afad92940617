"""The host: everything that lives as long as the process, composed here and nowhere else.

Every part is created at its first use, so that a command which runs no app pays for none: litellm, the engine and the
runners start only if something needs them. `Host.warm` starts them early, in the background.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from sqlalchemy import text

from llmasos.capabilities.apps import AppsCapability
from llmasos.capabilities.baseline import ConfigCapability, LogCapability, OutputCapability
from llmasos.database.engine import Database
from llmasos.database.schema import ensure_schema
from llmasos.errors import Unavailable
from llmasos.i18n import _
from llmasos.installs.code import CodeStore
from llmasos.installs.current import InstalledApps
from llmasos.invocations.lifecycle import Invocations
from llmasos.invocations.run import ActionRunner, Runnables, Stopping
from llmasos.kernel.capability import Capability, DeferredCapability
from llmasos.kernel.guest_calls import GuestCalls
from llmasos.kernel.invocation import Principal
from llmasos.kernel.observation import AuditFollower
from llmasos.kernel.syscall import Kernel
from llmasos.plugins import Plugins
from llmasos.quotas.ledger import Ledger
from llmasos.runtimes.kinds import COMPONENTS, NATIVE, Runtimes
from llmasos.runtimes.runtime import Runtime, RuntimeContext, RuntimeKind, SyscallHandler
from llmasos.secrets.sealing import Sealer
from llmasos.settings import Settings

if TYPE_CHECKING:
    from llmasos.capabilities.secrets import UserSecrets
    from llmasos.gateway.embedded.local import OnFetch
    from llmasos.gateway.gateway import Gateway
    from llmasos.invocations.program_calls import ProgramCalls

RuntimeMaker: TypeAlias = Callable[[SyscallHandler], Runtime]


@dataclass(frozen=True)
class HostParts:
    """HostParts of a host that the caller may supply; the others are made from the settings."""

    runnables: Callable[[Database], Runnables] | None = None
    installed: Callable[[Database, CodeStore], InstalledApps] | None = None
    runtimes: Mapping[str, RuntimeMaker] = field(default_factory=dict[str, RuntimeMaker])
    """By kind, before those that plugins register."""
    gateway: Callable[[Settings, Database, Plugins], Gateway] | None = None
    capabilities: tuple[Capability, ...] = ()
    """Besides the host's own."""
    plugins: Plugins | None = None
    """Those of operators; what is installed if this is left out."""


class Host:
    """Runs apps and calls models for its owner.

    `Host.open` opens one for a program; `Host` itself is for a command with an open database that may run an app.
    """

    def __init__(self, settings: Settings, database: Database, parts: HostParts | None = None) -> None:
        """Create no part yet. `close` ends the created ones.

        Args:
            settings: Where the state is, and the limits.
            database: The one database, which the caller closes.
            parts: What to use instead of, or besides, the host's own parts.
        """
        self.settings = settings
        self.database = database
        self._parts = parts or HostParts()
        self._stopping = False

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: Settings, parts: HostParts | None = None) -> AsyncGenerator[Self]:
        """Open a host until the block ends: then it refuses new work, ends what runs, settles it and closes.

        The home and the database are created, or migrated, if necessary.

        Args:
            settings: Where the state is, and the limits.
            parts: What to use instead of, or besides, the host's own parts.

        Raises:
            Unavailable: The home or the database cannot be used.
        """
        await asyncio.to_thread(ensure_schema, settings.resolved_database_url, settings.home)
        database = Database(settings.resolved_database_url)
        try:
            host = cls(settings, database, parts)
            try:
                async with host.invocations:
                    if host._follower is not None:
                        host._follower.start()
                    yield host
            finally:
                await host.close()
        finally:
            database.close()

    @cached_property
    def plugins(self) -> Plugins:
        """The operator's plugins, and the host's own."""
        return self._parts.plugins or Plugins.load(only_built_in=self.settings.plugins == "off")

    @cached_property
    def gateway(self) -> Gateway:
        """The models."""
        return (self._parts.gateway or open_gateway)(self.settings, self.database, self.plugins)

    @cached_property
    def kernel(self) -> Kernel:
        """The only path from an app to anything outside it."""
        plugins = self.plugins

        async def run(*arguments: Any, **more: Any) -> Any:
            # Apps call apps through the kernel, which in turn is a part of what runs apps.
            return await self.actions.run(*arguments, **more)

        installed = None if self._parts.runnables else self._installed
        own: tuple[Capability, ...] = (
            DeferredCapability("model", self._model),
            DeferredCapability("storage", self._storage),
            OutputCapability(),
            LogCapability(),
            ConfigCapability(),
            DeferredCapability("http", self._http),
            DeferredCapability("secrets", self._secrets),
            AppsCapability(run, self.settings.call_depth),
        )
        observer = plugins.on_usage if plugins.implements("on_usage") else None
        capabilities = (*own, *self._parts.capabilities, *plugins.capabilities(taken=own))
        return Kernel(self.database, self._ledger, capabilities, observer, installed.grant if installed else None)

    @cached_property
    def invocations(self) -> Invocations:
        """Begins, ends and finds invocations."""
        return Invocations(self.database, self._ledger, self.kernel, Sealer.in_home(self.settings.home))

    @cached_property
    def programs(self) -> ProgramCalls:
        """Calls models for programs."""
        from llmasos.invocations.program_calls import ProgramCalls  # noqa: PLC0415

        return ProgramCalls(self.invocations, self.kernel)

    @cached_property
    def runtimes(self) -> Runtimes:
        """The runtimes of every kind of app."""
        brought = {kind: _brought(kind, make) for kind, make in self._parts.runtimes.items()}

        def find(kind: str) -> RuntimeKind | None:
            found = brought.get(kind) or {own.kind: own for own in (COMPONENTS, NATIVE)}.get(kind)
            return found or self.plugins.runtimes().get(kind)

        def serve(*call: Any) -> Any:
            # A build prepares and describes apps; only a run makes calls, and only then a kernel exists.
            return GuestCalls(self.kernel)(*call)

        return Runtimes(find, RuntimeContext(self.settings, serve, self._installed.still))

    @cached_property
    def actions(self) -> ActionRunner:
        """Runs actions of installed apps."""
        runnables = self._parts.runnables(self.database) if self._parts.runnables else self._installed
        return ActionRunner(self.invocations, runnables, self.runtimes.of)

    def warm(self) -> None:
        """Start in the background what a first run would wait for."""
        self.gateway.warm()

    def check(self) -> None:
        """Check that the host can accept requests.

        Raises:
            Unavailable: The database does not respond, or the host is stopping.
        """
        if self._stopping:
            raise Stopping
        try:
            with self.database.read() as session:
                session.connection().execute(text("SELECT 1 FROM invocation LIMIT 1"))
        except Exception as error:
            raise Unavailable(_("The database does not respond; run `llmasos doctor`.")) from error

    async def stop(self) -> None:
        """Refuse new work, end what runs, and wait until it is settled. Idempotent."""
        self._stopping = True
        if self._has("actions"):
            await self.actions.stop()
        if self._has("invocations"):
            self.invocations.end_readers()

    async def close(self) -> None:
        """Stop, and end every created part. Idempotent."""
        await self.stop()
        if self._has("runtimes"):
            await self.runtimes.close()
        if self._has("invocations"):
            await self.invocations.close()
        if self._has("_follower") and self._follower is not None:
            await self._follower.stop()
        if self._has("gateway"):
            self.gateway.close()

    # What these stand on takes a fifth of a run's start, and most apps use one or two of them.

    def _model(self) -> Capability:
        from llmasos.capabilities.model import ModelCapability  # noqa: PLC0415

        # A picture that an app names by address is fetched as the app's own request.
        return ModelCapability(self.gateway, self.kernel.call)

    def _storage(self) -> Capability:
        from llmasos.capabilities.storage import StorageCapability  # noqa: PLC0415

        return StorageCapability(self.database, None if self._parts.runnables else self._installed.check_installed)

    def _http(self) -> Capability:
        from llmasos.capabilities.http import HttpCapability  # noqa: PLC0415

        return HttpCapability(self._user_secrets, self.settings.http_networks)

    def _secrets(self) -> Capability:
        from llmasos.capabilities.secrets import SecretsCapability  # noqa: PLC0415

        return SecretsCapability(self._user_secrets)

    @cached_property
    def _user_secrets(self) -> UserSecrets:
        from llmasos.capabilities.secrets import UserSecrets  # noqa: PLC0415
        from llmasos.secrets import Secrets  # noqa: PLC0415

        return UserSecrets(self.database, Secrets(self.settings.home))

    @cached_property
    def _ledger(self) -> Ledger:
        return Ledger(self.database)

    @cached_property
    def _installed(self) -> InstalledApps:
        return (self._parts.installed or InstalledApps)(self.database, CodeStore.in_home(self.settings.home))

    @cached_property
    def _follower(self) -> AuditFollower | None:
        return AuditFollower(self.database, self.plugins.on_audit) if self.plugins.implements("on_audit") else None

    def _has(self, part: str) -> bool:
        return part in self.__dict__


def _brought(kind: str, make: RuntimeMaker) -> RuntimeKind:
    return RuntimeKind(kind, lambda context: make(context.handler))


def open_gateway(settings: Settings, database: Database, plugins: Plugins, on_fetch: OnFetch | None = None) -> Gateway:
    """Open the gateway to a home's models: configured, added and embedded ones, with keys from the operator's secrets.

    Args:
        settings: Where the home is.
        database: Where added models and secrets are.
        plugins: Plugins that select, tune, guard and cache, and offer models of their own.
        on_fetch: Called from another thread with (model, fetched bytes, total bytes) while weights are fetched.
    """
    from llmasos.gateway import opening  # noqa: PLC0415
    from llmasos.secrets import SecretOwner, Secrets  # noqa: PLC0415

    me = Principal()
    secrets, operator = Secrets(settings.home), SecretOwner(me.workspace, me.user)

    def read_secret(name: str) -> str | None:
        with database.read() as session:
            return secrets.value(session, operator, name)

    return opening.open_gateway(
        settings.home,
        database,
        read_secret=read_secret,
        on_fetch=on_fetch,
        steps=plugins,
        offered=plugins.models(),
    )
