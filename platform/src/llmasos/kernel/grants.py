"""Compares what grants allow, and words the denial for an app that asks for more. Pure.

A grant is a permission as the installer consented to it. `optional` and `reason` are for people who decide, and play no
part in comparisons.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from llmasos.bundles.hosts import HostPattern
from llmasos.bundles.parts import (
    AppsPermission,
    HttpPermission,
    LimitsRequest,
    ModelPermission,
    Permission,
    SecretPlace,
    SecretsPermission,
    StoragePermission,
)
from llmasos.errors import Denied, PermissionNotDeclared, PermissionNotGranted
from llmasos.i18n import _
from llmasos.kernel.invocation import InstalledApp
from llmasos_sdk.host import BASELINE_CAPABILITIES

T = TypeVar("T")

# What an author pastes: the smallest permission of each capability that does something.
_LINES = {
    "model": 'tiers = ["fast"]',
    "storage": "max_bytes = 1048576",
    "http": 'hosts = ["https://api.example.com"]',
    "secrets": 'secrets = [{name = "api_key", host = "https://api.example.com", header = "authorization"}]',
    "apps": 'apps = ["publisher/name"]',
}


def manifest_lines(capability: str) -> str:
    """The lines of `llmapp.toml` that ask for a capability."""
    lines = (
        "[[permissions]]",
        f'capability = "{capability}"',
        _LINES.get(capability, ""),
        'reason.en = "Why it needs it."',
    )
    return "\n".join(line for line in lines if line)


def denial(app: InstalledApp | None, capability: str) -> Denied | None:
    """Why `app` may not use `capability`; None if it may. Without an app, the user's own rights apply."""
    if app is None or capability in BASELINE_CAPABILITIES or capability in app.grants:
        return None
    if capability in app.declared:
        return PermissionNotGranted(
            _(
                "{app} declares {capability}, but this installation does not grant it. See `llmasos grants "
                "show {app}`; install it again to consent.",
                app=app.id,
                capability=capability,
            ),
        )
    lines = manifest_lines(capability)
    return PermissionNotDeclared(
        _(
            "{app} used {capability}, which its manifest does not declare. Add to llmapp.toml:\n{lines}",
            app=app.id,
            capability=capability,
            lines=lines,
        ),
    )


def not_granted_any_more(app: InstalledApp, capability: str) -> Denied:
    """The error for an app whose grant was revoked, or which was uninstalled, while it ran."""
    return PermissionNotGranted(
        _(
            "{app} may no longer use {capability}: its grant was revoked while it ran.",
            app=app.id,
            capability=capability,
        )
    )


def is_within(grant: Permission, permission: Permission) -> bool:
    """Whether everything that `grant` allows is allowed by `permission`."""
    match grant, permission:
        case ModelPermission(), ModelPermission():
            return (
                set(grant.tiers) <= set(permission.tiers)
                and set(grant.models) <= set(permission.models)
                and grant.max_output_tokens <= permission.max_output_tokens
                and (permission.embeddings or not grant.embeddings)
            )
        case StoragePermission(), StoragePermission():
            return grant.max_bytes <= permission.max_bytes
        case HttpPermission(), HttpPermission():
            return (
                all(_covered(host, permission.patterns) for host in grant.patterns)
                and set(grant.methods) <= set(permission.methods)
                and grant.max_response_bytes <= permission.max_response_bytes
            )
        case SecretsPermission(), SecretsPermission():
            wanted = {_place(place) for place in grant.secrets}
            return wanted <= {_place(place) for place in permission.secrets}
        case AppsPermission(), AppsPermission():
            return set(grant.apps) <= set(permission.apps)
        case _:
            return False


def intersect(a: Permission, b: Permission) -> Permission | None:
    """What both allow; None if that is nothing. `reason` and `optional` are those of `a`."""
    match a, b:
        case ModelPermission(), ModelPermission():
            return _models(a, b)
        case StoragePermission(), StoragePermission():
            return a.model_copy(update={"max_bytes": min(a.max_bytes, b.max_bytes)})
        case HttpPermission(), HttpPermission():
            return _http(a, b)
        case SecretsPermission(), SecretsPermission():
            allowed = {_place(place) for place in b.secrets}
            secrets = tuple(place for place in a.secrets if _place(place) in allowed)
            return a.model_copy(update={"secrets": secrets}) if secrets else None
        case AppsPermission(), AppsPermission():
            apps = _both(a.apps, b.apps)
            return a.model_copy(update={"apps": apps}) if apps else None
        case _:
            return None


