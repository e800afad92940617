"""Installs and upgrades that are under way: their pages may be closed, opened again, and watched by several.

Nothing depends on what is remembered here: an install is whole or not at all whatever becomes of this process, and the
page of one that is not known any more shows the app as it is.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Coroutine
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

from llmasos.errors import LlmasosError
from llmasos.installs.service import InstallResult

logger = logging.getLogger(__name__)

# How many ended ones are remembered, for those who come back to see how it went.
REMEMBERED: Final = 200


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one ended well."""

    results: tuple[InstallResult, ...]
    notices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Preparation:
    """An install or upgrade, which prepares the app's code before it changes anything."""

    app_id: str
    version: str
    task: asyncio.Task[Outcome]

    @property
    def outcome(self) -> Outcome | None:
        """How it ended, if it ended well."""
        return self.task.result() if self.task.done() and self.failure is None else None

    @property
    def failure(self) -> LlmasosError | None:
        """Why it failed: then it changed nothing."""
        if not self.task.done():
            return None
        if self.task.cancelled():
            return LlmasosError()
        error = self.task.exception()
        return error if error is None or isinstance(error, LlmasosError) else LlmasosError()


class UnderWay:
    """Those of this process, by workspace and app."""

    def __init__(self) -> None:
        self._all: OrderedDict[tuple[str, str], Preparation] = OrderedDict()

    def begin(self, workspace: str, app_id: str, version: str, work: Coroutine[Any, Any, Outcome]) -> None:
        """Begin one, unless one of the same app is under way already."""
        known = self.find(workspace, app_id)
        if known is not None and not known.task.done():
            work.close()
            return
        task = asyncio.create_task(work)
        task.add_done_callback(_note)
        self._all.pop((workspace, app_id), None)
        self._all[workspace, app_id] = Preparation(app_id, version, task)
        for key in [key for key, each in self._all.items() if each.task.done()][:-REMEMBERED]:
            del self._all[key]

    def find(self, workspace: str, app_id: str) -> Preparation | None:
        """The last one of an app."""
        return self._all.get((workspace, app_id))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End what runs; until its last step, it has changed nothing."""
        tasks = [each.task for each in self._all.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _note(task: asyncio.Task[Outcome]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None and not isinstance(error, LlmasosError):
        logger.error("an install failed with an error nobody foresaw", exc_info=error)
