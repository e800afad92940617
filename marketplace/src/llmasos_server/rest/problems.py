"""Every error of the server as a problem document (RFC 9457), with a `code` that programs may rely on."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, ClassVar, Final, cast

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict
from starlette.exceptions import HTTPException

from llmasos.errors import Denied, Invalid, LlmasosError, NotFound
from llmasos.i18n import _, negotiate, render
from llmasos.invocations.actions import InputRejected
from llmasos.validation import misfit

MEDIA_TYPE = "application/problem+json"

# Part of the request was not read: unless the connection closes, its sender might send forever.
_UNREAD: Final = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.MISDIRECTED_REQUEST)

logger = logging.getLogger(__name__)


class InvalidJson(Invalid):
    """The body is not JSON: send one JSON object in UTF-8."""

    code = "invalid-json"
    status = 400


class InvalidCursor(Invalid):
    """The cursor does not belong to this list; leave it out to begin at the start."""

    code = "invalid-cursor"


class BodyTooLarge(Invalid):
    """The body is larger than the server accepts."""

    code = "body-too-large"
    status = 413


class UnsupportedMediaType(Invalid):
    """Send `content-type: application/json`."""

    code = "unsupported-media-type"
    status = 415


class NotAcceptable(Invalid):
    """This route returns application/json or text/event-stream; name one of them in `accept`."""

    code = "not-acceptable"
    status = 406


class MethodNotAllowed(Invalid):
    """This route has no such method; the header `allow` names those that it has."""

    code = "method-not-allowed"
    status = 405


class RequestTimeout(Invalid):
    """The request did not arrive in time; send it again."""

    code = "request-timeout"
    status = 408


class OutputNotKept(LlmasosError):
    """The run succeeded, but its output is not kept: run it again under another Idempotency-Key."""

    tag = "not-found"
    code = "output-not-kept"
    status = 410


class HostNotAllowed(Denied):
    """This server does not serve the host that the request names."""

    code = "host-not-allowed"
    status = 421


class OriginNotAllowed(Denied):
    """A page of another origin may not call this server."""

    code = "origin-not-allowed"


class ScopeMissing(Denied):
    """The token lacks the scope that this needs."""

    code = "scope-missing"


class FieldError(BaseModel):
    """One fault of the input: its place, as a JSON pointer, and its description."""

    model_config = ConfigDict(extra="forbid")

    pointer: str
    detail: str


class Problem(BaseModel):
    """A problem document (RFC 9457)."""

    model_config = ConfigDict(extra="forbid")

    type: str
    """`urn:llmasos:problem:` and the code."""
    title: str
    status: int
    detail: str
    """What happened and what to do about it, in one line."""
    code: str
    """Stable, for programs."""
    instance: str | None = None
    """The path that was asked for."""
    invocation: str | None = None
    """The invocation that failed, if one had begun."""
    errors: list[FieldError] | None = None
    """Each fault of the input, if there are several."""


class ProblemResponse(JSONResponse):
    """A problem document as a response."""

    media_type = MEDIA_TYPE


def problem_of(
    error: LlmasosError,
    *,
    locale: str = "en",
    instance: str | None = None,
    invocation: str | None = None,
    faults: Sequence[FieldError] = (),
) -> Problem:
    """Make the problem document of an error, in the caller's language."""
    if isinstance(error, InputRejected):
        faults = [FieldError(pointer=each.pointer, detail=render(each.message, locale)) for each in error.faults]
    return Problem(
        type=f"urn:llmasos:problem:{error.code}",
        title=error.code.replace("-", " ").capitalize(),
        status=error.status,
        detail=render(error.message, locale),
        code=error.code,
        instance=instance,
        invocation=invocation,
        errors=list(faults) or None,
    )


def respond(
    error: LlmasosError,
    request: Request | None = None,
    *,
    invocation: str | None = None,
    faults: Sequence[FieldError] = (),
    headers: Mapping[str, str] | None = None,
) -> ProblemResponse:
    """Make the response for an error: its status, its document, and for 401 how to authenticate."""
    path = request.url.path if request is not None else None
    locale = negotiate(request.headers.get("accept-language", "")) if request is not None else "en"
    problem = problem_of(error, locale=locale, instance=path, invocation=invocation, faults=faults)
    sent = dict(headers or {})
    if error.status == HTTPStatus.UNAUTHORIZED:
        sent["www-authenticate"] = 'Bearer realm="llmasos"'
    if error.status in _UNREAD:
        sent["connection"] = "close"
    return ProblemResponse(problem.model_dump(exclude_none=True), status_code=error.status, headers=sent)


def responses(*errors: type[LlmasosError]) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI responses of a route's errors, one per status."""
    listed: dict[int | str, dict[str, Any]] = {}
    for error in errors:
        text = " ".join((error.__doc__ or "").split())
        known = listed.get(error.status)
        described = f"{known['description']} Or: {text}" if known else text
        listed[error.status] = {
            "description": described,
            "model": Problem,
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
    return listed


class _OfStatus(LlmasosError):
    """An HTTP error of the framework, with a code derived from its status."""

    _made: ClassVar[dict[int, type[LlmasosError]]] = {}

    @classmethod
    def make(cls, status: int, detail: str) -> LlmasosError:
        if status not in cls._made:
            try:
                code = HTTPStatus(status).phrase.lower().replace(" ", "-").replace("'", "")
            except ValueError:
                code = f"http-{status}"
            cls._made[status] = type(f"Status{status}", (cls,), {"status": status, "code": code})
        return cls._made[status](detail)


_BY_STATUS: Mapping[int, type[LlmasosError]] = {
    404: NotFound,
    405: MethodNotAllowed,
    413: BodyTooLarge,
    415: UnsupportedMediaType,
}


async def _own(request: Request, error: Exception) -> ProblemResponse:
    return respond(cast("LlmasosError", error), request)


async def _http(request: Request, error: Exception) -> ProblemResponse:
    raised = cast("HTTPException", error)
    known = _BY_STATUS.get(raised.status_code)
    ours = known() if known else _OfStatus.make(raised.status_code, str(raised.detail))
    return respond(ours, request, headers=raised.headers)


async def _validation(request: Request, error: Exception) -> ProblemResponse:
    found = [
        ("/".join(str(part) for part in fault["loc"]), misfit(fault))
        for fault in cast("RequestValidationError", error).errors()
    ] or [("", _("the request is not valid"))]
    locale = negotiate(request.headers.get("accept-language", ""))
    faults = [FieldError(pointer=f"/{where}", detail=render(what, locale)) for where, what in found]
    where, what = found[0]
    return respond(Invalid(_("{where}: {what}", where=where, what=what)), request, faults=faults)


async def _unforeseen(request: Request, error: Exception) -> ProblemResponse:
    logger.error("a request failed with an error nobody foresaw", exc_info=error, extra={"path": request.url.path})
    return respond(LlmasosError(), request)


def install_problem_handlers(app: FastAPI) -> None:
    """Convert every error of `app`, including the framework's own, into a problem document."""
    app.add_exception_handler(LlmasosError, _own)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(RequestValidationError, _validation)
    app.add_exception_handler(Exception, _unforeseen)
