"""Whether what is installed fits together. Finds, and says what to do; changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from packaging.specifiers import SpecifierSet
from pydantic import ValidationError
from sqlmodel import Session, col, select

from llmasos.bundles.manifest import Manifest
from llmasos.installs import repository
from llmasos.installs.code import CodeStore
from llmasos.installs.rows import permission_of
from llmasos.installs.tables import GrantRow, Installation, InstalledRelease
from llmasos.kernel.grants import is_within
from llmasos.quotas.tables import Quota


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it should be, and the cure."""

    subject: str
    what: str
    cure: str

    def __str__(self) -> str:
        return f"{self.subject}: {self.what}; {self.cure}"


def check(session: Session, home: Path) -> list[Finding]:
    """Hold every installation against its releases, grants, quotas, code and dependencies.

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


def _reinstall(app_id: str) -> str:
    return f"run `llmasos uninstall {app_id}`, keeping its data, and install it again"


def _orphans(
    session: Session, installations: list[Installation], releases: list[InstalledRelease]
) -> Iterator[Finding]:
    known = {installation.id for installation in installations}
    for release in releases:
        if release.installation_id not in known:
            yield Finding(
                f"release {release.id}", "it belongs to no installation", "restore the database from a backup"
            )
    ids = {release.id for release in releases}
    for grant in session.exec(select(GrantRow)):
        if grant.installed_release_id not in ids:
            yield Finding(f"grant {grant.capability}", "it belongs to no release", "restore the database from a backup")
    for quota in session.exec(select(Quota).where(Quota.source != "operator")):
        if quota.source not in known:
            cure = "remove it with `llmasos quota remove`"
            yield Finding(f"quota of {quota.scope_id}", "the installation that brought it is gone", cure)


def _states(installation: Installation, releases: list[InstalledRelease]) -> Iterator[Finding]:
    app_id = installation.app_id
    current = [release.id for release in releases if release.state == "current"]
    if current != [installation.current_id]:
        yield Finding(app_id, f"{len(current)} of its releases say that they run", _reinstall(app_id))
    if sum(release.state == "pending" for release in releases) > 1:
        yield Finding(app_id, "more than one release waits for consent", f"run `llmasos upgrade {app_id}`")
    unknown = {release.state for release in releases} - {"current", "pending", "previous"}
    if unknown:
        yield Finding(app_id, f"a release is in the unknown state {sorted(unknown)[0]!r}", _reinstall(app_id))


def _release(
    session: Session, installation: Installation, release: InstalledRelease, code_is_whole: bool
) -> Iterator[Finding]:
    subject = f"{installation.app_id} {release.version}"
    cure = _reinstall(installation.app_id)
    if not code_is_whole:
        yield Finding(subject, "its code is gone or damaged", cure)
    try:
        manifest = Manifest.model_validate(release.manifest)
    except ValidationError:
        yield Finding(subject, "its stored manifest is not valid", cure)
        return
    if (manifest.id, manifest.version) != (installation.app_id, release.version):
        yield Finding(subject, f"its stored manifest is that of {manifest.id} {manifest.version}", cure)
    for row in repository.grants(session, release.id or 0):
        declared = manifest.permission(row.capability)
        try:
            within = declared is not None and is_within(permission_of(row.scope), declared)
        except ValidationError:
            within = False
        if not within:
            revoke = f"run `llmasos grants revoke {installation.app_id} {row.capability}`"
            yield Finding(subject, f"its grant for {row.capability} is wider than its manifest", revoke)
    if release.state == "current":
        yield from _quota(session, installation, manifest)


def _quota(session: Session, installation: Installation, manifest: Manifest) -> Iterator[Finding]:
    found = [quota.limit for quota in repository.quotas_from(session, [installation.id])]
    wanted = [manifest.limits.tokens_per_day] if manifest.limits.tokens_per_day is not None else []
    if found != wanted:
        what = "its daily limit of tokens is not the one that was agreed to"
        yield Finding(installation.app_id, what, _reinstall(installation.app_id))


def _dependencies(installations: list[Installation], releases: list[InstalledRelease]) -> Iterator[Finding]:
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
                yield Finding(app_id, f"it needs {other}, which is not installed", f"run `llmasos install {other}`")
            elif not SpecifierSet(specifier).contains(there.version, prereleases=True):
                what = f"it needs {other} {specifier}, and {there.version} is installed"
                yield Finding(app_id, what, f"run `llmasos upgrade {other}`")
