"""Shows the progress of a fetch."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager

from llmasos_server.cli.output import note, options


@contextmanager
def fetching(what: str) -> Generator[Callable[[int, int], None]]:
    """A bar on a terminal's stderr; elsewhere a line when the fetch begins; nothing with --json.

    Yields:
        A function to call with the bytes received and the bytes in all, from any thread.
    """
    quiet, begun = options().json, False

    def line(_so_far: int, _total: int) -> None:
        nonlocal begun
        if not quiet and not begun:
            note(f"{what} …")
        begun = True

    if quiet or not sys.stderr.isatty():
        yield line
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    from llmasos_server.cli.asking import console

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console()) as bar:
        task = bar.add_task(what, total=None)
        yield lambda so_far, total: bar.update(task, completed=so_far, total=total)
