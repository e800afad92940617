"""The rules of installing: applies a plan in one transaction, which the caller opens and commits.

Slow and fallible work (reading bundles, writing code, compiling) is done before; this only switches.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

from llmasos.bundles.manifest import Manifest
from llmasos.bundles.parts import Permission
from llmasos.database.engine import WriteSession, utc_now
from llmasos.errors import Conflict, ConsentNeeded, Invalid, LlmasosError
from llmasos.i18n import _
from llmasos.installs import repository
from llmasos.installs.form import config_values, reset_settings, still_valid
from llmasos.installs.plan import InstallPlan, InstallStep
from llmasos.installs.repository import (
    active_grants,
    add_release,
    audit,
    grant_row,
    release_detail,
    require_current,
    set_quotas,
)
from llmasos.installs.tables import Installation, InstalledRelease
from llmasos.kernel.grants import carry_over

InstallOutcome: TypeAlias = Literal[
    "installed",
    "upgraded",
    "waiting",
    "granted",
    "configured",
    "already",
    "restored",
    "rolled-back",
    "revoked",
    "narrowed",
    "uninstalled",
]

# A rollback returns to one release at a time; more are rarely needed.
KEPT_RELEASES = 3


@dataclass(frozen=True, slots=True)
class ConsentAnswers:
    """A person's decisions.

    Args:
        agreed: Whether they agreed to what the screens showed.
        declined: By app, the optional capabilities that they declined.
        config: By app, the values of its form; an omitted field has its default.
    """

    agreed: bool = False
    declined: Mapping[str, frozenset[str]] = field(default_factory=lambda: MappingProxyType({}))
    config: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class InstallResult:
    """The result of a plan for one app."""

    app_id: str
    version: str
    outcome: InstallOutcome
    installation_id: str
    failure: LlmasosError | None = None
    """How the app's own hook for the change failed. The change stands all the same."""
    reset_settings: tuple[str, ...] = ()
    """Settings whose chosen value the new release does not take: they have its default now."""


def check_answers(plan: InstallPlan, answers: ConsentAnswers) -> None:
    """Check answers before any work is done for them.

    Raises:
        ConsentNeeded: Nobody agreed to an install.
        Invalid: A config value is not valid or is missing, or a capability that the app needs was declined.
    """
    if plan.needs_consent and not answers.agreed and all(step.kind != "upgrade" for step in plan.steps):
        raise ConsentNeeded(
            _("{app} asks for permissions: agree to them, or pass --yes", app=plan.app_id),
        )
    for step in plan.steps:
        manifest = step.bundle.manifest
        chosen_config(step, answers)
        optional = {permission.capability for permission in manifest.permissions if permission.optional}
        for capability in sorted(answers.declined.get(step.app_id, frozenset()) - optional):
            raise Invalid(
                _(
                    "{app} does not work without {capability}: agree to it, or do not install the app",
                    app=step.app_id,
                    capability=capability,
                ),
            )


def apply(session: WriteSession, plan: InstallPlan, answers: ConsentAnswers, user: str) -> list[InstallResult]:
    """Carry out a plan whose code is prepared.

    An upgrade that asks for more and has no consent is stored as pending; the current release keeps running.

    Raises:
        ConsentNeeded, Invalid: As `check_answers`.
        Conflict: Somebody else changed the installation since the plan was made.
    """
    check_answers(plan, answers)
    repository.ensure_workspace(session, plan.workspace)
    if plan.needs_consent and not answers.agreed:
        # Its dependencies are installed with it, once consent is given.
        return [_wait(session, plan.workspace, step, answers, user) for step in plan.steps if step.kind == "upgrade"]
    carry_out = {"install": _install, "upgrade": _upgrade, "grant": _grant}
    return [carry_out[step.kind](session, plan.workspace, step, answers, user) for step in plan.steps]


def _install(
    session: WriteSession, workspace: str, step: InstallStep, answers: ConsentAnswers, user: str
) -> InstallResult:
    manifest = step.bundle.manifest
    existing = repository.current(session, workspace, step.app_id)
    if existing is not None:
        installation, release = existing
        if release.digest != step.bundle.digest:
            raise changed_meanwhile(step.app_id, release.version)
        return InstallResult(step.app_id, release.version, "already", installation.id)
    installation = Installation(
        id=step.installation_id, workspace_id=workspace, app_id=step.app_id, installed_by=user, installed_at=utc_now()
    )
    session.add(installation)
    session.flush()
    granted = _agreed_now(step, answers)
    release = _add_release(session, step, granted, chosen_config(step, answers), "current")
    installation.current_id = release.id
    set_quotas(session, installation, manifest.limits)
    audit(session, installation, user, "install", granted, detail=release_detail(release))
    return InstallResult(step.app_id, manifest.version, "installed", installation.id)


