"""Permissions, limits and risks in plain words, in a reader's language."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, assert_never

from llmasos.bundles.hosts import HostPattern
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
from llmasos.installs.risk import CHANGING_METHODS, Risk

_TIERS: Final = {
    "fast": ("fast", "快速"),
    "balanced": ("balanced", "均衡"),
    "best": ("best", "最佳"),
}
_PRIVATE: Final = {
    "storage": ("what it remembers of you", "它记住的关于你的内容"),
    "secrets": ("what it gets with your secrets", "它用你的密钥取得的内容"),
    "apps": ("what other apps tell it", "其他应用告诉它的内容"),
}
_UNTRUSTED: Final = {
    "model": ("a model's answers", "模型的回答"),
    "http": ("texts from the network", "网络上的文本"),
    "apps": ("other apps' answers", "其他应用的回答"),
}


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


def describe_risk(risk: Risk, locale: str) -> str:
    """What a combination of permissions can lead to, in one sentence."""
    private = _joined([_PRIVATE[name] for name in risk.private], locale)
    private = private or t(locale, "what you give it", "你提供的内容")
    untrusted = _joined([_UNTRUSTED[name] for name in risk.untrusted], locale)
    servers = _shortened(risk.servers)
    match risk.code:
        case "exfiltration":
            said = t(
                locale,
                f"It works on {untrusted}, has {private}, and may send to any server in the world: "
                "a text that a stranger wrote could make it give your data away.",
                f"它会处理{untrusted}，掌握{private}，并且可以向任何服务器发送数据："
                "陌生人写的一段文字就可能使它泄露你的数据。",
            )
        case "any-server":
            said = t(
                locale,
                "It may send what you give it to any server in the world. Give it nothing that must stay private.",
                "它可以把你提供的内容发送到任何服务器。请不要向它提供需要保密的内容。",
            )
        case "wide-way-out":
            said = t(
                locale,
                f"It may send {private} to every server under {servers}, including servers that others may run.",
                f"它可以把{private}发送到 {servers} 下的所有服务器，其中可能有他人运行的服务器。",
            )
        case "fixed-servers":
            said = t(
                locale,
                f"It may send {private} to {servers}, and to nobody else.",
                f"它可以把{private}发送到 {servers}，除此之外不会发送给任何人。",
            )
        case "not-encrypted":
            said = t(
                locale,
                f"It talks to {servers} without encryption: everyone on the way can read and change the messages.",
                f"它与 {servers} 的通信没有加密：途中的任何人都可以读取和修改。",
            )
        case "secrets-any-server":
            said = t(
                locale,
                "It uses your secrets and may reach any server in the world: "
                "what it gets in your name could be sent anywhere.",
                "它使用你的密钥，并且可以访问任何服务器：它以你的名义取得的内容可能被发送到任何地方。",
            )
        case "secrets-in-the-clear":
            said = t(
                locale,
                f"It sends your secrets to {servers} without encryption: everyone on the way can take them.",
                f"它在没有加密的情况下把你的密钥发送到 {servers}：途中的任何人都可以窃取。",
            )
        case "acts-in-your-name":
            steered = "model" in risk.capabilities
            said = t(
                locale,
                f"It can change things in your name at {servers}"
                + (", and a model's answers may decide what." if steered else "."),
                f"它可以以你的名义在 {servers} 进行更改"
                + ("，而更改的内容可能由模型的回答决定。" if steered else "。"),
            )
        case "unlimited-tokens":
            said = t(
                locale,
                "It sets no daily limit to the tokens it uses; only your quotas limit it.",
                "它没有为自己设定每天的 token 上限；只有你的配额能限制它。",
            )
        case _ as never:
            assert_never(never)
    return said


def _joined(names: list[tuple[str, str]], locale: str) -> str:
    words = [t(locale, en, zh) for en, zh in names]
    if len(words) < 2:
        return "".join(words)
    last = t(locale, f" and {words[-1]}", f"和{words[-1]}")
    return _listed(words[:-1], locale) + last


def _shortened(servers: tuple[str, ...]) -> str:
    shown = ", ".join(servers[:5])
    return f"{shown} (+{len(servers) - 5})" if len(servers) > 5 else shown


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
    sends = bool(CHANGING_METHODS & set(permission.methods))
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
