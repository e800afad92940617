"""Plans of installs and upgrades, computed and checked before anything changes."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, Literal, TypeAlias

from packaging.specifiers import SpecifierSet
from packaging.version import Version
from sqlmodel import Session

from llmasos.bundles.manifest import Manifest
from llmasos.bundles.parts import Permission
from llmasos.bundles.reader import Bundle, read_bundle
from llmasos.errors import BundleRejected, Conflict
from llmasos.i18n import _
from llmasos.installs import repository
from llmasos.installs.consent import ConsentRequest, first_consent, renewed_consent, upgrade_consent
from llmasos.installs.resolve import Requirement, lock_of, no_such_release, resolve
from llmasos.installs.source import Candidate, ReleaseSource
from llmasos.installs.tables import InstalledRelease
from llmasos.kernel.grants import is_within
from llmasos.runtimes.runtime import Program
from llmasos_sdk.host import BASELINE_CAPABILITIES

LOCAL: Final = "local"
"""This host's own catalog."""

StepKind: TypeAlias = Literal["install", "upgrade", "grant"]


@dataclass(frozen=True, slots=True)
class InstallStep:
    """One app that is installed or upgraded, or that asks again for what it was not granted."""

    kind: StepKind
    bundle: Bundle
    request: ConsentRequest
    installation_id: str
    lock: Mapping[str, Mapping[str, str]]
    before_id: int | None = None
    """The installed release that the step was planned for."""
    config: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    """The values of its form that were chosen before."""
    source: str = LOCAL
    """The source that it comes from."""

    @property
    def app_id(self) -> str:
        """The app."""
        return self.bundle.manifest.id

    @property
    def program(self) -> Program:
        """The program that a runtime prepares."""
        return program_of(self.bundle.manifest, self.bundle.component_digest, self.installation_id)


@dataclass(frozen=True, slots=True)
class InstallPlan:
    """The steps to an installed app, dependencies first. Without steps, nothing has to change."""

    workspace: str
    app_id: str
    version: str
    """The version of the app after the plan is carried out."""
    steps: tuple[InstallStep, ...]

    @property
    def needs_consent(self) -> bool:
        """Whether it needs consent before it can be carried out."""
        return any(step.request.is_needed for step in self.steps)

    @property
    def digest(self) -> str:
        """SHA-256 of what the person is asked to agree to, hexadecimal: consent to a plan is consent to its digest."""
        asked = [
            (
                step.kind,
                step.app_id,
                step.request.from_version,
                # The bundle's digest covers its manifest, and so each permission and limit.
                step.bundle.digest,
                [(each.capability, each.status) for each in step.request.permissions],
                step.request.raised_limits,
            )
            for step in self.steps
        ]
        return hashlib.sha256(json.dumps([self.workspace, self.app_id, self.version, asked]).encode()).hexdigest()


def program_of(manifest: Manifest, code_digest: str, installation_id: str) -> Program:
    """The program of a release, linked with what its manifest declares; the kernel enforces what was granted."""
    return Program(manifest.runtime.kind, code_digest, manifest.capabilities | BASELINE_CAPABILITIES, installation_id)


def plan_install(
    session: Session, source: ReleaseSource, workspace: str, wanted: Requirement, host_version: str
) -> InstallPlan:
    """Plan an install. If a fitting version is installed, only missing grants are asked for.

    Raises:
        NotFound: There is no such app.
        Conflict: No release satisfies the requirements, or another version is installed.
        BundleRejected: A bundle differs from the catalog.
    """
    found = repository.current(session, workspace, wanted.app_id)
    if found is not None:
        installation, release = found
        if not Requirement(wanted.app_id, wanted.specifier, prereleases=True).allows(release.version):
            raise Conflict(
                _(
                    "{app} {version} is installed: run `llmasos upgrade {app}` to change it",
                    app=wanted.app_id,
                    version=release.version,
                ),
            )
        return _regrant(session, source, workspace, release, installation.id)
    there = _installed(session, workspace)
    _require_named_version(source, wanted)
    chosen = resolve(wanted, source, host_version, installed=there)
    steps = _new_steps(chosen, there, source)
    return InstallPlan(workspace, wanted.app_id, chosen[wanted.app_id].version, steps)


