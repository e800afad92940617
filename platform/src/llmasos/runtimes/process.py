"""Starts runner processes, and reads what they print.

A runner is the base interpreter with nothing but the standard library, a clean environment, and one end of a stream
socket. The last part of its printed output is kept, and reported when it dies.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from typing_extensions import override

import llmasos_runner
from llmasos.errors import RunnerDied, Unavailable
from llmasos.i18n import _
from llmasos.runtimes.bubblewrap import prefix, runner_behind
from llmasos_runner.protocol import Start, encode

# Enough for a traceback and the lines before it.
_PRINTED_BYTES: Final = 16 << 10
_END_SECONDS: Final = 2.0
# The output of an ended runner is in the pipe already.
_LAST_WORDS_SECONDS: Final = 0.5
_SIGNALS: Final = frozenset(signal.Signals)

MAIN: Final = Path(llmasos_runner.__file__).with_name("main.py")


@cache
def search_path() -> tuple[str, ...]:
    """The folders where a runner finds this package, the SDK and the engine. No `.pth` file in them takes effect."""
    folders: list[str] = []
    for package in ("llmasos_runner", "llmasos_sdk", "wasmtime"):
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:
            raise Unavailable(
                _("The package {package} is not installed: install llmasos again.", package=package),
            )
        folder = str(Path(spec.origin).parent.parent)
        if folder not in folders:
            folders.append(folder)
    return tuple(folders)


class _Output(asyncio.Protocol):
    """A runner's printed output, of which the last part is kept."""

    def __init__(self) -> None:
        self.kept = bytearray()
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @override
    def data_received(self, data: bytes) -> None:
        self.kept += data
        del self.kept[:-_PRINTED_BYTES]

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        if not self.closed.done():
            self.closed.set_result(None)


@dataclass(slots=True)
class Process:
    """A started runner."""

    child: asyncio.subprocess.Process
    connection: socket.socket
    pid: int
    """The runner's process id; behind bubblewrap, that of `bwrap` until `find_runner`."""
    output: _Output
    reading: asyncio.ReadTransport
    bubblewrap: bool = False

    def find_runner(self) -> None:
        """Determine the runner's process id once it has sent a frame, to measure its compute and memory.

        Raises:
            RunnerDied: It has ended.
        """
        if self.bubblewrap:
            try:
                self.pid = runner_behind(self.child.pid)
            except ProcessLookupError:
                raise RunnerDied(_("A runner died at its start.")) from None

    def kill(self) -> None:
        """End it now."""
        with suppress(ProcessLookupError):
            self.child.kill()

    async def ended(self, within_seconds: float) -> str:
        """Wait until it has ended, or kill it, and return how it ended, with its last output. Bounded in time."""
        try:
            code = await asyncio.wait_for(self.child.wait(), within_seconds)
        except TimeoutError:
            self.kill()
            try:
                code = await asyncio.wait_for(self.child.wait(), _END_SECONDS)
            except TimeoutError:  # it is in an uninterruptible system call
                return _("it could not be killed")
        # A process that the app of a trusted runner started may keep the pipe open for as long as it likes.
        await asyncio.wait({self.output.closed}, timeout=_LAST_WORDS_SECONDS)
        self.reading.close()
        if self.bubblewrap and code - 128 in _SIGNALS:  # bwrap reports a signal that ended the runner in this way
            code = 128 - code
        how = _("exit code {code}", code=code) if code >= 0 else _("signal {name}", name=signal.Signals(-code).name)
        lines = [line for line in self.output.kept.decode(errors="replace").splitlines() if line.strip()]
        return _("{how}; it printed last: {last}", how=how, last=lines[-1].strip()[:300]) if lines else how

    async def close(self) -> None:
        """Let it end by itself, since its engine must not be torn down under a running guest; then kill it."""
        await self.ended(_END_SECONDS)


async def start(
    message: Start, *, script: Path = MAIN, descriptors: Sequence[int] = (), bubblewrap: bool = False
) -> Process:
    """Start a runner and send it its first frame.

    Args:
        message: The first frame, which states its purpose.
        script: The script that it runs; tests give another than `main.py`.
        descriptors: Open descriptors that it inherits beside its socket.
        bubblewrap: Whether to start it behind bubblewrap.

    Raises:
        CannotConfine: bubblewrap is required but cannot be used here.
        Unavailable: No process can be started.
    """
    before = await asyncio.to_thread(_before, message, script) if bubblewrap else []
    ours, theirs = socket.socketpair()
    # A pipe of our own: the one of asyncio's would make `wait` wait for any other process that holds it open.
    read_end, write_end = os.pipe()
    output = _Output()
    reading, __ = await asyncio.get_running_loop().connect_read_pipe(lambda: output, os.fdopen(read_end, "rb", 0))
    try:
        child = await asyncio.create_subprocess_exec(
            *before, _interpreter(), "-I", "-S", str(script), str(theirs.fileno()),
            stdin=asyncio.subprocess.DEVNULL, stdout=write_end, stderr=write_end,
            pass_fds=(theirs.fileno(), *descriptors), env=environment(), cwd="/",
        )  # fmt: skip
    except BaseException as error:
        ours.close()
        reading.close()
        if isinstance(error, OSError):
            raise Unavailable(_("A runner cannot be started: {error}.", error=error)) from error
        raise
    finally:
        theirs.close()
        os.close(write_end)
    # Small enough for the socket's buffer, so that sending it does not wait for the runner.
    with suppress(OSError):  # it has already died, which the wait for its reply detects
        ours.sendall(encode(message))
    return Process(child, ours, child.pid, output, reading, bubblewrap)


def _before(message: Start, script: Path) -> list[str]:
    confine = message["confine"]
    read = [*confine.get("read", ()), *message["search_path"], str(script)]
    return prefix(_interpreter(), {**confine, "read": read}, environment())


def _interpreter() -> str:
    # Not the virtual environment's interpreter, which adds paths that a runner must not see.
    base: str = getattr(sys, "_base_executable", "") or sys.executable
    return base


def environment() -> dict[str, str]:
    """A runner's environment variables."""
    # The loader needs it for an interpreter that was built as a shared library in an unusual place.
    kept = {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}
    return {"LANG": "C.UTF-8", **kept}
