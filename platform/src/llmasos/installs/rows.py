"""The rows of installations: how what was decided is kept, and read back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from pydantic import TypeAdapter
from sqlmodel import Session

from llmasos.bundles.parts import LimitsRequest, Permission
from llmasos.database.engine import WriteSession, utc_now
from llmasos.installs import repository
from llmasos.installs.plan import Step
from llmasos.installs.tables import GrantRow, Installation, InstalledRelease
from llmasos.kernel.audit import Line, record
from llmasos.quotas.meters import Meter, Scope, Window
from llmasos.quotas.repository import find_quota
from llmasos.quotas.tables import Quota

Detail: TypeAlias = Mapping[str, object]
_PERMISSION: TypeAdapter[Permission] = TypeAdapter(Permission)


def active_grants(session: Session, release: InstalledRelease) -> dict[str, Permission]:
    """What a release holds, what was revoked left out."""
    manifest_grants = repository.grants(session, release.id or 0)
    return {row.capability: permission_of(row.scope) for row in manifest_grants if row.revoked_at is None}


def permission_of(scope: Mapping[str, Any]) -> Permission:
    """A permission as a grant row keeps it."""
    return _PERMISSION.validate_python(dict(scope))


def add_release(
    session: WriteSession, step: Step, granted: Mapping[str, Permission], config: dict[str, Any], state: str
) -> InstalledRelease:
    """Add the release of a step, with its grants."""
    bundle = step.bundle
    release = InstalledRelease(
        installation_id=step.installation_id,
        version=bundle.manifest.version,
        digest=bundle.digest,
        component_digest=bundle.component_digest,
        runtime=bundle.manifest.runtime.kind,
        manifest=bundle.manifest.model_dump(mode="json"),
        actions=bundle.listed_json,
        limits=bundle.manifest.limits.model_dump(mode="json"),
        config=config,
        lock={app: dict(locked) for app, locked in step.lock.items()},
        state=state,
        created_at=utc_now(),
    )
    session.add(release)
    session.flush()
    session.add_all(grant_row(release.id or 0, permission) for permission in granted.values())
    session.flush()
    return release


def grant_row(release_id: int, permission: Permission) -> GrantRow:
    """A permission as granted."""
    return GrantRow(
        installed_release_id=release_id,
        capability=permission.capability,
        scope=permission.model_dump(mode="json"),
        revoked_at=None,
    )


def set_quotas(session: WriteSession, installation: Installation, limits: LimitsRequest) -> None:
    """Make the tokens that an app may use a day a quota of the installation; what is used of it stays used."""
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
        session.add(wanted)
    else:
        row.limit = limits.tokens_per_day
        session.add(row)
    session.flush()


def release_detail(release: InstalledRelease) -> dict[str, object]:
    """What the audit log keeps of a release."""
    return {"version": release.version, "digest": release.digest}


def audit(
    session: WriteSession, installation: Installation, user: str, event: str, granted: Iterable[str], *, detail: Detail
) -> None:
    """Add what was done to an installation, and what it may do now, to the audit log."""
    detail = {**detail, "grants": sorted(granted)}
    record(session, Line(installation.workspace_id, user, event, app=installation.app_id, detail=detail))
