"""Watches a project for changes of its source."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

from llmasos.authoring.project import NOT_SOURCE
from llmasos.authoring.tools import missing
from llmasos.errors import LlmasosError

# Editors write a file in several steps; events within this interval belong to one change.
QUIET_MS = 250


async def changes(folder: Path) -> AsyncIterator[list[Path]]:
    """The files that changed, one list a change, what tools make left out.

    Raises:
        Unavailable: watchfiles is not installed.
    """
    try:
        from watchfiles import awatch  # pyright: ignore[reportUnknownVariableType]  # noqa: PLC0415 (an authoring extra)
    except ImportError:
        raise missing("watchfiles") from None
    async for batch in awatch(folder, debounce=QUIET_MS * 4, step=QUIET_MS, recursive=True):
        paths = sorted({Path(name) for _, name in batch})
        found = [path for path in paths if _is_source(path.relative_to(folder))]
        if found:
            yield found


def _is_source(relative: Path) -> bool:
    return not any(part.startswith(".") or part in NOT_SOURCE for part in relative.parts)


async def watch(
    folder: Path,
    step: Callable[[list[Path]], Awaitable[None]],
    *,
    complain: Callable[[LlmasosError], None],
) -> None:
    """Run `step` now and after each change, until the task is cancelled. Faults are reported, and end nothing.

    Args:
        folder: The app's.
        step: Gets the files that changed; none at the start.
        complain: Shows an error.
    """
    root = folder.resolve()
    with contextlib.suppress(KeyboardInterrupt):
        await _step(step, [], complain)
        async for paths in changes(root):
            await _step(step, paths, complain)


async def _step(
    step: Callable[[list[Path]], Awaitable[None]], paths: list[Path], complain: Callable[[LlmasosError], None]
) -> None:
    try:
        await step(paths)
    except LlmasosError as error:
        complain(error)
