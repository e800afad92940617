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
from llmasos.i18n import Message, _, render
from llmasos.installs.risk import CHANGING_METHODS, Risk

_TIERS: Final = {
    "fast": _("fast"),
    "balanced": _("balanced"),
    "best": _("best"),
}
_PRIVATE: Final = {
    "storage": _("what it remembers of you"),
    "secrets": _("what it gets with your secrets"),
    "apps": _("what other apps tell it"),
}
_UNTRUSTED: Final = {
    "model": _("a model's answers"),
    "http": _("texts from the network"),
    "apps": _("other apps' answers"),
}


def describe(permission: Permission, locale: str) -> str:
    """What a permission lets an app do, in one plain sentence."""
    match permission:
        case ModelPermission():
            return _model(permission, locale)
        case StoragePermission():
            size = describe_bytes(permission.max_bytes)
            return render(_("Keep up to {size} of data for you", size=size), locale)
        case HttpPermission():
            return _http(permission, locale)
        case SecretsPermission():
            return _secrets(permission, locale)
        case AppsPermission():
            apps = _listed(permission.apps, locale)
            return render(_("Run {apps} for you, on your quota", apps=apps), locale)
        case _ as never:
            assert_never(never)


def describe_limits(limits: LimitsRequest, locale: str) -> tuple[str, ...]:
    """How far the app may go in a run, and in a day."""
    lines = [
        render(_("{memory_mib} MiB of memory", memory_mib=limits.memory_mib), locale),
        render(
            _(
                "{cpu_seconds} s of computing and {wall_seconds} s in all, each run",
                cpu_seconds=f"{limits.cpu_seconds:g}",
                wall_seconds=f"{limits.wall_seconds:g}",
            ),
            locale,
        ),
    ]
    if limits.tokens_per_run is not None:
        number = f"{limits.tokens_per_run:,}"
        lines.append(render(_("{number} tokens each run", number=number), locale))
    if limits.tokens_per_day is not None:
        number = f"{limits.tokens_per_day:,}"
        lines.append(render(_("{number} tokens a day", number=number), locale))
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
    private = private or render(_("what you give it"), locale)
    untrusted = _joined([_UNTRUSTED[name] for name in risk.untrusted], locale)
    servers = _shortened(risk.servers)
    match risk.code:
        case "exfiltration":
            said = render(
                _(
                    "It works on {untrusted}, has {private}, and may send to any server in the world: a text "
                    "that a stranger wrote could make it give your data away.",
                    untrusted=untrusted,
                    private=private,
                ),
                locale,
            )
        case "any-server":
            said = render(
                _("It may send what you give it to any server in the world. Give it nothing that must stay private."),
                locale,
            )
        case "wide-way-out":
            said = render(
                _(
                    "It may send {private} to every server under {servers}, including servers that others may run.",
                    private=private,
                    servers=servers,
                ),
                locale,
            )
        case "fixed-servers":
            said = render(
                _("It may send {private} to {servers}, and to nobody else.", private=private, servers=servers), locale
            )
        case "not-encrypted":
            said = render(
                _(
                    "It talks to {servers} without encryption: everyone on the way can read and change the messages.",
                    servers=servers,
                ),
                locale,
            )
        case "secrets-any-server":
            said = render(
                _(
                    "It uses your secrets and may reach any server in the world: what it gets in your name could "
                    "be sent anywhere."
                ),
                locale,
            )
        case "secrets-in-the-clear":
            said = render(
                _(
                    "It sends your secrets to {servers} without encryption: everyone on the way can take them.",
                    servers=servers,
                ),
                locale,
            )
        case "secrets-answers-readable":
            said = render(
                _(
                    "It reads the answers of {servers}, which get your secrets: a server may send a secret back to it.",
                    servers=servers,
                ),
                locale,
            )
        case "acts-in-your-name":
            steered = "model" in risk.capabilities
            said = render(
                _(
                    "It can change things in your name at {servers}, and a model's answers may decide what.",
                    servers=servers,
                )
                if steered
                else _("It can change things in your name at {servers}.", servers=servers),
                locale,
            )
        case "unlimited-tokens":
            said = render(_("It sets no daily limit to the tokens it uses; only your quotas limit it."), locale)
        case _ as never:
            assert_never(never)
    return said


def _joined(names: list[Message], locale: str) -> str:
    if len(names) < 2:
        return "".join(render(name, locale) for name in names)
    return render(_("{most} and {last}", most=names[:-1], last=names[-1]), locale)


def _shortened(servers: tuple[str, ...]) -> str:
    shown = ", ".join(servers[:5])
    return f"{shown} (+{len(servers) - 5})" if len(servers) > 5 else shown


def _model(permission: ModelPermission, locale: str) -> str:
    tiers = [render(_TIERS[tier], locale) for tier in permission.tiers]
    named = _listed((*tiers, *permission.models), locale)
    embeds = render(_("compare texts by meaning"), locale)
    if not named:
        return render(_("Use a model to "), locale) + embeds
    said = render(
        _(
            "Ask language models ({named}), up to {max_output_tokens:,} tokens an answer",
            named=named,
            max_output_tokens=permission.max_output_tokens,
        ),
        locale,
    )
    return said + (render(_(", and "), locale) + embeds if permission.embeddings else "")


def _http(permission: HttpPermission, locale: str) -> str:
    sends = bool(CHANGING_METHODS & set(permission.methods))
    if any(pattern.is_everything for pattern in permission.patterns):
        if sends:
            return render(_("Read from and send to any server on the internet"), locale)
        return render(_("Read from any server on the internet"), locale)
    servers = _listed(_servers(permission.patterns, locale), locale)
    if sends:
        return render(_("Read from and send to {servers}", servers=servers), locale)
    return render(_("Read from {servers}", servers=servers), locale)


def _servers(patterns: Iterable[HostPattern], locale: str) -> list[str]:
    said: list[str] = []
    for pattern in patterns:
        name = str(pattern).removeprefix("https://")
        if pattern.wildcard:
            plain = str(pattern).removeprefix("https://").replace("*.", "", 1)
            name = render(_("every server under {plain}", plain=plain), locale)
        said.append(name)
    return said


def _secrets(permission: SecretsPermission, locale: str) -> str:
    used = [render(_("“{place}” to {host}", place=place.name, host=place.host), locale) for place in permission.secrets]
    listed = _listed(used, locale)
    return render(_("Send secrets that you give it: {listed}", listed=listed), locale)


def _listed(words: Iterable[str], locale: str) -> str:
    return render(_(", "), locale).join(words)
