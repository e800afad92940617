"""Every query on installations, and the rows that record decisions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeAlias

from pydantic import TypeAdapter
from sqlmodel import Session, col, delete, select, update

from llmasos.bundles.parts import LimitsRequest, Permission
from llmasos.bundles.reader import Bundle
from llmasos.capabilities.tables import StoredValue
from llmasos.database.engine import WriteSession, utc_now
from llmasos.errors import NotFound
from llmasos.i18n import _
from llmasos.installs.tables import GrantRow, Installation, InstalledRelease, Workspace
from llmasos.kernel.audit import Line, record
from llmasos.quotas.meters import Meter, Scope, Window
from llmasos.quotas.repository import find_quota
from llmasos.quotas.service import add_quota
from llmasos.quotas.tables import Quota

Detail: TypeAlias = Mapping[str, object]
_PERMISSION: Final[TypeAdapter[Permission]] = TypeAdapter(Permission)


def ensure_workspace(session: WriteSession, workspace_id: str) -> None:
    """Create the workspace if it does not exist."""
    if session.get(Workspace, workspace_id) is None:
        session.add(Workspace(id=workspace_id, name=workspace_id, created_at=utc_now()))
        session.flush()


def installation(session: Session, workspace_id: str, app_id: str) -> Installation | None:
    """An app's installation in a workspace."""
    return session.exec(
        select(Installation).where(Installation.workspace_id == workspace_id, Installation.app_id == app_id)
    ).first()


def installation_of(session: Session, workspace_id: str, installation_id: str) -> Installation | None:
    """The installation of that id, if it is the workspace's."""
    found = session.get(Installation, installation_id)
    return found if found is not None and found.workspace_id == workspace_id else None


def existing(session: Session, ids: frozenset[str]) -> frozenset[str]:
    """Those of these installations that still exist."""
    return frozenset(session.exec(select(Installation.id).where(col(Installation.id).in_(ids))))


def current(session: Session, workspace_id: str, app_id: str) -> tuple[Installation, InstalledRelease] | None:
    """An app's installation and its current release."""
    return session.exec(
        select(Installation, InstalledRelease)
        .join(InstalledRelease, col(InstalledRelease.id) == col(Installation.current_id))
        .where(Installation.workspace_id == workspace_id, Installation.app_id == app_id)
    ).first()


def require_current(session: Session, workspace: str, app_id: str) -> tuple[Installation, InstalledRelease]:
    """Find an installation and its current release.

    Raises:
        NotFound: The app is not installed.
    """
    found = current(session, workspace, app_id)
    if found is None:
        raise NotFound(
            _("{app} is not installed: see `llmasos list`, or run `llmasos install {app}`", app=app_id),
        )
    return found


def all_current(session: Session, workspace_id: str) -> list[tuple[Installation, InstalledRelease]]:
    """Every installation of a workspace with its current release."""
    return list(
        session.exec(
            select(Installation, InstalledRelease)
            .join(InstalledRelease, col(InstalledRelease.id) == col(Installation.current_id))
            .where(Installation.workspace_id == workspace_id)
            .order_by(col(Installation.app_id))
        )
    )


def releases(session: Session, installation_id: str, state: str | None = None) -> list[InstalledRelease]:
    """The releases of an installation, newest first."""
    query = select(InstalledRelease).where(InstalledRelease.installation_id == installation_id)
    if state is not None:
        query = query.where(InstalledRelease.state == state)
    return list(session.exec(query.order_by(col(InstalledRelease.id).desc())))


def grants(session: Session, release_id: int) -> list[GrantRow]:
    """Every grant of a release, revoked ones included."""
    return list(
        session.exec(
            select(GrantRow).where(GrantRow.installed_release_id == release_id).order_by(col(GrantRow.capability))
        )
    )


def revoke(session: WriteSession, installation_id: str, capability: str) -> int:
    """Revoke a capability in every release of an installation, and return how many grants changed."""
    ids = select(InstalledRelease.id).where(InstalledRelease.installation_id == installation_id)
    result = session.exec(
        update(GrantRow)
        .where(
            col(GrantRow.installed_release_id).in_(ids),
            col(GrantRow.capability) == capability,
            col(GrantRow.revoked_at).is_(None),
        )
        .values(revoked_at=utc_now())
        .execution_options(synchronize_session="fetch")
    )
    return result.rowcount


