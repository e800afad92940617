"""The host that serves a request, and the paths of routers."""

from __future__ import annotations

from typing import Final, cast

from fastapi import Request

from llmasos.host import Host

# Each router states its full path, as metrics distinguish routes by it.
PREFIX: Final = "/api/v1"


def host_of(request: Request) -> Host:
    """The server's host, which is open while requests are served."""
    return cast("Host", request.app.state.host)
