"""Requests of apps, their responses, and the host's settings for sending them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

import msgspec

from llmasos.kernel.invocation import Invocation

if TYPE_CHECKING:
    from llmasos.capabilities.addresses import Network

MAX_REDIRECTS: Final = 5


class SecretSource(Protocol):
    """Gives the secrets of a user to the host, never to an app."""

    def value(self, invocation: Invocation, name: str) -> str | None:
        """A secret's value, or None if it is not set."""
        ...


class HttpRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A request as the app states it."""

    method: Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]
    url: str
    headers: dict[str, str] = msgspec.field(default_factory=dict[str, str])
    body: str = ""
    base64: bool = False


class HttpResponse(msgspec.Struct, frozen=True):
    """A response as the app receives it."""

    status: int
    headers: dict[str, str]
    body: str
    base64: bool
    url: str


@dataclass(frozen=True, slots=True)
class HttpSettings:
    """The settings for sending requests."""

    secrets: SecretSource
    """Gives the values that the host puts into requests."""
    allowed_networks: tuple[Network, ...] = ()
    """Private networks that the operator opened."""
    resolver: Callable[..., Iterable[Any]] | None = None
    """Stands in for `socket.getaddrinfo`."""
