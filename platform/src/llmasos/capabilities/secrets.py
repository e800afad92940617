"""What an app may know of the user's secrets: which of those it asked for are set, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from llmasos.bundles.manifest import SecretsPermission
from llmasos.database.engine import Database
from llmasos.errors import Invalid
from llmasos.kernel.capability import Operation, Outcome
from llmasos.kernel.invocation import Invocation, Json
from llmasos.quotas.meters import Demand
from llmasos.secrets import Secrets


@dataclass(frozen=True, slots=True)
class UserSecrets:
    """The secrets of whoever an invocation runs for, for the host's own use."""

    database: Database
    secrets: Secrets

    def value(self, invocation: Invocation, name: str) -> str | None:
        """A secret in clear, or None where it is not set."""
        principal = invocation.principal
        with self.database.read() as session:
            return self.secrets.value(session, principal.workspace, principal.user, name)

    def names(self, invocation: Invocation) -> list[str]:
        """The names that are set."""
        principal = invocation.principal
        with self.database.read() as session:
            return self.secrets.names(session, principal.workspace, principal.user)


@dataclass(frozen=True, slots=True)
class SecretsCapability:
    """The capability `secrets`. There is no function that answers a value."""

    source: UserSecrets
    name: str = "secrets"
    functions: frozenset[str] = frozenset({"names"})
    audited: bool = True

    def prepare(self, invocation: Invocation, function: str, arguments: list[Json]) -> Operation:
        """Hold the call against the grant."""
        if arguments:
            raise Invalid("secrets.names takes no arguments", zh="secrets.names 不接受参数")
        return NamesOperation(invocation, self.source)


@dataclass(frozen=True, slots=True)
class NamesOperation:
    """Lists the granted secrets that are set."""

    invocation: Invocation
    source: UserSecrets
    demand: Demand = field(default_factory=Demand)
    detail: Mapping[str, Json] = field(default_factory=lambda: MappingProxyType({}))

    async def execute(self, granted: Demand) -> Outcome:
        """The names, in order."""
        names = self.source.names(self.invocation)
        grant = self.invocation.app.grants.get("secrets") if self.invocation.app else None
        if isinstance(grant, SecretsPermission):
            granted_names = {place.name for place in grant.secrets}
            names = [name for name in names if name in granted_names]
        return Outcome(names)
