"""Consent as data: what a person is asked to agree to before an app may do anything. `wording` renders it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from llmasos.bundles.manifest import Manifest
from llmasos.bundles.parts import Permission
from llmasos.installs.risk import Risk, RiskLevel, risks_of, worst
from llmasos.kernel.grants import difference, is_within

PermissionStatus: TypeAlias = Literal["asked", "new", "wider", "same"]
"""`asked`: at a first install; `new` and `wider`: beyond what was agreed to before; `same`: agreed to before."""


@dataclass(frozen=True, slots=True)
class RequestedPermission:
    """A permission that a release asks for, compared with what was agreed to before."""

    permission: Permission
    status: PermissionStatus

    @property
    def capability(self) -> str:
        """The capability that it gives access to."""
        return self.permission.capability

    @property
    def needs_consent(self) -> bool:
        """Whether new consent is needed for it."""
        return self.status != "same"


@dataclass(frozen=True, slots=True)
class ConsentRequest:
    """Everything that a person decides on for one release."""

    manifest: Manifest
    from_version: str | None
    """The release that was agreed to before; None at a first install."""
    permissions: tuple[RequestedPermission, ...]
    dropped: tuple[Permission, ...]
    """What it gives up against the release before."""
    raised_limits: tuple[str, ...]
    """Names of limits that are higher than before."""
    risks: tuple[Risk, ...]

    @property
    def is_needed(self) -> bool:
        """Whether consent is needed: always at a first install."""
        return self.from_version is None or bool(self.asked) or bool(self.raised_limits)

    @property
    def asked(self) -> frozenset[str]:
        """The capabilities that need new consent, because they are new or wider."""
        return frozenset(each.capability for each in self.permissions if each.needs_consent)

    @property
    def optional(self) -> tuple[RequestedPermission, ...]:
        """The capabilities that a person may decline."""
        return tuple(each for each in self.permissions if each.needs_consent and each.permission.optional)

    @property
    def level(self) -> RiskLevel | None:
        """The risk level of the combination."""
        return worst(self.risks)


def first_consent(manifest: Manifest) -> ConsentRequest:
    """What a first install asks for."""
    asked = tuple(RequestedPermission(permission, "asked") for permission in manifest.permissions)
    return ConsentRequest(manifest, None, asked, (), (), risks_of(manifest.permissions, manifest.limits))


def upgrade_consent(manifest: Manifest, before: Manifest) -> ConsentRequest:
    """What an upgrade asks for. What was declined for the release before is not asked for again.

    Args:
        manifest: The new release.
        before: The release that was consented to.
    """
    changes = difference(before.permissions, manifest.permissions, before.limits, manifest.limits)
    statuses: dict[str, PermissionStatus] = {permission.capability: "same" for permission in manifest.permissions}
    statuses.update({permission.capability: "new" for permission in changes.added})
    statuses.update({permission.capability: "wider" for permission in changes.widened})
    return ConsentRequest(
        manifest,
        before.version,
        tuple(RequestedPermission(permission, statuses[permission.capability]) for permission in manifest.permissions),
        changes.removed,
        changes.raised_limits,
        risks_of(manifest.permissions, manifest.limits),
    )


def renewed_consent(manifest: Manifest, granted: Mapping[str, Permission]) -> ConsentRequest:
    """What an installed release asks for that was declined, narrowed or revoked.

    Args:
        manifest: The installed release.
        granted: The grants that it still has.
    """

    def status(permission: Permission) -> PermissionStatus:
        held = granted.get(permission.capability)
        if held is None:
            return "new"
        return "same" if is_within(permission, held) else "wider"

    permissions = tuple(RequestedPermission(permission, status(permission)) for permission in manifest.permissions)
    return ConsentRequest(
        manifest, manifest.version, permissions, (), (), risks_of(manifest.permissions, manifest.limits)
    )
