"""What an app may know of the user's secrets: which of the granted ones are set, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from llmasos.bundles.manifest import SecretsPermission
from llmasos.database.engine import Database
from llmasos.errors import Denied
from llmasos.i18n import _
from llmasos.kernel.capability import ContractFunction, Operation, OperationResult, PreparedCall
from llmasos.kernel.invocation import Invocation
from llmasos.quotas.meters import Demand
from llmasos.secrets import SecretOwner, Secrets


@dataclass(frozen=True, slots=True)
class UserSecrets:
    """The secrets that a user gave an app, for the host to put into its requests."""

    database: Database
    secrets: Secrets

    def value(self, invocation: Invocation, name: str) -> str | None:
        """A secret of the app in plain text, or None if it is not set."""
        with self.database.read() as session:
            return self.secrets.value(session, _owner(invocation), name)

    def names(self, invocation: Invocation) -> list[str]:
        """The names of the secrets that are set for the app."""
        with self.database.read() as session:
            return self.secrets.names(session, _owner(invocation))


def _owner(invocation: Invocation) -> SecretOwner:
    if invocation.app is None:
        raise Denied(_("Only an app has secrets; run this as an action of one."))
    return SecretOwner(invocation.principal.workspace, invocation.principal.user, invocation.app.id)


@dataclass(frozen=True, slots=True)
class ListSecretNames(Operation[list[str]]):
    """Lists the granted secrets that are set."""

    capability: ClassVar[str] = "secrets"
    function: ClassVar[str] = "names"


class SecretsCapability:
    """The capability `secrets`. No function of it returns a value."""

    name: str = "secrets"
    audited: bool = True
    contract: Mapping[str, ContractFunction] = {"names": ContractFunction.plain(ListSecretNames, tuple[()])}

    def __init__(self, source: UserSecrets) -> None:
        self._source = source

    def prepare(self, invocation: Invocation, operation: Operation[Any]) -> PreparedCall[list[str]]:
        """Prepare the list."""
        grant = invocation.app.grants.get(self.name) if invocation.app else None

        async def names(_granted: Demand) -> OperationResult[list[str]]:
            found = self._source.names(invocation)
            if isinstance(grant, SecretsPermission):
                granted = {place.name for place in grant.secrets}
                found = [name for name in found if name in granted]
            return OperationResult(found)

        return PreparedCall(names)
