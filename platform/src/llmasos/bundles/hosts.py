"""Patterns of servers in permissions.

A pattern is `https://api.example.com`, `https://*.example.com:8443`, or `*` for the whole network. A wildcard matches
one or more whole leading labels, never the bare name after it: `*.example.com` does not match `example.com`.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Final, Literal, Self, cast

from llmasos.i18n import _
from llmasos.validation import Misfit

DEFAULT_PORTS: Final = {"https": 443, "http": 80}

_PATTERN = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<wildcard>\*\.)?(?P<host>\[[0-9a-f:.]+\]|[a-z0-9.-]+)(?::(?P<port>[1-9][0-9]{0,4}))?"
)
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_EXAMPLE = _("write it as https://api.example.com, https://*.example.com:8443 or *")


@dataclass(frozen=True, slots=True)
class HostPattern:
    """The servers that a permission allows. `host` is empty for the whole network."""

    scheme: Literal["http", "https", "*"]
    host: str
    port: int
    wildcard: bool = False

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a pattern.

        Raises:
            ValueError: It is not a pattern, or is ambiguous; the message says what to write instead.
        """
        if text == "*":
            return cls("*", "", 0)
        match = _PATTERN.fullmatch(text)
        if match is None:
            raise Misfit(
                _(
                    "{text!r} is not a server: {example}, in lower case, without a path",
                    text=text[:80],
                    example=_EXAMPLE,
                ),
            )
        scheme, host = match["scheme"], match["host"]
        if scheme not in DEFAULT_PORTS:
            raise Misfit(_("{scheme}:// is not a scheme that apps may use: {example}", scheme=scheme, example=_EXAMPLE))
        port = int(match["port"] or DEFAULT_PORTS[scheme])
        if port > 65535:
            raise Misfit(_("port {port} does not exist: use 1 to 65535", port=port))
        wildcard = match["wildcard"] is not None
        _check_host(host, wildcard)
        return cls(cast("Literal['http', 'https']", scheme), host, port, wildcard)

    @property
    def is_everything(self) -> bool:
        """Whether it is the whole network."""
        return self.scheme == "*"

    def matches(self, scheme: str, host: str, port: int) -> bool:
        """Whether the pattern matches a server; `host` is in lower case, IPv6 in brackets."""
        if self.is_everything:
            return True
        if scheme != self.scheme or port != self.port:
            return False
        return host.endswith(f".{self.host}") if self.wildcard else host == self.host

    def covers(self, other: HostPattern) -> bool:
        """Whether this pattern matches every server that `other` matches."""
        if self.is_everything or other.is_everything:
            return self.is_everything
        if not other.wildcard:
            return self.matches(other.scheme, other.host, other.port)
        same_road = self.scheme == other.scheme and self.port == other.port
        return same_road and self.wildcard and (other.host == self.host or other.host.endswith(f".{self.host}"))

    def __str__(self) -> str:
        if self.is_everything:
            return "*"
        port = "" if self.port == DEFAULT_PORTS[self.scheme] else f":{self.port}"
        return f"{self.scheme}://{'*.' if self.wildcard else ''}{self.host}{port}"


def _check_host(host: str, wildcard: bool) -> None:
    if host.startswith("["):
        _check_address(host[1:-1], wildcard)
        return
    labels = host.split(".")
    if len(host) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise Misfit(_("{host!r} is not a host name: {example}", host=host[:80], example=_EXAMPLE))
    # A name whose last label is a number is read as an IPv4 address by resolvers, in decimal, octal or shortened
    # forms too: only the plain form is left.
    if re.fullmatch(r"[0-9]+|0x[0-9a-f]*", labels[-1]):
        _check_address(host, wildcard)
    elif wildcard and len(labels) < 2:
        raise Misfit(
            _("*.{host} is a whole top-level domain: name the servers, or ask for * and say why", host=host),
        )


def _check_address(text: str, wildcard: bool) -> None:
    try:
        canonical = str(ipaddress.ip_address(text))
    except ValueError:
        raise Misfit(
            _("{text!r} is not an address in its plain form, such as 192.0.2.1 or [2001:db8::1]", text=text),
        ) from None
    if canonical != text:
        raise Misfit(_("write the address as {canonical} instead of {text}", canonical=canonical, text=text))
    if wildcard:
        raise Misfit(_("*.{text}: an address has no names under it", text=text))
