"""Native apps whose environments are built once for all tests of a worker."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from tests.platform.native.native_apps import Apps, Host, remove


@pytest.fixture(scope="module")
def apps() -> Iterator[Apps]:
    root = Path(tempfile.mkdtemp(prefix="llmasos-native-"))
    yield Apps(root)
    remove(root)


@pytest.fixture
async def host(apps: Apps) -> AsyncIterator[Host]:
    host = Host(apps)
    yield host
    await host.runtime.close()
