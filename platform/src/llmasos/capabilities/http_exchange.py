"""One request of an app with its redirects, sent by the host.

Redirects are followed here, not by the client: each hop is checked against the grant and the table of addresses,
as the first one was. The host inserts secrets anew at each hop, so that none follows a redirect to a server it
is not for. Imported with the first request: importing the clients would cost every run of an app a tenth of a second.
"""

from __future__ import annotations

import asyncio
import base64
import re
import time
from dataclasses import dataclass
from typing import Final

import httpx
from msgspec.structs import replace
from ssrfguard.errors import SSRFGuardError
from ssrfguard.httpx import AsyncClient

from llmasos.bundles.hosts import DEFAULT_PORTS, HostPattern
from llmasos.bundles.manifest import HttpPermission, SecretPlace
from llmasos.capabilities.addresses import policy_for
from llmasos.capabilities.echoes import declared, hidden
from llmasos.capabilities.http_messages import MAX_REDIRECTS, HttpRequest, HttpResponse, HttpSettings
from llmasos.errors import Denied, Invalid, ResourceLimit, TimedOut, Unavailable
from llmasos.i18n import _
from llmasos.kernel.capability import OperationResult
from llmasos.kernel.invocation import Invocation
from llmasos.quotas.meters import Demand, Meter, Used
from llmasos_runner.protocol import MAX_PAYLOAD_BYTES

# Long enough for a slow API, short enough that an unresponsive server does not block an invocation for minutes.
TIMEOUT_SECONDS: Final = 30.0
# Headers of the connection itself, headers by which an app could pose as a proxy, and the encoding that `_read` needs.
_RESERVED_HEADERS: Final = frozenset(
    {"host", "content-length", "transfer-encoding", "connection", "upgrade", "te", "trailer", "expect"}
    | {"proxy-authorization", "proxy-connection", "accept-encoding", "forwarded", "x-forwarded-for"}
    # Many servers perform the method that these name, whatever the method of the request, which the grant limits.
    | {"x-http-method-override", "x-http-method", "x-method-override"}
)
# Ranges would reveal a secret byte by byte, which no filter can detect.
_PARTIAL: Final = frozenset({"range", "if-range"})
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}")
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})


@dataclass(frozen=True, slots=True)
class Hop:
    """One request in a chain of redirects."""

    method: str
    url: str
    port: int
    body: bytes


