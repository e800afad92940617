"""Fetches the pictures that a model request names by address, under the app's own grant, and inlines them as data.

No provider, and no library on the way to one, ever fetches an address that an app wrote.
"""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

from llmasos.capabilities.http import SendRequest
from llmasos.capabilities.http_messages import HttpRequest, HttpResponse
from llmasos.errors import Invalid
from llmasos.gateway.plan import CallPlan
from llmasos.gateway.request import MAX_MEDIA_BYTES, picture_type
from llmasos.i18n import _
from llmasos.kernel.invocation import Invocation

SendHttp: TypeAlias = Callable[[Invocation, SendRequest], Awaitable[HttpResponse]]
"""The kernel's call: it asks for the app's grant for http, counts and audits the request."""

MAX_ADDRESSES: Final = 8


async def with_pictures_inlined(plan: CallPlan, invocation: Invocation, send: SendHttp) -> CallPlan:
    """Return the plan with each picture as data.

    Raises:
        Denied: The app was not granted http for an address.
        Invalid: There are too many, or one is not a picture, or is too large.
    """
    addresses = plan.picture_addresses
    if not addresses:
        return plan
    if len(addresses) > MAX_ADDRESSES:
        raise Invalid(_("At most {limit} pictures of a request are fetched; send fewer.", limit=MAX_ADDRESSES))
    return plan.with_pictures({address: await _fetched(address, invocation, send) for address in addresses})


async def _fetched(address: str, invocation: Invocation, send: SendHttp) -> str:
    response = await send(invocation, SendRequest(HttpRequest("GET", address)))
    if response.status != 200:
        raise Invalid(_("The picture's server answered {status}.", status=response.status))
    data = base64.b64decode(response.body) if response.base64 else response.body.encode()
    if len(data) > MAX_MEDIA_BYTES:
        raise Invalid(_("A picture is larger than {limit} MiB; make it smaller.", limit=MAX_MEDIA_BYTES >> 20))
    kind = picture_type(data)
    if kind is None:
        raise Invalid(_("The picture's address returned no PNG, JPEG, WebP or GIF."))
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
