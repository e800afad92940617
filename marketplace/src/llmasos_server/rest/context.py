"""The host that a request reaches, and where."""

from __future__ import annotations

from typing import Final, cast

from fastapi import Request

from llmasos.host import Host

# Each router names its whole path itself: metrics tell routes apart by it.
PREFIX: Final = "/api/v1"


def host_of(request: Request) -> Host:
    """The host behind the server; it is open while requests are served."""
    return cast("Host", request.app.state.host)
