"""Assesses the combined risk of an app's permissions. Pure; `wording` renders the result.

An app is dangerous if it combines three things: private data, input from strangers, and a way out. A model may follow
what it reads, so a stranger's text in its prompt can control what the app does next; then what the app knows about a
person leaves by any way there is. What matters is how wide that way is: fixed servers can leak only to those who run
them, whom the person can judge; a wildcard, to whoever runs any server under it; the whole network, to anyone.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from llmasos.bundles.hosts import HostPattern
from llmasos.bundles.parts import HttpPermission, LimitsRequest, Permission, SecretsPermission

RiskLevel: TypeAlias = Literal["info", "warning", "danger"]
RISK_LEVELS: Final[tuple[RiskLevel, ...]] = ("danger", "warning", "info")
RiskCode: TypeAlias = Literal[
    "exfiltration",
    "any-server",
    "wide-way-out",
    "fixed-servers",
    "not-encrypted",
    "secrets-any-server",
    "secrets-in-the-clear",
    "secrets-answers-readable",
    "acts-in-your-name",
    "unlimited-tokens",
]

# Private data comes from the app's storage, from accounts that the person's secrets open, and from other apps.
PRIVATE: Final = ("storage", "secrets", "apps")
UNTRUSTED: Final = ("model", "http", "apps")
CHANGING_METHODS: Final = frozenset({"POST", "PUT", "PATCH", "DELETE"})


@dataclass(frozen=True, slots=True)
class Risk:
    """One dangerous combination of permissions."""

    code: RiskCode
    level: RiskLevel
    capabilities: tuple[str, ...]
    """Those that it is made of."""
    servers: tuple[str, ...] = ()
    """The servers that it is about."""

    @property
    def private(self) -> tuple[str, ...]:
        """Those of the capabilities that bring private data."""
        return tuple(name for name in PRIVATE if name in self.capabilities)

    @property
    def untrusted(self) -> tuple[str, ...]:
        """Those of the capabilities that bring text from strangers."""
        return tuple(name for name in UNTRUSTED if name in self.capabilities)


def risks_of(permissions: Iterable[Permission], limits: LimitsRequest | None = None) -> tuple[Risk, ...]:
    """Find the risks of these permissions, the worst first.

    Args:
        permissions: All that a release asks for, or all that an installation grants.
        limits: Their limits; None leaves out risks that depend on limits.
    """
    by_name = {permission.capability: permission for permission in permissions}
    http = by_name.get("http")
    secrets = by_name.get("secrets")
    found: list[Risk] = []
    if isinstance(http, HttpPermission):
        found.append(_way_out(http, frozenset(by_name)))
        found.extend(_in_the_clear(http))
        if isinstance(secrets, SecretsPermission):
            found.extend(_secrets(secrets, http, "model" in by_name))
    if "model" in by_name and limits is not None and limits.tokens_per_day is None:
        found.append(Risk("unlimited-tokens", "info", ("model",)))
    return tuple(sorted(found, key=lambda risk: RISK_LEVELS.index(risk.level)))


def worst(risks: Iterable[Risk]) -> RiskLevel | None:
    """The highest level of the risks; None if there are none."""
    levels = {risk.level for risk in risks}
    return next((level for level in RISK_LEVELS if level in levels), None)


def _way_out(http: HttpPermission, names: frozenset[str]) -> Risk:
    involved = tuple(dict.fromkeys(name for name in (*PRIVATE, *UNTRUSTED) if name in names))
    has_private = any(name in names for name in PRIVATE)
    wide = [pattern for pattern in http.patterns if pattern.wildcard]
    if any(pattern.is_everything for pattern in http.patterns):
        if has_private:
            return Risk("exfiltration", "danger", involved)
        return Risk("any-server", "warning", involved)
    if wide:
        return Risk("wide-way-out", "warning" if has_private else "info", involved, _servers(wide))
    return Risk("fixed-servers", "info", involved, _servers(http.patterns))


def _in_the_clear(http: HttpPermission) -> Iterator[Risk]:
    unencrypted = [pattern for pattern in http.patterns if pattern.scheme == "http" and not _is_local(pattern.host)]
    if unencrypted:
        yield Risk("not-encrypted", "warning", ("http",), _servers(unencrypted))


def _secrets(secrets: SecretsPermission, http: HttpPermission, steered: bool) -> Iterator[Risk]:
    involved = ("secrets", "http")
    places = [HostPattern.parse(place.host) for place in secrets.secrets]
    if any(pattern.is_everything for pattern in http.patterns):
        yield Risk("secrets-any-server", "danger", involved)
    clear = [pattern for pattern in places if pattern.scheme == "http" and not _is_local(pattern.host)]
    if clear:
        yield Risk("secrets-in-the-clear", "danger", involved, _servers(clear))
    readable = [HostPattern.parse(place.host) for place in secrets.secrets if place.fields is None]
    if readable:
        yield Risk("secrets-answers-readable", "info", involved, _servers(readable))
    if CHANGING_METHODS & set(http.methods):
        level: RiskLevel = "warning" if steered else "info"
        yield Risk("acts-in-your-name", level, (*involved, "model") if steered else involved, _servers(places))


def _servers(patterns: Iterable[HostPattern]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(pattern.host for pattern in patterns if pattern.host))


def _is_local(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
