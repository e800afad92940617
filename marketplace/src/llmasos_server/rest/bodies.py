"""Routes that take a JSON document, read as strictly as an action's input."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Final, cast

from fastapi import APIRouter, Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict
from typing_extensions import override

from llmasos.errors import Invalid
from llmasos.i18n import _
from llmasos_server.rest.context import PREFIX
from llmasos_server.rest.following import json_body
from llmasos_server.rest.problems import BodyTooLarge, InvalidJson, RequestTimeout, UnsupportedMediaType

BODY_ERRORS: Final = (InvalidJson, RequestTimeout, BodyTooLarge, UnsupportedMediaType)
"""What a route that takes a document may refuse it with, besides `Invalid`."""


class Document(BaseModel):
    """A document that a caller sends: no field is guessed, and none is converted."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class DocumentRoute(APIRoute):
    """A route whose body has arrived in time, is JSON by its media type and its bytes, and can be stored."""

    @override
    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def checked(request: Request) -> Response:
            if self.body_field is not None and _has_nul(await json_body(request)):
                raise Invalid(_("A text of the body has the character NUL, which nothing has: leave it out."))
            return await handle(request)

        return checked


def documents_router(*tags: str) -> APIRouter:
    """A router of routes that take documents."""
    return APIRouter(prefix=PREFIX, route_class=DocumentRoute, tags=list(tags))


def _has_nul(value: object) -> bool:
    """Whether a text in a JSON value has the character NUL, which PostgreSQL cannot store."""
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if isinstance(each, str) and "\0" in each:
            return True
        if isinstance(each, list):
            waiting += cast("list[object]", each)
        elif isinstance(each, dict):
            fields = cast("dict[str, object]", each)
            waiting += [*fields.keys(), *fields.values()]
    return False
