"""Bytecode of an environment: compiled by a confined runner, put in place by the host, which parses no guest code."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Final

from llmasos.runtimes import process
from llmasos_runner.protocol import LENGTH, BytecodeTask, Start, python_sources

# numpy, the largest package in common use, takes 15 s and 60 MiB, and makes 25 MB.
CPU_SECONDS: Final = 60
WALL_SECONDS: Final = 120.0
MEMORY_BYTES: Final = 512 << 20
OUTPUT_BYTES: Final = 256 << 20


async def compile_bytecode(folder: Path, final: Path, *, bubblewrap: bool) -> None:
    """Compile the Python sources of a folder, and put each one's bytecode beside it.

    A source that cannot be compiled within the limits has no bytecode: it is compiled at each import, under its app's
    own limits. Without confinement, nothing is compiled.

    Args:
        folder: The folder of the sources. Nothing else writes there.
        final: Their later folder; tracebacks name it.
        bubblewrap: Whether runners are started behind bubblewrap.
    """
    with tempfile.TemporaryFile() as output:
        task: BytecodeTask = {
            "folder": str(folder), "final": str(final), "output_fd": output.fileno(),
            "cpu_seconds": CPU_SECONDS, "memory_bytes": MEMORY_BYTES, "output_bytes": OUTPUT_BYTES,
        }  # fmt: skip
        search = [str(process.MAIN.parent.parent)]
        confine = {
            "profile": "compile", "read": [*search, str(folder)],
            "cpu_seconds": CPU_SECONDS, "memory_bytes": MEMORY_BYTES, "file_bytes": OUTPUT_BYTES,
        }  # fmt: skip
        message: Start = {
            "t": "start", "kind": "bytecode", "search_path": search,
            "confine": confine, "threads": 1, "bytecode": task,
        }  # fmt: skip
        runner = await process.start(message, descriptors=(output.fileno(),), bubblewrap=bubblewrap)
        try:
            await runner.ended(within_seconds=WALL_SECONDS)
        finally:
            runner.kill()
            runner.connection.close()
            await runner.ended(within_seconds=0)
        output.seek(0)
        await asyncio.to_thread(_put_in_place, folder, output)


def beside(source: Path) -> Path:
    """Where a source's bytecode is, next to it: not where this process keeps that of its own imports."""
    return source.parent / "__pycache__" / f"{source.stem}.{sys.implementation.cache_tag}.pyc"


def _put_in_place(folder: Path, output: IO[bytes]) -> None:
    for source, bytecode in zip(python_sources(folder), _parts(output), strict=False):
        target = beside(source)
        # The app may have another kind of file of that name.
        with suppress(FileExistsError, NotADirectoryError, IsADirectoryError):
            target.parent.mkdir(exist_ok=True)
            if bytecode:
                target.write_bytes(bytecode)


def _parts(output: IO[bytes]) -> Iterator[bytes]:
    """The parts that the runner wrote completely. It is not trusted, so no part may be longer than the total limit."""
    while len(header := output.read(LENGTH.size)) == LENGTH.size:
        (length,) = LENGTH.unpack(header)
        if length > OUTPUT_BYTES or len(part := output.read(length)) != length:
            return
        yield part
