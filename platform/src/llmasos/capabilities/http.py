"""Requests to the servers that the grant names, and no others; `http_exchange` sends them."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final, cast
from urllib.parse import urlsplit

import msgspec

from llmasos.bundles.manifest import HttpPermission, Permission, SecretPlace, SecretsPermission
from llmasos.capabilities.http_messages import MAX_REDIRECTS, HttpRequest, HttpResponse, HttpSettings, SecretSource
from llmasos.errors import Invalid
from llmasos.i18n import _
from llmasos.kernel.capability import ContractFunction, Operation, PreparedCall
from llmasos.kernel.guest_calls import json_argument, json_text
from llmasos.kernel.invocation import Invocation, Json
from llmasos.quotas.meters import Demand, Meter

if TYPE_CHECKING:
    from llmasos.capabilities.addresses import Network

# The limit of a server's name in the audit log: no DNS name is longer.
MAX_SERVER: Final = 280


_DEMAND: Final = Demand({Meter.REQUESTS: 1 + MAX_REDIRECTS})


@dataclass(frozen=True, slots=True)
class SendRequest(Operation[HttpResponse]):
    """Sends a request to a server and follows its redirects."""

    request: HttpRequest
    capability: ClassVar[str] = "http"
    function: ClassVar[str] = "request"


def _decode(arguments: list[Json]) -> SendRequest:
    try:
        return SendRequest(msgspec.json.decode(json_argument(arguments), type=HttpRequest))
    except (msgspec.MsgspecError, UnicodeEncodeError) as error:
        raise Invalid(
            _("http.request accepts a JSON object with method and url: {error}", error=error),
        ) from None


class HttpCapability:
    """The capability `http`."""

    name: str = "http"
    audited: bool = True
    contract: Mapping[str, ContractFunction] = {"request": ContractFunction(_decode, json_text)}

    def __init__(
        self,
        secrets: SecretSource,
        allowed_networks: tuple[Network, ...] = (),
        resolver: Callable[..., Iterable[Any]] | None = None,
    ) -> None:
        """Send requests with these settings; see `HttpSettings`."""
        self._settings = HttpSettings(secrets, allowed_networks, resolver)

    def prepare(self, invocation: Invocation, operation: Operation[Any]) -> PreparedCall[HttpResponse]:
        """Check the method and the server of a request against the grant."""
        match operation:
            case SendRequest(request):
                pass
            case _:
                raise TypeError(operation)
        grants: Mapping[str, Permission] = invocation.app.grants if invocation.app else {}
        grant = cast("HttpPermission | None", grants.get("http"))
        from llmasos.capabilities.http_exchange import Exchange  # noqa: PLC0415 - see there

        exchange = Exchange(
            invocation=invocation,
            request=request,
            body=_body_of(request),
            settings=self._settings,
            grant=grant,
            places=_places(grants.get("secrets")),
        )
        exchange.hop(request.method, request.url, exchange.body)
        # Only method and server: the path, the body and headers may hold secrets.
        parts = urlsplit(request.url)
        detail = {"method": request.method, "server": f"{parts.scheme}://{parts.netloc}"[:MAX_SERVER]}
        return PreparedCall(exchange.execute, _DEMAND, detail, exchange.used)


def _places(grant: object) -> tuple[SecretPlace, ...]:
    return grant.secrets if isinstance(grant, SecretsPermission) else ()


def _body_of(request: HttpRequest) -> bytes:
    if not request.base64:
        return request.body.encode()
    try:
        return base64.b64decode(request.body, validate=True)
    except ValueError:
        raise Invalid(_("the body is not base64, though base64 is true")) from None