def _upgrade(
    session: WriteSession, workspace: str, step: InstallStep, answers: ConsentAnswers, user: str
) -> InstallResult:
    manifest = step.bundle.manifest
    installation, old = require_current(session, workspace, step.app_id)
    if old.digest == step.bundle.digest:
        return InstallResult(step.app_id, old.version, "already", installation.id)
    granted, config = _carried(session, step, old, answers)
    if answers.agreed:
        granted |= _agreed_now(step, answers)
    release = _add_release(session, step, granted, config, "current")
    old.state = "previous"
    installation.current_id = release.id
    session.add_all((old, installation))
    session.flush()
    for ancient in repository.releases(session, installation.id, "previous")[KEPT_RELEASES:]:
        repository.remove_release(session, ancient)
    set_quotas(session, installation, manifest.limits)
    audit(session, installation, user, "upgrade", granted, detail={**release_detail(release), "before": old.version})
    reset = reset_settings(manifest, step.config, answers.config.get(step.app_id, {}))
    return InstallResult(step.app_id, manifest.version, "upgraded", installation.id, reset_settings=reset)


def _wait(
    session: WriteSession, workspace: str, step: InstallStep, answers: ConsentAnswers, user: str
) -> InstallResult:
    """Store a release as pending; the current one keeps running until consent is given."""
    installation, old = require_current(session, workspace, step.app_id)
    if old.digest == step.bundle.digest:
        return InstallResult(step.app_id, old.version, "already", installation.id)
    waiting = repository.releases(session, installation.id, "pending")
    if waiting and waiting[0].digest == step.bundle.digest:
        return InstallResult(step.app_id, waiting[0].version, "waiting", installation.id)
    kept, config = _carried(session, step, old, answers)
    release = _add_release(session, step, kept, config, "pending")
    audit(session, installation, user, "upgrade.wait", kept, detail=release_detail(release))
    return InstallResult(step.app_id, release.version, "waiting", installation.id)


def _carried(
    session: WriteSession, step: InstallStep, old: InstalledRelease, answers: ConsentAnswers
) -> tuple[dict[str, Permission], dict[str, Any]]:
    """The grants and config that a new release inherits. A pending release is removed.

    Raises:
        Conflict: The current release is not the one that the plan was made for.
        Invalid: The config is not valid.
    """
    manifest = step.bundle.manifest
    if old.id != step.before_id:
        raise changed_meanwhile(step.app_id, old.version)
    for waiting in repository.releases(session, old.installation_id, "pending"):
        repository.remove_release(session, waiting)
    before = Manifest.model_validate(old.manifest)
    kept = carry_over(active_grants(session, old), before.permissions, manifest.permissions)
    return kept, chosen_config(step, answers)


def chosen_config(step: InstallStep, answers: ConsentAnswers) -> dict[str, Any]:
    """The values of an app's form: the new answer, else the earlier choice, else the default.

    Raises:
        Invalid: A value is not valid or is missing.
    """
    manifest = step.bundle.manifest
    return config_values(manifest, {**still_valid(manifest, step.config), **answers.config.get(step.app_id, {})})


def changed_meanwhile(app_id: str, version: str) -> Conflict:
    """The error for a plan that no longer matches the installation."""
    return Conflict(
        _("{app} was changed to {version} in the meantime: run the command again", app=app_id, version=version),
    )


def _agreed_now(step: InstallStep, answers: ConsentAnswers) -> dict[str, Permission]:
    """The step's new permissions that were not declined."""
    declined = answers.declined.get(step.app_id, frozenset())
    return {
        each.capability: each.permission
        for each in step.request.permissions
        if each.needs_consent and each.capability not in declined
    }


def _grant(
    session: WriteSession, workspace: str, step: InstallStep, answers: ConsentAnswers, user: str
) -> InstallResult:
    installation, release = require_current(session, workspace, step.app_id)
    if release.id != step.before_id:
        raise changed_meanwhile(step.app_id, release.version)
    agreed = _agreed_now(step, answers)
    for permission in agreed.values():
        session.merge(grant_row(release.id or 0, permission))
    session.flush()
    granted = active_grants(session, release)
    audit(session, installation, user, "grant", granted, detail=release_detail(release))
    return InstallResult(step.app_id, release.version, "granted", installation.id)


def _add_release(
    session: WriteSession, step: InstallStep, granted: Mapping[str, Permission], config: dict[str, Any], state: str
) -> InstalledRelease:
    return add_release(
        session, step.installation_id, step.bundle, granted=granted, config=config, lock=step.lock, state=state
    )
