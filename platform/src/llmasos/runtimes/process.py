"""Starts runner processes, and reads what they print.

A runner is the base interpreter with nothing but the standard library, a clean environment, and one end of a stream
socket. What it prints beside its protocol is kept up to a limit, and told when it dies.
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

import llmasos_runner
from llmasos.errors import RunnerDied, Unavailable
from llmasos.runtimes.bubblewrap import prefix, runner_behind
from llmasos_runner.protocol import Start, encode

# Enough for a traceback and what led to it.
_PRINTED_BYTES: Final = 16 << 10
_READ_BYTES: Final = 1 << 16
_END_SECONDS: Final = 2.0
_SIGNALS: Final = frozenset(signal.Signals)

MAIN: Final = Path(llmasos_runner.__file__).with_name("main.py")


@cache
def search_path() -> tuple[str, ...]:
    """Where a runner finds this package, the SDK and the engine: the folders alone, so that no `.pth` file counts."""
    folders: list[str] = []
    for package in ("llmasos_runner", "llmasos_sdk", "wasmtime"):
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:
            raise Unavailable(
                f"The package {package} is not installed: install llmasos again.",
                zh=f"没有安装软件包 {package}：请重新安装 llmasos。",
            )
        folder = str(Path(spec.origin).parent.parent)
        if folder not in folders:
            folders.append(folder)
    return tuple(folders)


@dataclass(slots=True)
class Process:
    """A started runner."""

    child: asyncio.subprocess.Process
    connection: socket.socket
    printed: bytearray
    reading: asyncio.Task[None]
    pid: int
    """The runner's process id; behind bubblewrap, that of `bwrap` until `find_runner`."""
    bubblewrap: bool = False

    def find_runner(self) -> None:
        """Learn which process the runner is, once it has spoken: its compute and memory are measured by that.

        Raises:
            RunnerDied: It has ended.
        """
        if self.bubblewrap:
            try:
                self.pid = runner_behind(self.child.pid)
            except ProcessLookupError:
                raise RunnerDied("A runner died at its start.", zh="运行器在启动时退出。") from None

    def kill(self) -> None:
        """End it now."""
        with suppress(ProcessLookupError):
            self.child.kill()

    async def ended(self, within_seconds: float) -> str:
        """Wait for its end, or kill it, and say how it ended, with its last words."""
        try:
            code = await asyncio.wait_for(self.child.wait(), within_seconds)
        except TimeoutError:
            self.kill()
            code = await self.child.wait()
        await self.reading
        if self.bubblewrap and code - 128 in _SIGNALS:  # as bwrap tells what ended the runner
            code = 128 - code
        how = f"exit code {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"
        lines = [line for line in self.printed.decode(errors="replace").splitlines() if line.strip()]
        return f"{how}; it printed last: {lines[-1].strip()[:300]}" if lines else how

    async def close(self) -> None:
        """Let it end by itself, since its engine must not be torn out of a running guest; then kill it."""
        await self.ended(_END_SECONDS)


async def start(
    message: Start, *, script: Path = MAIN, descriptors: Sequence[int] = (), bubblewrap: bool = False
) -> Process:
    """Start a runner and send it its first frame.

    Args:
        message: What it is for.
        script: What it runs; another than `main.py` only in tests.
        descriptors: Open descriptors that it inherits beside its socket.
        bubblewrap: Whether it is started behind bubblewrap.

    Raises:
        CannotConfine: It should be behind bubblewrap, which cannot be used here.
        Unavailable: No process can be started.
    """
    before = await asyncio.to_thread(_before, message, script) if bubblewrap else []
    ours, theirs = socket.socketpair()
    try:
        child = await asyncio.create_subprocess_exec(
            *before, _interpreter(), "-I", "-S", str(script), str(theirs.fileno()),
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
            pass_fds=(theirs.fileno(), *descriptors), env=environment(), cwd="/",
        )  # fmt: skip
    except OSError as error:
        ours.close()
        raise Unavailable(f"A runner cannot be started: {error}.", zh=f"无法启动运行器：{error}。") from error
    finally:
        theirs.close()
    ours.setblocking(True)
    with suppress(OSError):  # it died already, which whoever waits for its answer sees
        ours.sendall(encode(message))
    printed = bytearray()
    reading = asyncio.create_task(_keep_end(child.stdout, printed))
    return Process(child, ours, printed, reading, child.pid, bubblewrap)


def _before(message: Start, script: Path) -> list[str]:
    confine = message["confine"]
    read = [*confine.get("read", ()), *message["search_path"], str(script)]
    return prefix(_interpreter(), {**confine, "read": read}, environment())


async def _keep_end(stream: asyncio.StreamReader | None, printed: bytearray) -> None:
    while stream is not None and (data := await stream.read(_READ_BYTES)):
        printed += data
        del printed[:-_PRINTED_BYTES]


def _interpreter() -> str:
    # Not the virtual environment's: what it would add to the path is not a runner's to see.
    base: str = getattr(sys, "_base_executable", "") or sys.executable
    return base


def environment() -> dict[str, str]:
    """All the variables that a runner is started with."""
    # Where an interpreter is built as a shared library in an unusual place, the loader needs to be told.
    kept = {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}
    return {"LANG": "C.UTF-8", **kept}
