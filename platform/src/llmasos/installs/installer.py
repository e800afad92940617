"""Installing, upgrading, rolling back and uninstalling, whole or not at all.

The order is what makes it safe to die at any line: bundles are read and checked, code is written and prepared under
its digest (where nothing looks until a row names it), and then one transaction switches.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from importlib.metadata import version

from llmasos.bundles.imports import check_imports
from llmasos.bundles.manifest import Manifest
from llmasos.bundles.reader import Bundle
from llmasos.db import Database
from llmasos.errors import Unavailable
from llmasos.installs import changes, plan, repository, service
from llmasos.installs.code import CodeStore
from llmasos.installs.plan import Plan, program_of
from llmasos.installs.resolve import Requirement
from llmasos.installs.service import Answers, Result
from llmasos.installs.source import ReleaseSource
from llmasos.runtimes.runtime import Program, Runtime


class Installer:
    """Changes what is installed. Each method is one change, committed when it returns.

    Args:
        database: Where installations are kept.
        source: Where releases come from.
        code: Where their code is kept.
        runtime_of: The runtime of a kind, wasm or python; it prepares code.
        host_version: Held against what releases are compatible with; this host's own if left out.
    """

    def __init__(
        self,
        database: Database,
        source: ReleaseSource,
        code: CodeStore,
        runtime_of: Callable[[str], Runtime],
        host_version: str = "",
    ) -> None:
        self._database = database
        self._source = source
        self._code = code
        self._runtime_of = runtime_of
        self._host_version = host_version or version("llmasos")

    def plan_install(self, workspace: str, wanted: Requirement) -> Plan:
        """What an install would do; see `plan.plan_install`. Show its screens, and carry it out."""
        with self._database.read() as session:
            return plan.plan_install(session, self._source, workspace, wanted, self._host_version)

    def plan_upgrade(self, workspace: str, wanted: Requirement) -> Plan:
        """What an upgrade would do; see `plan.plan_upgrade`."""
        with self._database.read() as session:
            return plan.plan_upgrade(session, self._source, workspace, wanted, self._host_version)

    async def carry_out(self, planned: Plan, answers: Answers, user: str) -> list[Result]:
        """Do what a plan says.

        Args:
            planned: From `plan_install` or `plan_upgrade`.
            answers: What the person who saw its screens decided.
            user: Who that was.

        Raises:
            ConsentNeeded: Nobody agreed to an install.
            Conflict: Somebody else changed the installation since the plan was made.
            Invalid: An answer does not fit.
            ComponentRejected: A component is none, or imports more than its manifest declares.
            Unavailable: There is no room, or nothing here that runs it.
        """
        if not planned.steps:
            with self._database.read() as session:
                installation, release = plan.require_current(session, planned.workspace, planned.app_id)
                return [Result(planned.app_id, release.version, "already", installation.id)]
        service.check_answers(planned, answers)
        for step in planned.steps:
            await self._prepare(step.bundle, step.program)
        return await asyncio.to_thread(self._apply, planned, answers, user)

    async def rollback(self, workspace: str, app_id: str, user: str) -> Result:
        """Go back to the release that ran before; see `changes.rollback`."""
        with self._database.read() as session:
            target = changes.rollback_target(session, workspace, app_id)
            program = program_of(
                Manifest.model_validate(target.manifest), target.component_digest, target.installation_id
            )
        await self.make_ready(program)
        return await asyncio.to_thread(self._rollback, workspace, app_id, user)

    def uninstall(self, workspace: str, app_id: str, user: str, *, delete_data: bool) -> Result:
        """Remove an app; see `changes.uninstall`."""
        with self._database.write() as session:
            result = changes.uninstall(session, workspace, app_id, user, delete_data=delete_data)
        self._sweep()
        return result

    def revoke(self, workspace: str, app_id: str, capability: str, user: str) -> None:
        """Take a capability from an app; see `changes.revoke`."""
        with self._database.write() as session:
            changes.revoke(session, workspace, app_id, capability, user)

    async def make_ready(self, program: Program) -> None:
        """Prepare an installed program again, as after an upgrade of the engine. Quick where it is ready.

        Raises:
            Unavailable: Its code is gone or damaged.
        """
        if not await asyncio.to_thread(self._code.is_whole, program.digest):
            raise Unavailable(
                "the code of this app is gone or damaged: uninstall it, keeping its data, and install it again",
                zh="此应用已安装的代码丢失或损坏：请保留数据卸载后重新安装",
            )
        await self._runtime_of(program.kind).prepare(program, self._code.path(program.digest, program.kind))

    async def _prepare(self, bundle: Bundle, program: Program) -> None:
        runtime = self._runtime_of(program.kind)
        path = await asyncio.to_thread(self._code.put, bundle)
        if program.kind == "wasm":
            inspection = await runtime.inspect(path)
            check_imports(inspection.imports, program.capabilities)
        await runtime.prepare(program, path)

    def _apply(self, planned: Plan, answers: Answers, user: str) -> list[Result]:
        with self._database.write() as session:
            results = service.apply(session, planned, answers, user)
        self._sweep()
        return results

    def _rollback(self, workspace: str, app_id: str, user: str) -> Result:
        with self._database.write() as session:
            result = changes.rollback(session, workspace, app_id, user)
        self._sweep()
        return result

    def _sweep(self) -> None:
        with self._database.read() as session:
            wanted = repository.code_digests(session)
        self._code.sweep(wanted)
