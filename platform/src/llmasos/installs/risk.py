"""What an app's permissions add up to. Pure: permissions to sentences.

An app is dangerous when three things meet: data that is private, input that a stranger wrote, and a way out. A model
does what it reads, so a stranger's text in its prompt can steer what the app does next; then what the app knows of a
person leaves by whatever way there is. What matters is how wide that way is: fixed servers can leak only to those
who run them, whom the person can judge; a wildcard, to whoever runs any server under it; the whole network, to anyone.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from llmasos.bundles.hosts import HostPattern
from llmasos.bundles.parts import HttpPermission, LimitsRequest, Permission, SecretsPermission
from llmasos.i18n import t

Level: TypeAlias = Literal["info", "warning", "danger"]
LEVELS: Final[tuple[Level, ...]] = ("danger", "warning", "info")

# An app never reads a secret, but the answers it gets with one are the person's own.
PRIVATE: Final = {
    "storage": ("what it remembers of you", "它记住的关于你的内容"),
    "secrets": ("what it gets with your secrets", "它用你的密钥取得的内容"),
    "apps": ("what other apps tell it", "其他应用告诉它的内容"),
}
STRANGERS: Final = {
    "model": ("a model's answers", "模型的回答"),
    "http": ("texts from the network", "网络上的文本"),
    "apps": ("other apps' answers", "其他应用的回答"),
}
CHANGING: Final = frozenset({"POST", "PUT", "PATCH", "DELETE"})


@dataclass(frozen=True, slots=True)
class Risk:
    """One combination, with the sentence that explains it."""

    code: str
    level: Level
    en: str
    zh: str
    capabilities: tuple[str, ...]

    def text(self, locale: str) -> str:
        """The sentence in a locale."""
        return t(locale, self.en, self.zh)


def risks_of(permissions: Iterable[Permission], limits: LimitsRequest | None = None) -> tuple[Risk, ...]:
    """What these permissions add up to, the worst first.

    Args:
        permissions: All that a release asks for, or all that an installation grants.
        limits: The limits that go with them; None leaves out what depends on them.
    """
    by_name = {permission.capability: permission for permission in permissions}
    http = by_name.get("http")
    secrets = by_name.get("secrets")
    found: list[Risk] = []
    if isinstance(http, HttpPermission):
        found.extend(_way_out(http, set(by_name)))
        found.extend(_in_the_clear(http))
        if isinstance(secrets, SecretsPermission):
            found.extend(_secrets(secrets, http, "model" in by_name))
    if "model" in by_name and limits is not None and limits.tokens_per_day is None:
        found.append(
            Risk(
                "unlimited-tokens",
                "info",
                "It sets no limit of its own to the tokens it uses a day; only your quotas hold it.",
                "它没有为自己设定每天的 token 上限；只有你的配额能限制它。",
                ("model",),
            )
        )
    return tuple(sorted(found, key=lambda risk: LEVELS.index(risk.level)))


def worst(risks: Iterable[Risk]) -> Level | None:
    """The highest level among them; None where there is none."""
    levels = {risk.level for risk in risks}
    return next((level for level in LEVELS if level in levels), None)


def _way_out(http: HttpPermission, names: set[str]) -> Iterator[Risk]:
    private = [name for name in PRIVATE if name in names]
    strangers = [name for name in STRANGERS if name in names]
    involved = tuple(dict.fromkeys((*private, *strangers, "http")))
    mine_en, mine_zh = _listed(PRIVATE, private)
    theirs_en, theirs_zh = _listed(STRANGERS, strangers)
    wide = [pattern for pattern in http.patterns if pattern.wildcard]
    if any(pattern.is_everything for pattern in http.patterns):
        if private:
            yield Risk(
                "exfiltration",
                "danger",
                f"It works on {theirs_en}, holds {mine_en}, and may send to any server in the world: "
                "a text that a stranger wrote could make it give your data away.",
                f"它会处理{theirs_zh}，掌握{mine_zh}，并且可以向任何服务器发送数据：陌生人写的一段文字就可能使它泄露你的数据。",
                involved,
            )
            return
        yield Risk(
            "any-server",
            "warning",
            "It may send what you give it to any server in the world. Give it nothing that must stay private.",
            "它可以把你提供的内容发送到任何服务器。请不要向它提供需要保密的内容。",
            involved,
        )
    elif wide:
        servers = _servers(wide)
        level: Level = "warning" if private else "info"
        yield Risk(
            "wide-way-out",
            level,
            f"It may send {mine_en or 'what you give it'} to every server under {servers}, "
            "including ones that others may run.",
            f"它可以把{mine_zh or '你提供的内容'}发送到 {servers} 下的所有服务器，其中可能有他人运行的服务器。",
            involved,
        )
    else:
        servers = _servers(http.patterns)
        yield Risk(
            "fixed-servers",
            "info",
            f"It may send {mine_en or 'what you give it'} to {servers}, and to nobody else.",
            f"它可以把{mine_zh or '你提供的内容'}发送到 {servers}，除此之外不会发送给任何人。",
            involved,
        )


def _in_the_clear(http: HttpPermission) -> Iterator[Risk]:
    open_roads = [pattern for pattern in http.patterns if pattern.scheme == "http" and not _is_local(pattern.host)]
    if open_roads:
        servers = _servers(open_roads)
        yield Risk(
            "not-encrypted",
            "warning",
            f"It talks to {servers} without encryption: everyone on the way can read and change it.",
            f"它与 {servers} 的通信没有加密：途中的任何人都可以读取和修改。",
            ("http",),
        )


def _secrets(secrets: SecretsPermission, http: HttpPermission, steered: bool) -> Iterator[Risk]:
    involved = ("secrets", "http")
    places = [HostPattern.parse(place.host) for place in secrets.secrets]
    if any(pattern.is_everything for pattern in http.patterns):
        yield Risk(
            "secrets-any-server",
            "danger",
            "It uses your secrets and may reach any server in the world: "
            "what it gets in your name could be sent anywhere.",
            "它使用你的密钥，并且可以访问任何服务器：它以你的名义取得的内容可能被发送到任何地方。",
            involved,
        )
    clear = [pattern for pattern in places if pattern.scheme == "http" and not _is_local(pattern.host)]
    if clear:
        yield Risk(
            "secrets-in-the-clear",
            "danger",
            f"It sends your secrets to {_servers(clear)} without encryption: everyone on the way can take them.",
            f"它在没有加密的情况下把你的密钥发送到 {_servers(clear)}：途中的任何人都可以窃取。",
            involved,
        )
    if CHANGING & set(http.methods):
        yield Risk(
            "acts-in-your-name",
            "warning" if steered else "info",
            f"It can change things in your name at {_servers(places)}"
            + (", and a model's answers may decide what." if steered else "."),
            f"它可以以你的名义在 {_servers(places)} 进行更改"
            + ("，而更改的内容可能由模型的回答决定。" if steered else "。"),
            (*involved, "model") if steered else involved,
        )


def _listed(words: dict[str, tuple[str, str]], names: list[str]) -> tuple[str, str]:
    english = [words[name][0] for name in names]
    joined = " and ".join((", ".join(english[:-1]), english[-1])) if len(english) > 1 else "".join(english)
    return joined, "、".join(words[name][1] for name in names)


def _servers(patterns: Iterable[HostPattern]) -> str:
    names = list(dict.fromkeys(pattern.host for pattern in patterns if pattern.host))
    shown = ", ".join(names[:5])
    return f"{shown} (+{len(names) - 5})" if len(names) > 5 else shown


def _is_local(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
