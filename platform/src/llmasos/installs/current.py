"""The current release of an installed app, as the kernel and the runtimes need it."""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType

from sqlmodel import Session

from llmasos.bundles.actions import checked_actions, lifecycle_events_of
from llmasos.bundles.parts import LimitsRequest
from llmasos.database.engine import Database
from llmasos.installs import repository
from llmasos.installs.code import CodeStore
from llmasos.installs.plan import require_current
from llmasos.invocations.run import Runnable
from llmasos.kernel.invocation import InstalledApp, InvocationLimits
from llmasos.runtimes.runtime import Program
from llmasos_runner.protocol import FUEL_PER_CPU_SECOND
from llmasos_sdk.host import BASELINE_CAPABILITIES


class InstalledApps:
    """Finds installed apps for a host. Implements `Runnables`."""

    def __init__(self, database: Database, code: CodeStore) -> None:
        self._database = database
        self._code = code

    def still(self, installations: frozenset[str]) -> frozenset[str]:
        """Which of these installations still exist."""
        with self._database.read() as session:
            return repository.existing(session, installations)

    def runnable(self, workspace: str, app_id: str) -> Runnable:
        """The current release of an installed app; see `installed_app`."""
        with self._database.read() as session:
            return installed_app(session, workspace, app_id)

    def code(self, found: Runnable) -> Path:
        """The code of an installed app; see `CodeStore.require`."""
        return self._code.require(found.program.digest, found.app.id)


def installed_app(session: Session, workspace: str, app_id: str) -> Runnable:
    """The current release of an installed app. Takes about a millisecond.

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
    """What one run may use, of limits as they were agreed to."""
    return InvocationLimits(
        memory_bytes=granted.memory_mib << 20,
        fuel=int(granted.cpu_seconds * FUEL_PER_CPU_SECOND),
        wall_seconds=granted.wall_seconds,
        tokens=granted.tokens_per_run,
    )
