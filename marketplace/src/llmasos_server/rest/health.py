"""`/healthz`, `/readyz`, `/metrics`: for monitoring the server. They reveal no user's data."""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import time
from typing import Any, Final, Literal

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from llmasos.errors import Unauthenticated, Unavailable
from llmasos.i18n import _
from llmasos.printable import one_line
from llmasos_server.host_log import request_id
from llmasos_server.rest.context import host_of
from llmasos_server.rest.identity import Watcher
from llmasos_server.rest.problems import ScopeMissing, responses
from llmasos_server.rest.schemas import ApiModel

router = APIRouter(tags=["health"])
access = logging.getLogger("llmasos_server.access")
"""One line a request; `server.serve` sends them to stderr."""

READY_SECONDS: Final = 2.0
MAX_LOGGED_PATH: Final = 500
REQUEST_ID_HEADER: Final = b"x-request-id"
# A load balancer's own id is kept if it cannot be mistaken for anything else in a line of the log.
_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9_-]{8,64}")


class Health(ApiModel):
    """The state of the process."""

    status: Literal["ok"] = "ok"


@router.get("/healthz", operation_id="healthz", summary="Is the process alive?")
async def healthz() -> Health:
    """Responds while the event loop runs; touches nothing else."""
    return Health()


@router.get("/readyz", operation_id="readyz", summary="Can the server take requests?", responses=responses(Unavailable))
async def readyz(request: Request) -> Health:
    """Responds while the database responds and the server is not stopping."""
    host = host_of(request)
    try:
        async with asyncio.timeout(READY_SECONDS):
            await asyncio.to_thread(host.check)
    except TimeoutError as error:
        raise Unavailable(_("The database does not respond.")) from error
    return Health()


_METRICS: Final[dict[int | str, dict[str, Any]]] = {
    200: {"description": "Prometheus text.", "content": {"text/plain": {"schema": {"type": "string"}}}},
    **responses(Unauthenticated, ScopeMissing),
}


@router.get(
    "/metrics",
    operation_id="metrics",
    summary="Metrics",
    response_class=Response,
    responses=_METRICS | responses(Unauthenticated, ScopeMissing),
)
async def metrics(request: Request, _caller: Watcher) -> Response:
    """Counters and gauges of this process, for Prometheus: from this machine, or with a token of the scope read."""
    measured: Metrics = request.app.state.metrics
    measured.active_runs.set(host_of(request).actions.active)
    return Response(generate_latest(measured.registry), media_type=CONTENT_TYPE_LATEST)


class Metrics:
    """The server's metrics. Requests are labelled by route, never by path, which the caller chooses."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "llmasos_http_requests", "Requests answered.", ("method", "route", "status"), registry=self.registry
        )
        self.seconds = Histogram(
            "llmasos_http_request_seconds", "Time to the end of an answer.", ("route",), registry=self.registry
        )
        self.open_requests = Gauge("llmasos_http_open_requests", "Requests being answered.", registry=self.registry)
        self.active_runs = Gauge("llmasos_active_runs", "Actions running in this process.", registry=self.registry)


_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


def _request_id(scope: Scope) -> str:
    """The id that a proxy gave a request, or one of our own."""
    given: bytes = dict(scope["headers"]).get(REQUEST_ID_HEADER, b"")
    return given.decode() if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)


class Measured:
    """ASGI middleware that counts and logs responses, and names each request in its response and in the log."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        """Count for `app`."""
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and count its response."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 500
        start = time.perf_counter()
        name = _request_id(scope)
        known = request_id.set(name)

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (REQUEST_ID_HEADER, name.encode())]
            await send(message)

        self._metrics.open_requests.inc()
        try:
            await self._app(scope, receive, noting)
        finally:
            self._metrics.open_requests.dec()
            request_id.reset(known)
            route = getattr(scope.get("route"), "path", "none")
            method = scope["method"] if scope["method"] in _METHODS else "other"
            seconds = time.perf_counter() - start
            self._metrics.requests.labels(method, route, str(status)).inc()
            self._metrics.seconds.labels(route).observe(seconds)
            if access.isEnabledFor(logging.INFO):
                client = (scope.get("client") or ("-",))[0]
                # Without the query, which may hold private data. The caller chooses the path.
                path = one_line(scope["path"][:MAX_LOGGED_PATH])
                access.info('%s "%s %s" %d %.0f ms %s', client, method, path, status, seconds * 1000, name)
