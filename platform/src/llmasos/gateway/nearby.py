"""Model servers on this computer, found by their usual ports.

A connection to a closed loopback port is refused within microseconds, so that this can be called whenever an error
message needs it. It only tells which ports are open: nothing is sent.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from typing import Final, TypeAlias

Server: TypeAlias = tuple[str, int]

# The defaults in each server's own documentation.
USUAL_PORTS: Final[tuple[Server, ...]] = (("Ollama", 11434), ("LM Studio", 1234), ("llama.cpp", 8080), ("vLLM", 8000))
# A server that accepts no connection within this time is absent or unusable.
CONNECT_SECONDS: Final = 0.05


def listening(servers: Iterable[Server] = USUAL_PORTS) -> list[str]:
    """The servers whose port on the loopback address accepts connections, such as `Ollama (http://127.0.0.1:11434)`."""
    return [f"{name} (http://127.0.0.1:{port})" for name, port in servers if _accepts(port)]


def _accepts(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=CONNECT_SECONDS):
            return True
    except OSError:
        return False
