"""The layout of the repository."""

import platform
import socket
from pathlib import Path

import pytest
from pytest_socket import SocketBlockedError, SocketConnectBlockedError

ROOT = Path(__file__).resolve().parent.parent


def test_the_folder_platform_does_not_shadow_the_standard_library() -> None:
    assert platform.python_implementation()
    assert not (ROOT / "platform" / "__init__.py").exists()


def test_no_test_folder_is_a_package() -> None:
    assert not list((ROOT / "tests").rglob("__init__.py"))


@pytest.mark.filterwarnings("ignore:A test tried")
def test_tests_reach_no_network_beyond_loopback() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()):
        pass
    with pytest.raises(SocketConnectBlockedError), socket.socket() as outside:
        outside.connect(("192.0.2.1", 9))
    with pytest.raises(SocketBlockedError):
        socket.getaddrinfo("llmasos.invalid", 443)
