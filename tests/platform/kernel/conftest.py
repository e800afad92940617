"""A small host with a capability that counts."""

from collections.abc import AsyncIterator

import pytest
from tests.platform.kernel.token_capability import TokenCapability

from llmasos.database.engine import Database
from llmasos.testing import SmallHost, small_host


@pytest.fixture
async def capability() -> TokenCapability:
    return TokenCapability()


@pytest.fixture
async def host(database: Database, capability: TokenCapability) -> AsyncIterator[SmallHost]:
    async with small_host(database, capability) as host:
        yield host
