"""Every query on installations."""

from __future__ import annotations

from collections.abc import Iterable

from sqlmodel import Session, col, delete, select, update

from llmasos.capabilities.tables import StoredValue
from llmasos.database.engine import WriteSession, utc_now
from llmasos.installs.tables import GrantRow, Installation, InstalledRelease, Workspace
from llmasos.quotas.tables import Quota


def ensure_workspace(session: WriteSession, workspace_id: str) -> None:
    """Make a workspace where there is none of that name."""
    if session.get(Workspace, workspace_id) is None:
        session.add(Workspace(id=workspace_id, name=workspace_id, created_at=utc_now()))
        session.flush()


def installation(session: Session, workspace_id: str, app_id: str) -> Installation | None:
    """An app's installation in a workspace."""
    return session.exec(
        select(Installation).where(Installation.workspace_id == workspace_id, Installation.app_id == app_id)
    ).first()


def existing(session: Session, ids: frozenset[str]) -> frozenset[str]:
    """Those of the installations that are there."""
    return frozenset(session.exec(select(Installation.id).where(col(Installation.id).in_(ids))))


def current(session: Session, workspace_id: str, app_id: str) -> tuple[Installation, InstalledRelease] | None:
    """An app's installation and the release that runs."""
    return session.exec(
        select(Installation, InstalledRelease)
        .join(InstalledRelease, col(InstalledRelease.id) == col(Installation.current_id))
        .where(Installation.workspace_id == workspace_id, Installation.app_id == app_id)
    ).first()


def all_current(session: Session, workspace_id: str) -> list[tuple[Installation, InstalledRelease]]:
    """Every installation of a workspace with the release that runs."""
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
    """What was consented to for a release, what was revoked since included."""
    return list(
        session.exec(
            select(GrantRow).where(GrantRow.installed_release_id == release_id).order_by(col(GrantRow.capability))
        )
    )


def revoke(session: WriteSession, installation_id: str, capability: str) -> int:
    """Revoke a capability of every release of an installation; how many rows that touched."""
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


def remove_release(session: WriteSession, release: InstalledRelease) -> None:
    """Forget a release and its grants."""
    session.exec(delete(GrantRow).where(col(GrantRow.installed_release_id) == release.id))
    session.delete(release)
    session.flush()


def remove_installation(session: WriteSession, found: Installation) -> None:
    """Forget an installation, its releases, grants and quotas."""
    for release in releases(session, found.id):
        remove_release(session, release)
    session.exec(delete(Quota).where(col(Quota.source) == found.id))
    session.delete(found)
    session.flush()


def count_stored_values(session: Session, workspace_id: str, app_id: str) -> int:
    """How many values an app keeps."""
    keys = select(StoredValue.key).where(StoredValue.workspace_id == workspace_id, StoredValue.app_id == app_id)
    return len(list(session.exec(keys)))


def code_digests(session: Session) -> frozenset[str]:
    """The code that any installed release of any workspace needs."""
    return frozenset(session.exec(select(InstalledRelease.component_digest)))


def quotas_from(session: Session, sources: Iterable[str]) -> list[Quota]:
    """The quotas that installations brought."""
    return list(session.exec(select(Quota).where(col(Quota.source).in_(list(sources)))))
