"""Runs the programs that build an environment, confined and under limits, and ends them whatever happens."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from llmasos.errors import Unavailable
from llmasos.i18n import _
from llmasos.runtimes.process import MAIN
from llmasos_runner.protocol import BuildLimits

# A large scientific stack over a slow line; what waits longer hangs.
WALL_SECONDS: Final = 1800.0
_CPU_SECONDS: Final = 600
_MEMORY_BYTES: Final = 2 << 30
_WATCH_SECONDS: Final = 0.05
_OUTPUT_BYTES: Final = 64 << 10

# Programs and shared libraries of the system, and what says which servers, names and certificates there are.
_PROGRAMS: Final = ("/lib", "/lib64", "/bin", "/usr", "/opt", "/etc/ld.so.cache", "/nix/store")
_SYSTEM: Final = (
    "/proc", "/sys/devices/system/cpu", "/sys/fs/cgroup", "/run/systemd/resolve", "/dev/urandom", "/etc/uv",
    *(f"/etc/{name}" for name in (
        "ssl", "pki", "ca-certificates", "resolv.conf", "hosts", "host.conf", "nsswitch.conf", "gai.conf", "services",
        "passwd", "group", "os-release", "localtime", "debian_version", "lsb-release",
    )),
)  # fmt: skip


class WroteTooMuch(Exception):
    """A program wrote more than it may, and was killed."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a program ended."""

    code: int
    output: bytes
    errors: bytes


def base_python() -> str:
    """Return the interpreter that runners are started with: the one beneath a virtual environment."""
    return getattr(sys, "_base_executable", None) or sys.executable


def our_program(name: str) -> list[str]:
    """The command of a program of the runner's package."""
    return [base_python(), "-I", "-S", str(MAIN.with_name(name))]


async def build_step(
    command: Sequence[str],
    folder: Path,
    *,
    max_bytes: int,
    task: Mapping[str, object] | None = None,
    read: Sequence[str] = (),
    write: Sequence[Path] = (),
    network: bool = False,
    environment: Mapping[str, str] | None = None,
) -> Ended:
    """Run a program that can write nothing outside its folders, and read nothing of its user.

    Args:
        command: Its path and arguments.
        folder: Where it works, writes, and has its temporary files.
        max_bytes: It is killed when it wrote more than this, to all files together.
        task: JSON on its standard input.
        read: Files and folders that it reads besides those of the system.
        write: More folders in which it writes.
        network: Whether it may reach the network.
        environment: Its variables.

    Raises:
        WroteTooMuch: It wrote more than `max_bytes`.
        Unavailable: It cannot be started, or took too long.
    """
    limits: BuildLimits = {
        "read": [*_SYSTEM, *read], "run": [*_PROGRAMS, sys.base_prefix, str(MAIN.parent), *_program_files(command[0])],
        "write": [str(folder), *map(str, write)], "network": network,
        "memory_bytes": _MEMORY_BYTES, "cpu_seconds": _CPU_SECONDS, "file_bytes": max_bytes,
    }  # fmt: skip
    variables = {"LANG": "C.UTF-8", **(environment or {}), "TMPDIR": str(folder)}
    if "LD_LIBRARY_PATH" in os.environ:  # for an interpreter that was built as a shared library in an unusual place
        variables["LD_LIBRARY_PATH"] = os.environ["LD_LIBRARY_PATH"]
    try:
        child = await asyncio.create_subprocess_exec(
            *our_program("launch.py"), json.dumps(limits), *command, cwd=folder, env=variables, start_new_session=True,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
    except OSError as error:
        raise Unavailable(_("The app's packages cannot be installed: {error}.", error=error)) from error
    watch = asyncio.create_task(_kill_if_it_writes_too_much(child, max_bytes))
    try:
        given = b"" if task is None else json.dumps(task).encode()
        output, errors = await asyncio.wait_for(child.communicate(given), WALL_SECONDS)
    except TimeoutError:
        raise Unavailable(
            _("The app's packages took longer than {seconds:.0f} seconds to install.", seconds=WALL_SECONDS)
        ) from None
    finally:
        _kill(child)
        await child.wait()
        watch.cancel()
        await asyncio.wait({watch})
    if not watch.cancelled() and child.returncode != 0:
        raise WroteTooMuch
    return Ended(child.returncode or 0, output[:_OUTPUT_BYTES], errors[:_OUTPUT_BYTES])


def _program_files(program: str) -> list[str]:
    """Where a program is; where it is a script that starts another, as pyenv's are, what lies around it too."""
    path = Path(program)
    with path.open("rb") as file:
        is_script = file.read(2) == b"#!"
    real = Path(os.path.realpath(program))
    return [str(path), str(real), *([str(path.parent.parent)] if is_script else [])]


def _kill(child: asyncio.subprocess.Process) -> None:
    if child.returncode is None:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)  # what it started is in its session


async def _kill_if_it_writes_too_much(child: asyncio.subprocess.Process, max_bytes: int) -> None:
    while _written_bytes(child.pid) <= max_bytes:  # noqa: ASYNC110 -- another process sets no event
        await asyncio.sleep(_WATCH_SECONDS)
    _kill(child)


def _written_bytes(pid: int) -> int:
    """What a process wrote to files and sockets; 0 if it has ended, or the system keeps no account of it."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/io").read_text().splitlines():
            if line.startswith("wchar:"):
                return int(line.split()[1])
    return 0
