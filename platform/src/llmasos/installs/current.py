"""Finds the current release of an installed app, for the kernel and the runtimes."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Final

from sqlmodel import Session

from llmasos.bundles.actions import checked_actions, lifecycle_events_of
from llmasos.bundles.parts import LimitsRequest, Permission
from llmasos.database.engine import Database
from llmasos.database.transaction import Transaction
from llmasos.errors import Denied
from llmasos.i18n import _
from llmasos.installs import repository
from llmasos.installs.code import CodeStore
from llmasos.installs.repository import require_current
from llmasos.invocations.run import Runnable
from llmasos.kernel.invocation import InstalledApp, InvocationLimits
from llmasos.runtimes.runtime import Program
from llmasos_runner.protocol import FUEL_PER_CPU_SECOND
from llmasos_sdk.host import BASELINE_CAPABILITIES

_GRANT_NOW: Final = (
    "SELECT CAST(g.scope AS TEXT) FROM installation i"
    ' JOIN "grant" g ON g.installed_release_id = i.current_id WHERE i.id = ? AND g.capability = ?'
    " AND g.revoked_at IS NULL"
)


@lru_cache(maxsize=1024)
def _permission_of(scope: str) -> Permission:
    """Parse a permission from its row; cached, since most calls need the same one."""
    return repository.permission_of(json.loads(scope))


class InstalledApps:
    """Finds installed apps for a host. Implements `Runnables`."""

    def __init__(self, database: Database, code: CodeStore) -> None:
        self._database = database
        self._code = code

    def still(self, installations: frozenset[str]) -> frozenset[str]:
        """Those of these installations that still exist."""
        with self._database.read() as session:
            return repository.existing(session, installations)

    def runnable(self, workspace: str, app_id: str) -> Runnable:
        """Find the current release of an installed app; see `installed_app`."""
        with self._database.read() as session:
            return installed_app(session, workspace, app_id)

    def grant(self, installation_id: str, capability: str) -> Permission | None:
        """An installation's current grant of a capability, including changes by other processes."""
        row = self._database.lookup(_GRANT_NOW, installation_id, capability)
        return None if row is None else _permission_of(str(row[0]))

    def check_installed(self, transaction: Transaction, installation_id: str) -> None:
        """Order an app's write and its removal: either the write is committed first, or it fails.

        Raises:
            Denied: The app was uninstalled.
        """
        sql = f"SELECT id FROM installation WHERE id = ?{transaction.dialect.for_key_share}"  # noqa: S608 - a constant
        if transaction.one(sql, installation_id) is None:
            raise Denied(_("The app was uninstalled."))

    def code(self, found: Runnable) -> Path:
        """The code of an installed app; see `CodeStore.require`."""
        return self._code.require(found.program.digest, found.app.id)


def installed_app(session: Session, workspace: str, app_id: str) -> Runnable:
    """Find the current release of an installed app, in about a millisecond.

    Raises:
        NotFound: The workspace has no such installation.
    """
    installation, release = require_current(session, workspace, app_id)
    declared = frozenset(permission["capability"] for permission in release.manifest["permissions"])
    app = InstalledApp(
        id=app_id,
        version=release.version,
        installation_id=installation.id,
        grants=MappingProxyType(repository.active_grants(session, release)),
        declared=declared,
        config=MappingProxyType(dict(release.config)),
    )
    program = Program(release.runtime, release.component_digest, declared | BASELINE_CAPABILITIES, installation.id)
    actions = {action.name: action for action in checked_actions(release.actions)}
    limits = run_limits(LimitsRequest.model_validate(release.limits))
    return Runnable(app, program, MappingProxyType(actions), limits, lifecycle_events_of(release.actions))


def run_limits(granted: LimitsRequest) -> InvocationLimits:
    """The limits of one run, from the limits that were consented to."""
    return InvocationLimits(
        memory_bytes=granted.memory_mib << 20,
        fuel=int(granted.cpu_seconds * FUEL_PER_CPU_SECOND),
        wall_seconds=granted.wall_seconds,
        tokens=granted.tokens_per_run,
    )
