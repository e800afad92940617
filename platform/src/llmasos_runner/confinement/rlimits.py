"""Resource limits: memory, threads, descriptors, files, core dumps."""

from __future__ import annotations

import os
import resource
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from llmasos_runner.confinement.kernel import bound_memory_arenas

# A thread of glibc's allocator may reserve 64 MiB of addresses; libraries and their read-only pages lie beside it.
_ADDRESSES_BESIDE_DATA: Final = 2 << 30


@dataclass(frozen=True)
class Footprint:
    """What the process, and its user, hold before the limits."""

    size_bytes: int
    data_bytes: int
    tasks: int


def footprint(*, own_user: bool) -> Footprint:
    """Read it from `/proc`, which a private root no longer has.

    Args:
        own_user: Whether nothing but this process runs as the user that it will be.
    """
    fields = Path("/proc/self/statm").read_text().split()
    page = resource.getpagesize()
    return Footprint(int(fields[0]) * page, int(fields[5]) * page, 0 if own_user else _tasks_of_this_user())


def restrict(
    before: Footprint,
    *,
    memory_bytes: int | None,
    address_limit: bool,
    threads: int,
    open_files: int,
    file_bytes: int,
    cpu_seconds: int | None,
) -> None:
    """Set hard limits, which a process cannot raise again.

    Args:
        before: What is held already.
        memory_bytes: What the process may hold above that; None: no limit of the kernel's.
        address_limit: Whether addresses are bounded too. A component runner reserves gigabytes of them unused.
        threads: The most it may have.
        open_files: The most descriptors.
        file_bytes: The most a written file may have.
        cpu_seconds: Of compute until the process is ended; None: no limit.
    """
    bound_memory_arenas(2)
    if memory_bytes is not None:
        _set(resource.RLIMIT_DATA, before.data_bytes + memory_bytes)
        if address_limit:
            _set(resource.RLIMIT_AS, before.size_bytes + memory_bytes + _ADDRESSES_BESIDE_DATA)
    _set(resource.RLIMIT_NPROC, before.tasks + threads)
    _set(resource.RLIMIT_NOFILE, open_files)
    _set(resource.RLIMIT_FSIZE, file_bytes)
    _set(resource.RLIMIT_CORE, 0)
    _set(resource.RLIMIT_MEMLOCK, 0)
    _set(resource.RLIMIT_MSGQUEUE, 0)
    _set(resource.RLIMIT_SIGPENDING, 64)
    if cpu_seconds is not None:
        _set(resource.RLIMIT_CPU, cpu_seconds)


def _set(limit: int, value: int) -> None:
    _, hard = resource.getrlimit(limit)
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    resource.setrlimit(limit, (value, value))


def _tasks_of_this_user() -> int:
    user = os.getuid()
    count = 0
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdecimal() and entry.stat().st_uid == user:
                count += len(list((entry / "task").iterdir()))
        except OSError:  # it ended, or is not ours to look at
            continue
    return count