def revoke_in(session: WriteSession, release: InstalledRelease, capability: str) -> None:
    """Revoke a capability in one release."""
    row = session.get(GrantRow, (release.id, capability))
    if row is not None:
        row.revoked_at = utc_now()


def remove_release(session: WriteSession, release: InstalledRelease) -> None:
    """Delete a release and its grants."""
    session.exec(delete(GrantRow).where(col(GrantRow.installed_release_id) == release.id))
    session.delete(release)
    session.flush()


def remove_installation(session: WriteSession, found: Installation) -> None:
    """Delete an installation with its releases, grants and quotas."""
    for release in releases(session, found.id):
        remove_release(session, release)
    session.exec(delete(Quota).where(col(Quota.source) == found.id))
    session.delete(found)
    session.flush()


def count_stored_values(session: Session, workspace_id: str, app_id: str) -> int:
    """How many values an app stores."""
    keys = select(StoredValue.key).where(StoredValue.workspace_id == workspace_id, StoredValue.app_id == app_id)
    return len(list(session.exec(keys)))


def code_digests(session: Session) -> frozenset[str]:
    """The digests of all code that installed releases of any workspace need."""
    return frozenset(session.exec(select(InstalledRelease.component_digest)))


def quotas_from(session: Session, sources: Iterable[str]) -> list[Quota]:
    """The quotas that these installations created."""
    return list(session.exec(select(Quota).where(col(Quota.source).in_(list(sources)))))


def active_grants(session: Session, release: InstalledRelease) -> dict[str, Permission]:
    """The grants of a release that were not revoked."""
    manifest_grants = grants(session, release.id or 0)
    return {row.capability: permission_of(row.scope) for row in manifest_grants if row.revoked_at is None}


def permission_of(scope: Mapping[str, Any]) -> Permission:
    """Parse the permission in a grant row."""
    return _PERMISSION.validate_python(dict(scope))


def add_release(
    session: WriteSession,
    installation_id: str,
    bundle: Bundle,
    *,
    granted: Mapping[str, Permission],
    config: dict[str, Any],
    lock: Mapping[str, Mapping[str, str]],
    state: str,
) -> InstalledRelease:
    """Add a release to an installation, with its grants."""
    release = InstalledRelease(
        installation_id=installation_id,
        version=bundle.manifest.version,
        digest=bundle.digest,
        component_digest=bundle.component_digest,
        runtime=bundle.manifest.runtime.kind,
        manifest=bundle.manifest.model_dump(mode="json"),
        actions=bundle.listed_json,
        limits=bundle.manifest.limits.model_dump(mode="json"),
        config=config,
        lock={app: dict(locked) for app, locked in lock.items()},
        state=state,
        created_at=utc_now(),
    )
    session.add(release)
    session.flush()
    session.add_all(grant_row(release.id or 0, permission) for permission in granted.values())
    session.flush()
    return release


def grant_row(release_id: int, permission: Permission) -> GrantRow:
    """Make the row of a granted permission."""
    return GrantRow(
        installed_release_id=release_id,
        capability=permission.capability,
        scope=permission.model_dump(mode="json"),
        revoked_at=None,
    )


def set_quotas(session: WriteSession, installation: Installation, limits: LimitsRequest) -> None:
    """Set the installation's daily token quota to the app's limit. Past use stays counted."""
    wanted = Quota(
        workspace_id=installation.workspace_id,
        scope=Scope.APP.value,
        scope_id=installation.app_id,
        meter=Meter.TOKENS.value,
        window=Window.DAY.value,
        limit=limits.tokens_per_day or 0,
        source=installation.id,
        created_at=utc_now(),
    )
    row = find_quota(session, wanted)
    if limits.tokens_per_day is None:
        if row is not None:
            session.delete(row)
    elif row is None:
        add_quota(session, wanted)
    else:
        row.limit = limits.tokens_per_day
        session.add(row)
    session.flush()


def release_detail(release: InstalledRelease) -> dict[str, object]:
    """The detail of a release in the audit log."""
    return {"version": release.version, "digest": release.digest}


def audit(
    session: WriteSession, installation: Installation, user: str, event: str, granted: Iterable[str], *, detail: Detail
) -> None:
    """Write a change of an installation, and its current grants, to the audit log."""
    detail = {**detail, "grants": sorted(granted)}
    record(session, Line(installation.workspace_id, user, event, app=installation.app_id, detail=detail))
