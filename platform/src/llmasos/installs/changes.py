"""Rollback, uninstall, revoke and configure, in the caller's transaction."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from packaging.specifiers import SpecifierSet
from pydantic import ValidationError
from sqlmodel import Session

from llmasos.bundles.manifest import Manifest
from llmasos.bundles.parts import HttpPermission, Permission
from llmasos.capabilities import stored_data
from llmasos.database.engine import WriteSession
from llmasos.errors import Conflict, Invalid, NotFound
from llmasos.i18n import _, listing
from llmasos.installs import repository
from llmasos.installs.form import config_values
from llmasos.installs.repository import active_grants, audit, release_detail, require_current, set_quotas
from llmasos.installs.service import InstallResult
from llmasos.installs.tables import Installation, InstalledRelease
from llmasos.kernel.grants import intersect, is_within
from llmasos.validation import misfit

# Words for people, and what a grant is of: no part of what is narrowed.
_NOT_NARROWED = frozenset({"capability", "optional", "reason"})


def rollback(session: WriteSession, workspace: str, app_id: str, user: str) -> InstallResult:
    """Return to the previous release with its grants, except those revoked since.

    Raises:
        NotFound: The app is not installed, or there is no release to go back to.
        Conflict: An installed app needs the newer release.
    """
    installation, newer = require_current(session, workspace, app_id)
    target = rollback_target(session, workspace, app_id)
    for other, release in repository.all_current(session, workspace):
        needed = Manifest.model_validate(release.manifest).dependencies.get(app_id)
        if needed is not None and not SpecifierSet(needed).contains(target.version, prereleases=True):
            raise Conflict(
                _(
                    "{app} {version} needs {app_2} {needed}: roll it back or uninstall it first",
                    app=other.app_id,
                    version=release.version,
                    app_2=app_id,
                    needed=needed,
                ),
            )
    target.state = "current"
    installation.current_id = target.id
    session.add_all((target, installation))
    session.flush()
    for release in (newer, *repository.releases(session, installation.id, "pending")):
        repository.remove_release(session, release)
    manifest = Manifest.model_validate(target.manifest)
    set_quotas(session, installation, manifest.limits)
    granted = active_grants(session, target)
    audit(session, installation, user, "rollback", granted, detail={**release_detail(target), "before": newer.version})
    return InstallResult(app_id, target.version, "rolled-back", installation.id)


def rollback_target(session: Session, workspace: str, app_id: str) -> InstalledRelease:
    """The release that a rollback returns to.

    Raises:
        NotFound: The app is not installed, or has no earlier release.
    """
    installation, __ = require_current(session, workspace, app_id)
    earlier = repository.releases(session, installation.id, "previous")
    if not earlier:
        raise NotFound(
            _("{app} has no earlier release here: install one by its version, as in {app}@1.0.0", app=app_id),
        )
    return earlier[0]


def uninstall(session: WriteSession, workspace: str, app_id: str, user: str, *, delete_data: bool) -> InstallResult:
    """Remove an app with its grants and quotas, and with its stored values if `delete_data`.

    Raises:
        NotFound, Conflict: As `require_removable`.
    """
    installation, release = require_removable(session, workspace, app_id)
    deleted = stored_data.forget(session, workspace, app_id) if delete_data else 0
    result = InstallResult(app_id, release.version, "uninstalled", installation.id)
    audit(session, installation, user, "uninstall", (), detail={**release_detail(release), "deleted_values": deleted})
    repository.remove_installation(session, installation)
    return result


def require_removable(session: Session, workspace: str, app_id: str) -> tuple[Installation, InstalledRelease]:
    """Return an installation that may be removed, and its current release.

    Raises:
        NotFound: The app is not installed.
        Conflict: Installed apps depend on it.
    """
    installation, release = require_current(session, workspace, app_id)
    dependents = [
        other.app_id
        for other, its in repository.all_current(session, workspace)
        if other.app_id != app_id and app_id in Manifest.model_validate(its.manifest).dependencies
    ]
    if dependents:
        named = ", ".join(dependents)
        raise Conflict(_("{named} depends on {app}: uninstall it first", named=named, app=app_id))
    return installation, release


def revoke(session: WriteSession, workspace: str, app_id: str, capability: str, user: str) -> InstallResult:
    """Revoke a capability of an app, in its current release and in those that a rollback may return to.

    Raises:
        NotFound: The app is not installed, or does not hold the capability.
    """
    installation, release = require_current(session, workspace, app_id)
    _require_grant(session, release, app_id, capability)
    repository.revoke(session, installation.id, capability)
    session.expire_all()
    left = active_grants(session, release)
    audit(session, installation, user, "grants.revoke", left, detail={**release_detail(release), "revoked": capability})
    return InstallResult(app_id, release.version, "revoked", installation.id)


def narrow(
    session: WriteSession, workspace: str, app_id: str, capability: str, fields: Mapping[str, Any], *, user: str
) -> InstallResult:
    """Narrow the grant of a capability, in the current release and in those that a rollback may return to.

    Args:
        session: The write.
        workspace: Whose installation it is.
        app_id: The app.
        capability: Whose grant is narrowed.
        fields: Fields of the permission as the manifest writes them, such as `hosts`; the others stay.
        user: Who narrows it.

    Raises:
        NotFound: The app is not installed, or does not hold the capability.
        Invalid: A field is not valid or unknown, or the result would be wider than the grant.
    """
    installation, release = require_current(session, workspace, app_id)
    held = _require_grant(session, release, app_id, capability)
    wanted = _changed(held, fields)
    if not is_within(wanted, held):
        raise Invalid(
            _(
                "A grant can be narrowed, not widened; see `llmasos grants show {app}`. To grant more: "
                "llmasos install {app}",
                app=app_id,
            )
        )
    if is_within(held, wanted):
        return InstallResult(app_id, release.version, "already", installation.id)
    for each in repository.releases(session, installation.id):
        grant = active_grants(session, each).get(capability)
        left = None if grant is None else intersect(grant, wanted)
        if left is not None:
            session.merge(repository.grant_row(each.id or 0, left))
        elif grant is not None:
            repository.revoke_in(session, each, capability)
    session.flush()
    scope = wanted.model_dump(mode="json", exclude=set(_NOT_NARROWED))
    detail = {**release_detail(release), "narrowed": capability, "scope": scope}
    audit(session, installation, user, "grants.narrow", active_grants(session, release), detail=detail)
    return InstallResult(app_id, release.version, "narrowed", installation.id)


def revoke_host(session: WriteSession, workspace: str, app_id: str, host: str, user: str) -> InstallResult:
    """Take one host out of the http grant of an app; without the last one, the grant is revoked.

    Raises:
        NotFound: The app is not installed, holds no http grant, or was not granted that host as a pattern of its own.
    """
    _installation, release = require_current(session, workspace, app_id)
    held = _require_grant(session, release, app_id, "http")
    hosts = held.hosts if isinstance(held, HttpPermission) else ()
    left = [each for each in hosts if each != host]
    if len(left) == len(hosts):
        raise NotFound(
            _(
                "{app} was not granted {host!r}; it was granted {hosts}.",
                app=app_id,
                host=host[:255],
                hosts=listing(hosts),
            )
        )
    if not left:
        return revoke(session, workspace, app_id, "http", user)
    return narrow(session, workspace, app_id, "http", {"hosts": left}, user=user)


def _require_grant(session: Session, release: InstalledRelease, app_id: str, capability: str) -> Permission:
    held = active_grants(session, release).get(capability)
    if held is None:
        raise NotFound(
            _(
                "{app} holds no grant for {capability}: see `llmasos grants show {app}`",
                app=app_id,
                capability=capability,
            ),
        )
    return held


def _changed(held: Permission, fields: Mapping[str, Any]) -> Permission:
    known = set(type(held).model_fields) - _NOT_NARROWED
    for name in fields:
        if name not in known:
            raise Invalid(
                _("{name!r} is no field of a grant of {capability}", name=name[:64], capability=held.capability)
            )
    try:
        return repository.permission_of({**held.model_dump(mode="json"), **fields})
    except ValidationError as error:
        fault = error.errors()[0]
        place = ".".join(str(part) for part in fault["loc"] if part != held.capability)
        raise Invalid(_("{where}: {what}", where=place, what=misfit(fault))) from error


def delete_data(session: WriteSession, workspace: str, app_id: str, user: str) -> int:
    """Delete what an installed app stores for a user, and return how many values there were.

    Raises:
        NotFound: The app is not installed.
    """
    installation, release = require_current(session, workspace, app_id)
    deleted = stored_data.clear(session, (workspace, app_id, user))
    detail = {**release_detail(release), "deleted_values": deleted}
    audit(session, installation, user, "data.delete", active_grants(session, release), detail=detail)
    return deleted


def configure(
    session: WriteSession, workspace: str, app_id: str, values: Mapping[str, Any], user: str
) -> InstallResult:
    """Change the settings of an installed app; a setting that is left out keeps its value.

    Raises:
        NotFound: The app is not installed.
        Invalid: A value is not valid, or its field is unknown.
    """
    installation, release = require_current(session, workspace, app_id)
    chosen = config_values(Manifest.model_validate(release.manifest), {**release.config, **values})
    if chosen == release.config:
        return InstallResult(app_id, release.version, "already", installation.id)
    release.config = chosen
    session.add(release)
    session.flush()
    # Names only: a value may be a secret.
    detail = {**release_detail(release), "fields": sorted(values)}
    audit(session, installation, user, "configure", active_grants(session, release), detail=detail)
    return InstallResult(app_id, release.version, "configured", installation.id)