def plan_upgrade(
    session: Session, source: ReleaseSource, workspace: str, wanted: Requirement, host_version: str
) -> InstallPlan:
    """Plan an upgrade to the newest fitting release; to an older one only if its version is named.

    Raises:
        NotFound: The app is not installed, or not in the catalog.
        Conflict: No release satisfies the app, its dependencies and its dependents.
        BundleRejected: A bundle differs from the catalog.
    """
    installation, release = repository.require_current(session, workspace, wanted.app_id)
    there = _installed(session, workspace)
    _require_named_version(source, wanted)
    others = {app: candidate for app, candidate in there.items() if app != wanted.app_id}
    needs = tuple(
        Requirement(wanted.app_id, SpecifierSet(other.manifest.dependencies[wanted.app_id]), f"{app} {other.version}")
        for app, other in sorted(others.items())
        if wanted.app_id in other.manifest.dependencies
    )
    # An installed pre-release may be upgraded to the next one.
    pre = wanted.prereleases or Version(release.version).is_prerelease
    asked = Requirement(wanted.app_id, wanted.specifier, prereleases=pre)
    chosen = resolve(asked, source, host_version, installed=others, dependents=needs)
    target = chosen[wanted.app_id]
    newer = Version(target.version) > Version(release.version) or bool(str(wanted.specifier))
    if target.digest == release.digest or not newer:
        return InstallPlan(workspace, wanted.app_id, release.version, ())
    step = InstallStep(
        "upgrade",
        _bundle(source, target),
        upgrade_consent(target.manifest, Manifest.model_validate(release.manifest)),
        installation.id,
        _lock(chosen, wanted.app_id),
        release.id,
        release.config,
    )
    return InstallPlan(workspace, wanted.app_id, target.version, (*_new_steps(chosen, there, source), step))


def _require_named_version(source: ReleaseSource, wanted: Requirement) -> None:
    """Check that an explicitly named version exists; the error lists the existing ones.

    Raises:
        NotFound: There is no such release.
    """
    if wanted.named_version is None:
        return
    versions = [candidate.version for candidate in source.releases(wanted.app_id)]
    if versions and not any(wanted.specifier.contains(version, prereleases=True) for version in versions):
        raise no_such_release(wanted.app_id, wanted.named_version, versions)


def _regrant(
    session: Session, source: ReleaseSource, workspace: str, release: InstalledRelease, owner: str
) -> InstallPlan:
    manifest = Manifest.model_validate(release.manifest)
    granted = repository.active_grants(session, release)
    steps: tuple[InstallStep, ...] = ()
    if any(not _grants(granted, permission) for permission in manifest.permissions):
        bundle = _bundle(source, Candidate(manifest.id, release.version, release.digest, manifest))
        request = renewed_consent(manifest, granted)
        steps = (InstallStep("grant", bundle, request, owner, release.lock, release.id, release.config),)
    return InstallPlan(workspace, manifest.id, release.version, steps)


def _grants(granted: Mapping[str, Permission], permission: Permission) -> bool:
    """Whether all of a permission is granted."""
    held = granted.get(permission.capability)
    return held is not None and is_within(permission, held)


def _installed(session: Session, workspace: str) -> dict[str, Candidate]:
    return {
        installation.app_id: Candidate(
            installation.app_id, release.version, release.digest, Manifest.model_validate(release.manifest)
        )
        for installation, release in repository.all_current(session, workspace)
    }


def _new_steps(
    chosen: Mapping[str, Candidate], there: Mapping[str, Candidate], source: ReleaseSource
) -> tuple[InstallStep, ...]:
    """An install step for each app that is not installed, dependencies first."""
    # `resolve` starts at the root, so the reverse order puts dependencies first.
    new = [app for app in reversed(list(chosen)) if app not in there]
    return tuple(
        InstallStep(
            "install",
            _bundle(source, chosen[app]),
            first_consent(chosen[app].manifest),
            uuid.uuid4().hex,
            _lock(chosen, app),
        )
        for app in new
    )


def _lock(chosen: Mapping[str, Candidate], app: str) -> dict[str, dict[str, str]]:
    """The lock of all dependencies of an app, direct and indirect."""
    reached: dict[str, Candidate] = {}
    waiting = [app]
    while waiting:
        name = waiting.pop()
        if name in chosen and name not in reached:
            reached[name] = chosen[name]
            waiting.extend(chosen[name].manifest.dependencies)
    return lock_of(reached, app)


def _bundle(source: ReleaseSource, candidate: Candidate) -> Bundle:
    """Read and check a release's bundle again, since the catalog is not trusted either."""
    bundle = read_bundle(source.bundle(candidate.digest))
    manifest = bundle.manifest
    same = (bundle.digest, manifest.id, manifest.version) == (candidate.digest, candidate.app_id, candidate.version)
    if not same or manifest != candidate.manifest:
        raise swapped_bundle(candidate.app_id, candidate.version)
    return bundle


def swapped_bundle(app_id: str, version: str) -> BundleRejected:
    """The error for a bundle whose bytes differ from its release."""
    return BundleRejected(
        _(
            "the stored bundle of {app} {version} is not the one that was published: publish the release "
            "again, or run `llmasos doctor`",
            app=app_id,
            version=version,
        ),
    )
