"""Upgrades what the policies of workspaces let upgrade by itself, while a server runs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final

from sqlmodel import select

from llmasos.database.engine import Database
from llmasos.installs.installer import Installer
from llmasos.installs.tables import WorkspacePolicy

logger = logging.getLogger(__name__)

# A release may wait this long. Looking costs a query for a workspace that upgrades nothing by itself.
EVERY_SECONDS: Final = 3600.0


@asynccontextmanager
async def upgrading_by_policy(installer_of: Callable[[], Installer], database: Database) -> AsyncGenerator[None]:
    """Upgrade by itself what policies allow, every hour, until the block ends."""
    task = asyncio.create_task(_upgrade_hourly(installer_of, database))
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _upgrade_hourly(installer_of: Callable[[], Installer], database: Database) -> None:
    while True:
        await asyncio.sleep(EVERY_SECONDS)
        try:
            for workspace in await asyncio.to_thread(_with_policies, database):
                await installer_of().upgrade_by_policy(workspace)
        except Exception:
            logger.exception("apps could not be upgraded by themselves; retrying in an hour")


def _with_policies(database: Database) -> list[str]:
    with database.read() as session:
        return list(session.exec(select(WorkspacePolicy.workspace_id)))
