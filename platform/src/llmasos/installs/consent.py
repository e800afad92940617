"""What a person is shown before an app may do anything: plain words, as data that the CLI and the pages both show."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, assert_never

from llmasos.bundles.hosts import HostPattern
from llmasos.bundles.manifest import Manifest
from llmasos.bundles.parts import (
    AppsPermission,
    HttpPermission,
    LimitsRequest,
    ModelPermission,
    Permission,
    SecretsPermission,
    StoragePermission,
)
from llmasos.i18n import t
from llmasos.installs.risk import CHANGING, Level, Risk, risks_of, worst
from llmasos.kernel.grants import difference

Change: TypeAlias = Literal["asked", "new", "wider", "same"]

_TIERS: Final = {
    "fast": ("fast", "快速"),
    "balanced": ("balanced", "均衡"),
    "best": ("best", "最佳"),
}


@dataclass(frozen=True, slots=True)
class PermissionLine:
    """One permission: what it lets the app do, and why the author says that it needs it."""

    capability: str
    what: str
    why: str
    optional: bool
    change: Change
    """Against what was agreed to before: `asked` at a first install."""


@dataclass(frozen=True, slots=True)
class ConsentScreen:
    """Everything that a person decides on, in their language."""

    app_id: str
    version: str
    from_version: str | None
    name: str
    summary: str
    lines: tuple[PermissionLine, ...]
    no_longer: tuple[str, ...]
    """What it gives up against the release before."""
    risks: tuple[Risk, ...]
    limits: tuple[str, ...]
    raised_limits: tuple[str, ...]
    """Names of limits that are higher than before."""
    locale: str

    @property
    def asks_for_more(self) -> bool:
        """Whether somebody must agree: always at a first install."""
        changed = any(line.change in {"new", "wider"} for line in self.lines)
        return self.from_version is None or changed or bool(self.raised_limits)

    @property
    def level(self) -> Level | None:
        """How dangerous the combination is."""
        return worst(self.risks)


def consent(manifest: Manifest, before: Manifest | None, locale: str) -> ConsentScreen:
    """The screen for a release.

    Args:
        manifest: What is to be installed.
        before: What was agreed to, at an upgrade.
        locale: `en` or `zh`.
    """
    changes = _changes(manifest, before)
    lines = tuple(
        PermissionLine(
            permission.capability,
            describe(permission, locale),
            permission.reason.in_locale(locale),
            permission.optional,
            changes[permission.capability],
        )
        for permission in manifest.permissions
    )
    told = difference(
        before.permissions if before else (), manifest.permissions, before.limits if before else None, manifest.limits
    )
    return ConsentScreen(
        app_id=manifest.id,
        version=manifest.version,
        from_version=before.version if before else None,
        name=manifest.name.in_locale(locale),
        summary=manifest.summary.in_locale(locale),
        lines=lines,
        no_longer=tuple(describe(permission, locale) for permission in told.removed),
        risks=risks_of(manifest.permissions, manifest.limits),
        limits=describe_limits(manifest.limits, locale),
        raised_limits=told.raised_limits,
        locale=locale,
    )


def _changes(manifest: Manifest, before: Manifest | None) -> dict[str, Change]:
    if before is None:
        return {permission.capability: "asked" for permission in manifest.permissions}
    told = difference(before.permissions, manifest.permissions)
    changes: dict[str, Change] = {permission.capability: "same" for permission in manifest.permissions}
    changes.update({permission.capability: "new" for permission in told.added})
    changes.update({permission.capability: "wider" for permission in told.widened})
    return changes


def describe(permission: Permission, locale: str) -> str:
    """What a permission lets an app do, in one plain sentence."""
    match permission:
        case ModelPermission():
            return _model(permission, locale)
        case StoragePermission():
            size = describe_bytes(permission.max_bytes)
            return t(locale, f"Keep up to {size} of data for you", f"为你保存最多 {size} 的数据")
        case HttpPermission():
            return _http(permission, locale)
        case SecretsPermission():
            return _secrets(permission, locale)
        case AppsPermission():
            apps = _listed(permission.apps, locale)
            return t(locale, f"Run {apps} for you, on your quota", f"代你运行 {apps}，使用你的配额")
        case _ as never:
            assert_never(never)


def describe_limits(limits: LimitsRequest, locale: str) -> tuple[str, ...]:
    """How far the app may go in a run, and in a day."""
    lines = [
        t(locale, f"{limits.memory_mib} MiB of memory", f"内存 {limits.memory_mib} MiB"),
        t(
            locale,
            f"{limits.cpu_seconds:g} s of computing and {limits.wall_seconds:g} s in all, each run",
            f"每次运行：计算 {limits.cpu_seconds:g} 秒，总共 {limits.wall_seconds:g} 秒",
        ),
    ]
    if limits.tokens_per_run is not None:
        number = f"{limits.tokens_per_run:,}"
        lines.append(t(locale, f"{number} tokens each run", f"每次运行 {number} 个 token"))
    if limits.tokens_per_day is not None:
        number = f"{limits.tokens_per_day:,}"
        lines.append(t(locale, f"{number} tokens a day", f"每天 {number} 个 token"))
    return tuple(lines)


def describe_bytes(number: int) -> str:
    """A size as people read it."""
    for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if number >= size:
            return f"{number / size:.4g} {unit}"
    return f"{number} B"


def _model(permission: ModelPermission, locale: str) -> str:
    tiers = [t(locale, *_TIERS[tier]) for tier in permission.tiers]
    named = _listed((*tiers, *permission.models), locale)
    embeds = t(locale, "compare texts by meaning", "按含义比较文本")
    if not named:
        return t(locale, "Use a model to ", "使用模型") + embeds
    said = t(
        locale,
        f"Ask language models ({named}), up to {permission.max_output_tokens:,} tokens an answer",
        f"向语言模型提问（{named}），每次回答最多 {permission.max_output_tokens:,} 个 token",
    )
    return said + (t(locale, ", and ", "，并") + embeds if permission.embeddings else "")


def _http(permission: HttpPermission, locale: str) -> str:
    sends = bool(CHANGING & set(permission.methods))
    if any(pattern.is_everything for pattern in permission.patterns):
        if sends:
            return t(locale, "Read from and send to any server on the internet", "读取并发送数据到互联网上的任何服务器")
        return t(locale, "Read from any server on the internet", "读取互联网上的任何服务器")
    servers = _listed(_servers(permission.patterns, locale), locale)
    if sends:
        return t(locale, f"Read from and send to {servers}", f"读取并发送数据到 {servers}")
    return t(locale, f"Read from {servers}", f"读取 {servers}")


def _servers(patterns: Iterable[HostPattern], locale: str) -> list[str]:
    said: list[str] = []
    for pattern in patterns:
        name = str(pattern).removeprefix("https://")
        if pattern.wildcard:
            plain = str(pattern).removeprefix("https://").replace("*.", "", 1)
            name = t(locale, f"every server under {plain}", f"{plain} 下的所有服务器")
        said.append(name)
    return said


def _secrets(permission: SecretsPermission, locale: str) -> str:
    used = [
        t(locale, f"“{place.name}” at {place.host}", f"在 {place.host} 使用“{place.name}”")
        for place in permission.secrets
    ]
    listed = _listed(used, locale)
    return t(
        locale,
        f"Have your secrets used, without seeing them: {listed}",
        f"使用你的密钥（应用看不到其内容）：{listed}",
    )


def _listed(words: Iterable[str], locale: str) -> str:
    return t(locale, ", ", "、").join(words)
