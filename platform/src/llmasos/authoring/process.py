"""Runs the build tools, and summarises their errors in one line."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

from llmasos.errors import Invalid, Unavailable
from llmasos.i18n import _

# componentize-py needs 6 to 13 s on two cores; a first `npm install` over a slow connection needs minutes.
TIMEOUT_SECONDS = 600.0
_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class BuildFailed(Invalid):
    """The app does not build."""

    code = "build-failed"

    def __init__(self, message: str | None = None, *, detail: str = "") -> None:
        super().__init__(message)
        self.detail = detail
        """Everything that the tool printed."""


async def run_tool(
    command: Sequence[str | Path],
    *,
    cwd: Path,
    what: str,
    env: Mapping[str, str] | None = None,
    timeout_seconds: float = TIMEOUT_SECONDS,
) -> str:
    """Run a tool to its end, and return its output. Cancelling the task ends it with all its children.

    Args:
        command: A list, never a shell line.
        cwd: Where it runs.
        what: What it does, for the message: "componentize-py".
        env: Set besides the environment of this process.
        timeout_seconds: After which it is ended.

    Raises:
        BuildFailed: It failed, or took too long.
        Unavailable: It is not installed.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            *(str(part) for part in command),
            cwd=cwd,
            env={**os.environ, **(env or {})},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
    except FileNotFoundError:
        raise Unavailable(
            _("{what} is not installed: {command} was not found", what=what, command=command[0])
        ) from None
    try:
        async with asyncio.timeout(timeout_seconds):
            output, __ = await process.communicate()
    except TimeoutError:
        raise BuildFailed(
            _(
                "{what} took longer than {timeout_seconds:.0f} s and was ended",
                what=what,
                timeout_seconds=timeout_seconds,
            ),
        ) from None
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    text = _ANSI.sub("", output.decode(errors="replace")).replace("\r", "\n")
    if process.returncode != 0:
        raise BuildFailed(_("{what} failed: {said}", what=what, said=said(text)), detail=text)
    return text


# A line that describes the failure is preferred to the last line that is not the tool's own noise.
_ERROR_LINE = re.compile(
    r"^\s*(\w*(?:Error|Exception)\b.*|error(?:\[\w+\])?:.*|.*\bis not (?:found|exported).*)$", re.IGNORECASE
)
_NOISE = re.compile(r"^(npm warn|note:|\s*\d+:\s|Stack backtrace|Caused by:?$|Location:|\s*$)", re.IGNORECASE)


def said(text: str) -> str:
    """The line of a tool's output that describes the failure, or its last line."""
    lines = [line.strip() for line in text.splitlines() if not _NOISE.match(line)]
    errors = [line for line in lines if _ERROR_LINE.match(line)]
    found = errors[-1] if errors else lines[-1] if lines else "it said nothing"
    return found if len(found) <= 300 else found[:297] + "..."
