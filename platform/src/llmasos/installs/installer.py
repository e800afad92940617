"""Installs, upgrades, rolls back and uninstalls apps, completely or not at all.

The order of steps makes it safe to be killed at any line: bundles are read and checked, code is written and prepared
under its digest (where nothing looks until a row names it), and then one transaction switches.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from copy import copy
from dataclasses import replace
from importlib.metadata import version
from typing import Any, Final, Self

from sqlmodel import Session

from llmasos.bundles.actions import lifecycle_events_of
from llmasos.bundles.imports import check_imports
from llmasos.bundles.manifest import Manifest
from llmasos.bundles.reader import Bundle, read_bundle
from llmasos.database.engine import Database
from llmasos.errors import LlmasosError, NotFound, Unavailable
from llmasos.i18n import _
from llmasos.installs import changes, plan, policy, repository, requests, service
from llmasos.installs.code import CodeStore
from llmasos.installs.collection import collect
from llmasos.installs.lifecycle import InstallationState, Tell, event_of, failure_of
from llmasos.installs.plan import InstallPlan, program_of
from llmasos.installs.policy import ApprovalNeeded, Change, PolicyForbids
from llmasos.installs.resolve import Requirement, parse_requirement
from llmasos.installs.service import ConsentAnswers, InstallResult
from llmasos.installs.source import ReleaseSource
from llmasos.installs.tables import InstalledRelease
from llmasos.kernel.invocation import Principal
from llmasos.runtimes.runtime import Program, Runtime

logger = logging.getLogger(__name__)

# The user of an upgrade that the policy of the workspace makes: no person has that id.
BY_POLICY: Final = "policy"


def _nobody(_session: Session, _workspace: str, _user: str) -> bool:
    return False


class Installer:
    """Changes what is installed. Each method is one change, which is committed and announced to the app when it
    returns.

    Args:
        database: Stores installations.
        source: Provides releases.
        code: Stores their code.
        runtime_of: Returns the runtime of a kind, which prepares code.
        host_version: Compared with the compatibility of releases; by default this host's version.
        tell: Notifies apps of lifecycle events; without it, no app is notified.
        end_invocations: Ends an installation's invocations, in every process, before it is removed.
        is_administrator: Whether a user administers a workspace, and so may approve what its policy keeps from others;
            by default nobody does.
    """

    def __init__(
        self,
        database: Database,
        source: ReleaseSource,
        code: CodeStore,
        runtime_of: Callable[[str], Runtime],
        host_version: str = "",
        *,
        tell: Tell | None = None,
        end_invocations: Callable[[str], Awaitable[None]] | None = None,
        is_administrator: Callable[[Session, str, str], bool] = _nobody,
    ) -> None:
        self._database = database
        self._source = source
        self._code = code
        self._runtime_of = runtime_of
        self._host_version = host_version or version("llmasos")
        self._tell = tell
        self._end_invocations = end_invocations
        self._is_administrator = is_administrator

    def for_member(self) -> Self:
        """This installer for a caller who may approve nothing, whatever the user's role: a token without that scope."""
        limited = copy(self)
        limited._is_administrator = _nobody
        return limited

    def plan_install(self, workspace: str, wanted: Requirement) -> InstallPlan:
        """Plan an install; see `plan.plan_install`. Show the plan's screens, then carry it out."""
        with self._database.read() as session:
            return plan.plan_install(session, self._source, workspace, wanted, self._host_version)

    def plan_upgrade(self, workspace: str, wanted: Requirement) -> InstallPlan:
        """Plan an upgrade; see `plan.plan_upgrade`."""
        with self._database.read() as session:
            return plan.plan_upgrade(session, self._source, workspace, wanted, self._host_version)

    async def carry_out(self, planned: InstallPlan, answers: ConsentAnswers, user: str) -> list[InstallResult]:
        """Carry out a plan.

        Args:
            planned: From `plan_install` or `plan_upgrade`.
            answers: The decisions of the person who saw its screens.
            user: That person.

        Raises:
            ConsentNeeded: Nobody consented to an install.
            PolicyForbids: The workspace lets only administrators change what is installed.
            ApprovalNeeded: An administrator must approve it; it is stored as a request.
            Conflict: The installation changed after the plan was made.
            Invalid: An answer is not valid.
            ManifestRejected: No runtime here runs apps of its kind.
            ComponentRejected: A component is not valid, or imports more than its manifest declares.
            Unavailable: The disk is full.
        """
        if not planned.steps:
            return [await self._restore(planned)]
        service.check_answers(planned, answers)
        await asyncio.to_thread(self._check_or_ask, Change(planned, answers), user)
        for step in planned.steps:
            await self._prepare(step.bundle, step.program)
        before = {step.app_id: self._look(planned.workspace, step.app_id) for step in planned.steps}
        results = await asyncio.to_thread(self._apply, planned, answers, user)
        principal = Principal(planned.workspace, user)
        return [await self._told(principal, result, before[result.app_id]) for result in results]

    async def rollback(self, workspace: str, app_id: str, user: str) -> InstallResult:
        """Return to the previous release; see `changes.rollback`."""
        with self._database.read() as session:
            self._check_may_change(session, workspace, user)
            target = changes.rollback_target(session, workspace, app_id)
        await self._make_ready(app_id, target)
        before = self._look(workspace, app_id)
        result = await asyncio.to_thread(self._rollback, workspace, app_id, user)
        return await self._told(Principal(workspace, user), result, before)

    async def uninstall(self, workspace: str, app_id: str, user: str, *, delete_data: bool) -> InstallResult:
        """Notify an app of its removal, end its invocations, and remove it; see `changes.uninstall`."""
        with self._database.read() as session:
            self._check_may_change(session, workspace, user)
            installation, release = changes.require_removable(session, workspace, app_id)
            going = InstallResult(app_id, release.version, "uninstalled", installation.id)
            kind, installation_id = release.runtime, installation.id
        failure = (await self._told(Principal(workspace, user), going, None)).failure
        if self._end_invocations is not None:
            await self._end_invocations(installation_id)
        result = await asyncio.to_thread(self._uninstall, workspace, app_id, user, delete_data)
        with suppress(LlmasosError):  # no runtime here runs apps of its kind, so it has no warm runner
            await self._runtime_of(kind).retire(result.installation_id)
        return replace(result, failure=failure)

    async def revoke(self, workspace: str, app_id: str, capability: str, user: str) -> InstallResult:
        """Take a capability from an app; see `changes.revoke`."""
        before = self._look(workspace, app_id)
        result = await asyncio.to_thread(self._revoke, workspace, app_id, capability, user)
        return await self._told(Principal(workspace, user), result, before)

    def narrow(
        self, workspace: str, app_id: str, capability: str, fields: Mapping[str, Any], *, user: str
    ) -> InstallResult:
        """Narrow a grant of an app; see `changes.narrow`."""
        with self._database.write() as session:
            return changes.narrow(session, workspace, app_id, capability, fields, user=user)

    async def revoke_host(self, workspace: str, app_id: str, host: str, user: str) -> InstallResult:
        """Take one host out of an app's http grant; see `changes.revoke_host`."""
        before = self._look(workspace, app_id)
        result = await asyncio.to_thread(self._revoke_host, workspace, app_id, host, user)
        return await self._told(Principal(workspace, user), result, before)

    def configure(self, workspace: str, app_id: str, values: Mapping[str, Any], user: str) -> InstallResult:
        """Change the values of an installed app's form; see `changes.configure`."""
        with self._database.write() as session:
            self._check_may_change(session, workspace, user)
            return changes.configure(session, workspace, app_id, values, user)

    def delete_data(self, workspace: str, app_id: str, user: str) -> int:
        """Delete what an app stores for a user; see `changes.delete_data`."""
        with self._database.write() as session:
            return changes.delete_data(session, workspace, app_id, user)

    async def approve(self, by: Principal, request_id: str) -> list[InstallResult]:
        """Carry out a request, as its user made it.

        Raises:
            NotFound: The workspace has no such request.
            PolicyForbids: `by` does not administer the workspace.
            Conflict: It would do or ask for something else by now.
        """
        with self._database.read() as session:
            self._require_administrator(session, by)
            row = requests.find(session, by.workspace, request_id)
        wanted = parse_requirement(f"{row.app_id}@{row.version}")
        planned = await asyncio.to_thread(self.plan_upgrade if row.upgrade else self.plan_install, by.workspace, wanted)
        requests.check_unchanged(row, planned)
        # By the administrator: whose name the installation bears has no rights by that.
        results = await self.carry_out(planned, requests.answers_of(row), by.user)
        with self._database.write() as session:
            requests.settle(session, by, request_id, "install.approve")
        return results

    def refuse(self, by: Principal, request_id: str) -> None:
        """Refuse a request, or withdraw one's own.

        Raises:
            NotFound: The workspace has no such request, or it is another user's and `by` does not administer it.
        """
        with self._database.write() as session:
            own = requests.find(session, by.workspace, request_id).user_id == by.user
            if not own and not self._is_administrator(session, by.workspace, by.user):
                raise NotFound
            requests.settle(session, by, request_id, "install.withdraw" if own else "install.refuse")

    async def upgrade_by_policy(self, workspace: str) -> list[InstallResult]:
        """Upgrade what the workspace's policy lets upgrade by itself. One that fails is logged, and stays as it is."""
        with self._database.read() as session:
            chosen = policy.policy_of(session, workspace)
            installed = [
                (found.app_id, release.version) for found, release in repository.all_current(session, workspace)
            ]
        results: list[InstallResult] = []
        for app_id, version_now in installed if chosen.upgrades != "nothing" else ():
            try:
                planned = await asyncio.to_thread(self.plan_upgrade, workspace, Requirement(app_id))
                if policy.upgrades_by_itself(chosen, planned, version_now):
                    results += await self.carry_out(planned, ConsentAnswers(agreed=True), BY_POLICY)
            except LlmasosError as error:
                logger.warning("an app was not upgraded by itself", extra={"app": app_id, "error": str(error)})
        return results

    def _check_or_ask(self, change: Change, user: str) -> None:
        """Check a change against the policy; what must be approved is stored as a request."""
        needed: ApprovalNeeded | None = None
        with self._database.write() as session:
            try:
                self._check(session, change, user)
            except ApprovalNeeded as error:
                needed = error
                requests.keep(session, change, Principal(change.plan.workspace, user), error)
        if needed is not None:
            raise needed

    def _check(self, session: Session, change: Change, user: str) -> None:
        if user == BY_POLICY:
            return
        workspace = change.plan.workspace
        administrator = self._is_administrator(session, workspace, user)
        policy.check(policy.policy_of(session, workspace), change, administrator)

    def _check_may_change(self, session: Session, workspace: str, user: str) -> None:
        administrator = self._is_administrator(session, workspace, user)
        policy.check_may_change(policy.policy_of(session, workspace), administrator)

    def _require_administrator(self, session: Session, by: Principal) -> None:
        if not self._is_administrator(session, by.workspace, by.user):
            raise PolicyForbids(_("Only an administrator of the workspace approves requests."))

    async def _restore(self, planned: InstallPlan) -> InstallResult:
        """Prepare an already installed app, if it is not ready."""
        with self._database.read() as session:
            installation, release = repository.require_current(session, planned.workspace, planned.app_id)
        restored = await self._make_ready(planned.app_id, release)
        return InstallResult(planned.app_id, release.version, "restored" if restored else "already", installation.id)

    async def _make_ready(self, app_id: str, release: InstalledRelease) -> bool:
        """Restore the code of an installed release and prepare it, and return whether anything was missing.

        Raises:
            NotFound: Its code is gone or damaged, and the catalog no longer has its bundle.
        """
        program = program_of(
            Manifest.model_validate(release.manifest), release.component_digest, release.installation_id
        )
        runtime = self._runtime_of(program.kind)
        whole = await asyncio.to_thread(self._code.is_whole, program.digest)
        if whole and await runtime.is_ready(program):
            return False
        if not whole:
            bundle = await asyncio.to_thread(self._bundle_of, app_id, release)
            await asyncio.to_thread(self._code.put, bundle)
        await runtime.prepare(program, self._code.path(program.digest))
        return True

    def _bundle_of(self, app_id: str, release: InstalledRelease) -> Bundle:
        try:
            bundle = read_bundle(self._source.bundle(release.digest))
        except NotFound as error:
            raise NotFound(
                _(
                    "The code of {app} {version} is gone or damaged, and its bundle is no longer in the catalog: "
                    "publish it again, or run `llmasos uninstall {app} --keep-data`.",
                    app=app_id,
                    version=release.version,
                ),
            ) from error
        if bundle.digest != release.digest:
            raise plan.swapped_bundle(app_id, release.version)
        return bundle

    async def _prepare(self, bundle: Bundle, program: Program) -> None:
        runtime = self._runtime_of(program.kind)
        path = await asyncio.to_thread(self._code.put, bundle)
        if bundle.component is not None:
            inspection = await runtime.inspect(path)
            check_imports(inspection.imports, program.capabilities)
        await runtime.prepare(program, path)

    def _apply(self, planned: InstallPlan, answers: ConsentAnswers, user: str) -> list[InstallResult]:
        with self._database.write() as session:
            self._check(session, Change(planned, answers), user)
            results = service.apply(session, planned, answers, user)
        self._sweep()
        return results

    def _rollback(self, workspace: str, app_id: str, user: str) -> InstallResult:
        with self._database.write() as session:
            result = changes.rollback(session, workspace, app_id, user)
        self._sweep()
        return result

    def _uninstall(self, workspace: str, app_id: str, user: str, delete_data: bool) -> InstallResult:
        with self._database.write() as session:
            result = changes.uninstall(session, workspace, app_id, user, delete_data=delete_data)
        self._sweep()
        return result

    def _revoke(self, workspace: str, app_id: str, capability: str, user: str) -> InstallResult:
        with self._database.write() as session:
            return changes.revoke(session, workspace, app_id, capability, user)

    def _revoke_host(self, workspace: str, app_id: str, host: str, user: str) -> InstallResult:
        with self._database.write() as session:
            return changes.revoke_host(session, workspace, app_id, host, user)

    def _look(self, workspace: str, app_id: str) -> InstallationState | None:
        with self._database.read() as session:
            found = repository.current(session, workspace, app_id)
            if found is None:
                return None
            release = found[1]
            return InstallationState(
                release.version,
                frozenset(repository.active_grants(session, release)),
                lifecycle_events_of(release.actions),
            )

    async def _told(
        self, principal: Principal, result: InstallResult, before: InstallationState | None
    ) -> InstallResult:
        """Run the app's hook for a change, and return the result with the hook's failure, if any."""
        now = self._look(principal.workspace, result.app_id)
        found = event_of(result.outcome, before, now) if now is not None else None
        if self._tell is None or found is None:
            return result
        event, value = found
        try:
            await self._tell(principal, result.app_id, event, value)
        except Exception as error:  # whatever the failure, the change stands
            if not isinstance(error, LlmasosError):
                logger.exception("a lifecycle hook could not run", extra={"app": result.app_id, "event": event})
            failure = error if isinstance(error, LlmasosError) else Unavailable()
            return replace(result, failure=failure_of(result.app_id, event, failure))
        return result

    def _sweep(self) -> None:
        """Free what no release needs any more. The change is committed and stands even if this fails."""
        try:
            collect(self._database, self._code.root.parent)
        except (OSError, LlmasosError) as error:
            logger.warning("what no release needs could not be removed", extra={"error": str(error)})