def intersect_all(a: Mapping[str, Permission], b: Mapping[str, Permission]) -> dict[str, Permission]:
    """What both sets of grants allow, by capability: the rights of an app that another app calls."""
    shared = {name: intersect(grant, b[name]) for name, grant in a.items() if name in b}
    return {name: grant for name, grant in shared.items() if grant is not None}


@dataclass(frozen=True, slots=True)
class Difference:
    """What a new release asks for beyond what was asked and answered before."""

    added: tuple[Permission, ...]
    widened: tuple[Permission, ...]
    removed: tuple[Permission, ...]
    raised_limits: tuple[str, ...]
    """Names of limits that are higher than they were, or newly absent."""

    @property
    def asks_for_more(self) -> bool:
        """Whether new consent is needed."""
        return bool(self.added or self.widened or self.raised_limits)


def difference(
    asked: Iterable[Permission],
    new: Iterable[Permission],
    granted_limits: LimitsRequest | None = None,
    new_limits: LimitsRequest | None = None,
) -> Difference:
    """What a release asks for beyond what was asked for and answered.

    Args:
        asked: The permissions that the installer saw. What was declined or revoked of them is not asked for again.
        new: The permissions of the new release.
        granted_limits: The limits as granted.
        new_limits: The limits that the new release asks for.
    """
    before = {permission.capability: permission for permission in asked}
    after = {permission.capability: permission for permission in new}
    return Difference(
        added=tuple(p for name, p in after.items() if name not in before),
        widened=tuple(p for name, p in after.items() if name in before and not is_within(p, before[name])),
        removed=tuple(p for name, p in before.items() if name not in after),
        raised_limits=raised(granted_limits, new_limits) if granted_limits and new_limits else (),
    )


def raised(old: LimitsRequest, new: LimitsRequest) -> tuple[str, ...]:
    """The names of limits that are higher in `new`; an absent limit counts as the highest."""
    return tuple(name for name in LimitsRequest.model_fields if not _at_most(getattr(new, name), getattr(old, name)))


def carry_over(
    granted: Mapping[str, Permission], asked: Iterable[Permission], new: Iterable[Permission]
) -> dict[str, Permission]:
    """The grants of a new release that needs no new consent: what was declined stays declined."""
    before = {permission.capability: permission for permission in asked}
    kept: dict[str, Permission] = {}
    for permission in new:
        old = granted.get(permission.capability)
        if old is None or permission.capability not in before:
            continue
        # A grant as wide as what was asked for grants all of the narrower permission; a narrower one its share.
        share = permission if is_within(permission, old) else intersect(permission, old)
        if share is not None:
            kept[permission.capability] = share
    return kept


def _at_most(value: float | None, limit: float | None) -> bool:
    if limit is None:
        return True
    return value is not None and value <= limit


def _both(a: Iterable[T], b: Iterable[T]) -> tuple[T, ...]:
    allowed = set(b)
    return tuple(dict.fromkeys(item for item in a if item in allowed))


def _place(place: SecretPlace) -> tuple[str, str, str | None, str | None, str, tuple[str, ...] | None]:
    """A secret's place, normalised in spelling."""
    header = place.header.lower() if place.header else None
    return place.name, str(HostPattern.parse(place.host)), header, place.query, place.prefix, place.fields


def _covered(host: HostPattern, by: Iterable[HostPattern]) -> bool:
    return any(pattern.covers(host) for pattern in by)


def _models(a: ModelPermission, b: ModelPermission) -> ModelPermission | None:
    tiers, models = _both(a.tiers, b.tiers), _both(a.models, b.models)
    embeddings = a.embeddings and b.embeddings
    if not tiers and not models and not embeddings:
        return None
    tokens = min(a.max_output_tokens, b.max_output_tokens)
    shared = {"tiers": tiers, "models": models, "embeddings": embeddings, "max_output_tokens": tokens}
    return a.model_copy(update=shared)


def _http(a: HttpPermission, b: HttpPermission) -> HttpPermission | None:
    # Two patterns are nested or have no server in common, so what both reach is made of patterns of either.
    mine = [host for host in a.hosts if _covered(HostPattern.parse(host), b.patterns)]
    theirs = [host for host in b.hosts if _covered(HostPattern.parse(host), a.patterns)]
    hosts = tuple(dict.fromkeys(mine + theirs))
    methods = _both(a.methods, b.methods)
    if not hosts or not methods:
        return None
    size = min(a.max_response_bytes, b.max_response_bytes)
    return a.model_copy(update={"hosts": hosts, "methods": methods, "max_response_bytes": size})
