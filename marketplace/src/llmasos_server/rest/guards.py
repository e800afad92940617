"""Refuses requests before they reach a route: bodies that are too large, foreign hosts, foreign origins.

A server on loopback can be reached by any page in the user's browser. A page that rebinds its name to 127.0.0.1 is
recognised by the `host` header; one that sends across origins, by `origin`. Tokens protect the API as well; pages
with cookies depend on this check.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection
from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from llmasos.errors import Invalid, LlmasosError, NotFound
from llmasos.i18n import _
from llmasos_runner.protocol import MAX_PAYLOAD_BYTES
from llmasos_server.rest.problems import BodyTooLarge, HostNotAllowed, OriginNotAllowed, respond

# An action's input, in which an escape such as \u00e9 takes three times the bytes of its character.
MAX_BODY_BYTES: Final = 3 * MAX_PAYLOAD_BYTES
LOOPBACK_NAMES: Final = frozenset({"localhost", "127.0.0.1", "::1"})


class Guards:
    """ASGI middleware that refuses with problem documents."""

    def __init__(self, app: ASGIApp, hosts: Collection[str], max_body_bytes: int = MAX_BODY_BYTES) -> None:
        """Guard `app`.

        Args:
            app: The guarded application.
            hosts: The accepted host names, without port; `*` for any.
            max_body_bytes: How large a body may be.
        """
        self._app = app
        self._hosts = frozenset(host.lower() for host in hosts)
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        refusal = _unstorable(scope) or self._refusal(headers)
        if refusal is not None:
            await respond(refusal, Request(scope))(scope, receive, send)
            return
        await self._app(scope, self._counted(receive), send)

    def _refusal(self, headers: Headers) -> LlmasosError | None:
        authority = headers.get("host", "").lower()
        host = host_name(authority)
        if not self._answers_for(host):
            return HostNotAllowed(
                _(
                    "This server does not serve {host!r}; start it with `llmasos serve --allow-host NAME`.",
                    host=host[:100],
                ),
            )
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc.lower() != authority:
            return OriginNotAllowed()
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length) > self._max_body_bytes:
            return self._too_large()
        return None

    def _answers_for(self, host: str) -> bool:
        return "*" in self._hosts or host in self._hosts

    def _too_large(self) -> BodyTooLarge:
        return BodyTooLarge(
            _(
                "The body is larger than the {max_body_bytes} bytes that the server accepts.",
                max_body_bytes=self._max_body_bytes,
            ),
        )

    def _counted(self, receive: Receive) -> Receive:
        taken = 0

        async def counting() -> Message:
            nonlocal taken
            message = await receive()
            if message["type"] == "http.request":
                taken += len(message.get("body", b""))
                if taken > self._max_body_bytes:
                    raise HTTPException(BodyTooLarge.status, self._too_large().message)
            return message

        return counting


def _unstorable(scope: Scope) -> LlmasosError | None:
    """Refuse the character NUL, which no name has and which PostgreSQL cannot compare with any."""
    if "\0" in scope["path"]:
        return NotFound()
    if b"%00" in scope["query_string"] or b"\0" in scope["query_string"]:
        return Invalid(_("A parameter has the character NUL, which nothing has: leave it out."))
    return None


def host_name(authority: str) -> str:
    """The name in `name:port`, `[::1]:port` or `name`, in lower case."""
    if authority.startswith("["):
        return authority[1:].partition("]")[0].lower()
    return authority.rpartition(":")[0].lower() if ":" in authority else authority.lower()


def is_loopback(host: str) -> bool:
    """Whether a server bound to `host` is reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
