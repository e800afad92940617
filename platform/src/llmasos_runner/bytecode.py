"""Compiles an environment's Python sources to bytecode, in a process of its own.

The sources are a stranger's, and a small one can make the compiler take all memory, so this process can read nothing
but them and write nothing but one descriptor. For each source, in the order of `python_sources`, it writes four bytes
with the length of the bytecode and then the bytecode (PEP 552: hash-based and unchecked, since an environment is
read-only); the length is 0 for a source that does not compile. It names no file: the host decides what goes where.
"""

from __future__ import annotations

import importlib.util
import marshal
import os
import resource
import warnings
from pathlib import Path

from llmasos_runner.protocol import LENGTH, BytecodeTask, python_sources

_UNCHECKED_HASH = (1).to_bytes(4, "little")


def limit_itself(task: BytecodeTask) -> None:
    """Limit this process for good."""
    for kind, value in (
        (resource.RLIMIT_CPU, task["cpu_seconds"]),
        (resource.RLIMIT_AS, task["memory_bytes"]),
        (resource.RLIMIT_FSIZE, task["output_bytes"]),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(kind, (value, value))


def compile_all(task: BytecodeTask) -> None:
    """Compile and write, until all is done or a limit is met."""
    warnings.simplefilter("ignore")
    folder, final = Path(task["folder"]), task["final"]
    with open(task["output_fd"], "wb", closefd=False) as output:
        for source in python_sources(folder):
            bytecode = _bytecode(source, os.path.join(final, source.relative_to(folder)))  # noqa: PTH118 -- a name only
            output.write(LENGTH.pack(len(bytecode)) + bytecode)
            output.flush()


def _bytecode(source: Path, name: str) -> bytes:
    try:
        text = source.read_bytes()
        code = compile(text, name, "exec", dont_inherit=True)
        return importlib.util.MAGIC_NUMBER + _UNCHECKED_HASH + importlib.util.source_hash(text) + marshal.dumps(code)
    except (SyntaxError, ValueError, MemoryError, RecursionError, OverflowError, OSError):
        return b""