@dataclass(slots=True)
class Exchange:
    """One request, with the redirects it leads to."""

    invocation: Invocation
    request: HttpRequest
    body: bytes
    settings: HttpSettings
    grant: HttpPermission | None
    places: tuple[SecretPlace, ...]
    sent: int = 0
    """How many requests left this machine, whatever came back."""
    readable: bool = True
    """Whether the app gets the answer whole, and not its status and declared fields alone."""

    def used(self, _granted: Demand) -> Used:
        """The requests that were sent."""
        return Used(amounts={Meter.REQUESTS: self.sent})

    def hop(self, method: str, url: str, body: bytes) -> Hop:
        """Check a request against the grant.

        Raises:
            Denied: The grant does not include that server or method.
            Invalid: The URL is not valid.
        """
        try:
            parsed = httpx.URL(url)
            host = _host_of(parsed)
        except (httpx.InvalidURL, ValueError) as error:
            raise Invalid(_("that is not a URL: {error}", error=error)) from None
        if parsed.scheme not in DEFAULT_PORTS or not host:
            raise Invalid(
                _("a URL starts with https:// or http:// and names a server"),
            )
        if parsed.userinfo:
            raise Invalid(
                _("a URL holds no user name or password: declare a secret and where it goes"),
            )
        port = parsed.port or DEFAULT_PORTS[parsed.scheme]
        if self.grant is not None:
            self._hold_against(self.grant, method, f"{parsed.scheme}://{host}", port)
        return Hop(method, url, port, body)

    def _hold_against(self, grant: HttpPermission, method: str, origin: str, port: int) -> None:
        scheme, __, host = origin.partition("://")
        patterns = [HostPattern.parse(pattern) for pattern in grant.hosts]
        reaching = [pattern for pattern in patterns if pattern.matches(scheme, host, port)]
        shown = origin if port == DEFAULT_PORTS[scheme] else f"{origin}:{port}"
        if not reaching:
            raise Denied(
                _('the app may not reach {shown}; its manifest would ask for it with hosts = ["{shown}"]', shown=shown),
            )
        if port not in DEFAULT_PORTS.values() and all(pattern.is_everything for pattern in reaching):
            raise Denied(
                _(
                    'hosts = ["*"] reaches ports 80 and 443; its manifest would ask for hosts = ["{shown}"]',
                    shown=shown,
                ),
            )
        if method not in grant.methods:
            raise Denied(
                _(
                    'the app may not send {method}; its manifest would ask for it with methods = ["{method}"]',
                    method=method,
                ),
            )

    async def execute(self, granted: Demand) -> OperationResult[HttpResponse]:
        """Send it, follow its redirects, and read the response up to the granted size."""
        hop = self.hop(self.request.method, self.request.url, self.body)
        seconds = min(TIMEOUT_SECONDS, max(0.1, self.invocation.deadline_monotonic - time.monotonic()))
        try:
            async with asyncio.timeout(seconds):
                while True:
                    answer = await self._send(hop)
                    location = answer.headers.get("location")
                    if answer.status not in _REDIRECTS or location is None:
                        return OperationResult(
                            answer if self.readable else replace(answer, headers={}), self.used(granted)
                        )
                    if self.sent > min(MAX_REDIRECTS, granted.amounts.get(Meter.REQUESTS, 1) - 1):
                        raise Invalid(
                            _("the server redirected more than {max_redirects} times", max_redirects=MAX_REDIRECTS),
                        )
                    hop = self._redirected(hop, answer.status, location)
        except TimeoutError:
            raise TimedOut(_("the server did not respond within {seconds:.0f} seconds", seconds=seconds)) from None
        except SSRFGuardError:
            # Nothing was sent. Naming the address would reveal to the app a network that it may not see.
            self.sent -= 1
            raise Denied(
                _(
                    "that server is not on the public network, and apps reach no other; an operator opens a private "
                    "network with the setting http_networks, for this computer "
                    'LLMASOS_HTTP_NETWORKS=\'["127.0.0.0/8", "::1/128"]\'; its author adds --allow-loopback to '
                    "`llmasos run .` or `llmasos dev`"
                ),
            ) from None
        except (httpx.InvalidURL, UnicodeError):  # UnicodeError: a name outside IDNA
            raise Unavailable(_("the server redirected to something that is not a URL")) from None
        except httpx.HTTPError as error:
            raise Unavailable(_("the server could not be reached: {kind}", kind=type(error).__name__)) from None

    def _redirected(self, hop: Hop, status: int, location: str) -> Hop:
        url = str(httpx.URL(hop.url).join(location))
        keeps = status in (307, 308) or hop.method in ("GET", "HEAD")
        return self.hop(hop.method if keeps else "GET", url, hop.body if keeps else b"")

    async def _send(self, hop: Hop) -> HttpResponse:
        secrets = self._secrets_for(hop)
        headers, url = self._with_secrets(hop, secrets)
        self.sent += 1
        async with (
            AsyncClient(
                policy=policy_for(hop.port, self.settings.allowed_networks),
                resolver=self.settings.resolver,
                follow_redirects=False,
                trust_env=False,
                timeout=TIMEOUT_SECONDS,
            ) as client,
            client.stream(hop.method, url, headers=headers, content=hop.body or None) as response,
        ):
            content = await self._read(response)
        try:
            text, encoded = content.decode(), False
        except UnicodeDecodeError:
            text, encoded = base64.b64encode(content).decode(), True
        told = {name: value for name, value in response.headers.items() if name != "set-cookie"}
        self.readable = all(place.fields is None for place, _value in secrets)
        if not self.readable:
            # The manifest declares only fields of this response, so the app must not read the whole of it.
            pointers = [pointer for place, _value in secrets for pointer in place.fields or ()]
            text, encoded = declared(text, pointers) if not encoded else "{}", False
            told = {name: value for name, value in told.items() if name == "location"}
        values = [value for _place, value in secrets]
        return HttpResponse(
            status=response.status_code,
            headers={name: hidden(value, values) for name, value in told.items()},
            body=hidden(text, values),
            base64=encoded,
            url=hidden(hop.url, values),
        )

    async def _read(self, response: httpx.Response) -> bytes:
        # A grant may allow more than one call can return to the app.
        limit = min(self.grant.max_response_bytes if self.grant else MAX_PAYLOAD_BYTES, MAX_PAYLOAD_BYTES)
        if response.headers.get("content-encoding", "identity").strip().lower() != "identity":
            # A compressed response could inflate to any size; the request asked for none.
            raise Unavailable(
                _("the server compressed its answer although it was asked not to"),
            )
        content = bytearray()
        async for chunk in response.aiter_raw():
            content += chunk
            if len(content) > limit:
                raise ResourceLimit(
                    _("the answer is over the granted {limit} bytes (max_response_bytes)", limit=limit),
                )
        return bytes(content)

    def _secrets_for(self, hop: Hop) -> list[tuple[SecretPlace, str]]:
        url = httpx.URL(hop.url)
        found: list[tuple[SecretPlace, str]] = []
        for place in self.places:
            if not HostPattern.parse(place.host).matches(url.scheme, _host_of(url), hop.port):
                continue
            value = self.settings.secrets.value(self.invocation, place.name)
            if value is None:
                app = self.invocation.app.id if self.invocation.app else ""
                raise Unavailable(
                    _(
                        "the secret {place} is not set: llmasos secrets set {place} --app {app}",
                        place=place.name,
                        app=app,
                    ),
                )
            found.append((place, value))
        return found

    def _with_secrets(self, hop: Hop, secrets: list[tuple[SecretPlace, str]]) -> tuple[dict[str, str], httpx.URL]:
        headers = {"user-agent": "llmasos"}
        for name, given in self.request.headers.items():
            if name.lower() in _RESERVED_HEADERS:
                raise Invalid(
                    _("the header {name!r} is the host's to set; leave it out", name=name[:40]),
                )
            value = given.strip(" \t")
            if not _HEADER_NAME.fullmatch(name) or not (value.isascii() and value.isprintable()):
                raise Invalid(
                    _("the header {name!r} has characters that a header cannot hold", name=name[:40]),
                )
            headers[name.lower()] = value
        if secrets and not _PARTIAL.isdisjoint(headers):
            raise Invalid(_("a request that carries a secret cannot ask for a part of the answer (range)"))
        headers["accept-encoding"] = "identity"
        url = httpx.URL(hop.url)
        for place, value in secrets:
            if place.header is not None and not value.isascii():
                # The app reads this: it must not learn a part of the secret.
                raise Unavailable(
                    _("the secret {name} has letters that no header can carry; set it again", name=place.name)
                )
            if place.header is not None:
                headers[place.header.lower()] = place.prefix + value
            elif place.query is not None:
                url = url.copy_set_param(place.query, place.prefix + value)
        return headers, url


def _host_of(url: httpx.URL) -> str:
    return f"[{url.host}]" if ":" in url.host else url.host.lower()
