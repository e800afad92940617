"""Blocks the network beyond loopback in tests: pytest-socket refuses connections, and this refuses name lookups.

It affects only this process. A child that a test starts may fetch packages and weights, as the product does.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from pytest_socket import SocketBlockedError

_resolve = socket.getaddrinfo


def _is_here(host: object) -> bool:
    """Whether a name needs no name server."""
    name = host.decode() if isinstance(host, bytes) else host
    if name in (None, "", "localhost"):
        return True
    try:
        ipaddress.ip_address(str(name).partition("%")[0])
    except ValueError:
        return False
    return True


def _resolve_here(host: Any, port: Any, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0) -> Any:  # noqa: A002
    if not flags & socket.AI_NUMERICHOST and not _is_here(host):
        raise SocketBlockedError(f"A test tried to resolve {host!r}.")
    return _resolve(host, port, family, type, proto, flags)


@pytest.fixture(autouse=True, scope="session")
def _no_name_server() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", _resolve_here)
        yield
