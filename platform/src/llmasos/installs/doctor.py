"""Checks whether installations are consistent, and names cures. Changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from packaging.specifiers import SpecifierSet
from pydantic import ValidationError
from sqlmodel import Session, col, select

from llmasos.bundles.manifest import Manifest
from llmasos.errors import LlmasosError
from llmasos.i18n import Message, _
from llmasos.installs import repository
from llmasos.installs.code import CodeStore
from llmasos.installs.tables import GrantRow, Installation, InstalledRelease
from llmasos.kernel.grants import is_within
from llmasos.quotas.tables import Quota
from llmasos.runtimes.runtime import Program, Runtime


@dataclass(frozen=True, slots=True)
class InstallationFinding:
    """An inconsistency and its cure."""

    subject: str
    what: Message
    cure: Message

    def __str__(self) -> str:
        return str(self.message)

    @property
    def message(self) -> Message:
        """The finding on one line."""
        return _("{subject}: {what}; {cure}", subject=self.subject, what=self.what, cure=self.cure)


def check(session: Session, home: Path) -> list[InstallationFinding]:
    """Check every installation against its releases, grants, quotas, code and dependencies.

    Args:
        session: Any session; it is only read.
        home: The host's home.
    """
    installations = list(session.exec(select(Installation).order_by(col(Installation.app_id))))
    releases = list(session.exec(select(InstalledRelease)))
    by_owner: dict[str, list[InstalledRelease]] = {}
    for release in releases:
        by_owner.setdefault(release.installation_id, []).append(release)
    findings = list(_orphans(session, installations, releases))
    code = CodeStore.in_home(home)
    whole: dict[str, bool] = {}
    for installation in installations:
        its = by_owner.get(installation.id, [])
        findings.extend(_states(installation, its))
        for release in its:
            if release.component_digest not in whole:
                whole[release.component_digest] = code.is_whole(release.component_digest)
            findings.extend(_release(session, installation, release, whole[release.component_digest]))
    findings.extend(_dependencies(installations, releases))
    return findings


_RESTORE: Final = _("restore the database from a backup")


async def unprepared(
    session: Session, runtime_of: Callable[[str], Runtime]
) -> tuple[list[str], list[InstallationFinding]]:
    """Find the current releases that will be prepared at their next run, and those that no runtime here can run.

    Args:
        session: Any session; it is only read.
        runtime_of: Returns the runtime of a kind.
    """
    waiting: list[str] = []
    findings: list[InstallationFinding] = []
    current = select(Installation, InstalledRelease).where(Installation.current_id == InstalledRelease.id)
    for installation, release in session.exec(current.order_by(col(Installation.app_id))):
        try:
            runtime = runtime_of(release.runtime)
            ready = await runtime.is_ready(
                Program(release.runtime, release.component_digest, frozenset(), installation.id)
            )
        except LlmasosError as error:
            findings.append(InstallationFinding(installation.app_id, error.message, _reinstall(installation.app_id)))
            continue
        if not ready:
            waiting.append(installation.app_id)
    return waiting, findings


def _restore(app_id: str) -> Message:
    install = f"`llmasos install {app_id}`"
    return _("run {install} to restore it", install=install)


def _reinstall(app_id: str) -> Message:
    uninstall = f"`llmasos uninstall {app_id}`"
    return _("run {uninstall}, keeping its data, and install it again", uninstall=uninstall)


def _orphans(
    session: Session, installations: list[Installation], releases: list[InstalledRelease]
) -> Iterator[InstallationFinding]:
    known = {installation.id for installation in installations}
    for release in releases:
        if release.installation_id not in known:
            what = _("it belongs to no installation")
            yield InstallationFinding(_("release {id}", id=release.id), what, _RESTORE)
    ids = {release.id for release in releases}
    for grant in session.exec(select(GrantRow)):
        if grant.installed_release_id not in ids:
            what = _("it belongs to no release")
            yield InstallationFinding(_("grant of {capability}", capability=grant.capability), what, _RESTORE)
    for quota in session.exec(select(Quota).where(Quota.source != "operator")):
        if quota.source not in known:
            what = _("the installation that brought it is gone")
            cure = _("remove it with `llmasos quota remove`")
            yield InstallationFinding(_("quota of {scope}", scope=quota.scope_id), what, cure)


def _states(installation: Installation, releases: list[InstalledRelease]) -> Iterator[InstallationFinding]:
    app_id = installation.app_id
    current = [release.id for release in releases if release.state == "current"]
    if current != [installation.current_id]:
        what = _("{count} of its releases are marked as current", count=len(current))
        yield InstallationFinding(app_id, what, _reinstall(app_id))
    if sum(release.state == "pending" for release in releases) > 1:
        what = _("more than one release waits for consent")
        upgrade = f"`llmasos upgrade {app_id}`"
        yield InstallationFinding(app_id, what, _("run {upgrade}", upgrade=upgrade))
    unknown = {release.state for release in releases} - {"current", "pending", "previous"}
    if unknown:
        state = sorted(unknown)[0]
        what = _("a release is in the unknown state {state!r}", state=state)
        yield InstallationFinding(app_id, what, _reinstall(app_id))


def _release(
    session: Session, installation: Installation, release: InstalledRelease, code_is_whole: bool
) -> Iterator[InstallationFinding]:
    subject = f"{installation.app_id} {release.version}"
    cure = _reinstall(installation.app_id)
    if not code_is_whole:
        what = _("its code is gone or damaged")
        yield InstallationFinding(subject, what, _restore(installation.app_id) if release.state == "current" else cure)
    try:
        manifest = Manifest.model_validate(release.manifest)
    except ValidationError:
        yield InstallationFinding(subject, _("its stored manifest is not valid"), cure)
        return
    if (manifest.id, manifest.version) != (installation.app_id, release.version):
        other = f"{manifest.id} {manifest.version}"
        yield InstallationFinding(subject, _("its stored manifest is that of {other}", other=other), cure)
    for row in repository.grants(session, release.id or 0):
        declared = manifest.permission(row.capability)
        try:
            within = declared is not None and is_within(repository.permission_of(row.scope), declared)
        except ValidationError:
            within = False
        if not within:
            what = _("its grant for {capability} is wider than its manifest", capability=row.capability)
            revoke = f"`llmasos grants revoke {installation.app_id} {row.capability}`"
            yield InstallationFinding(subject, what, _("run {revoke}", revoke=revoke))
    if release.state == "current":
        yield from _quota(session, installation, manifest)


def _quota(session: Session, installation: Installation, manifest: Manifest) -> Iterator[InstallationFinding]:
    found = [quota.limit for quota in repository.quotas_from(session, [installation.id])]
    wanted = [manifest.limits.tokens_per_day] if manifest.limits.tokens_per_day is not None else []
    if found != wanted:
        what = _("its daily limit of tokens is not the one that was agreed to")
        yield InstallationFinding(installation.app_id, what, _reinstall(installation.app_id))


def _dependencies(installations: list[Installation], releases: list[InstalledRelease]) -> Iterator[InstallationFinding]:
    by_id = {release.id: release for release in releases}
    running = {
        (installation.workspace_id, installation.app_id): by_id[installation.current_id]
        for installation in installations
        if installation.current_id in by_id
    }
    for (workspace, app_id), release in running.items():
        needs = release.manifest.get("dependencies", {})
        for other, specifier in needs.items():
            there = running.get((workspace, other))
            if there is None:
                what = _("it needs {other}, which is not installed", other=other)
                install = f"`llmasos install {other}`"
                yield InstallationFinding(app_id, what, _("run {install}", install=install))
            elif not SpecifierSet(specifier).contains(there.version, prereleases=True):
                what = _(
                    "it needs {other} {specifier}, and {version} is installed",
                    other=other,
                    specifier=specifier,
                    version=there.version,
                )
                upgrade = f"`llmasos upgrade {other}`"
                yield InstallationFinding(app_id, what, _("run {upgrade}", upgrade=upgrade))
