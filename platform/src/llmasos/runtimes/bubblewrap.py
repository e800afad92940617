"""Bubblewrap: a second confinement of every runner, if an operator asks for it by `bubblewrap = "on"`.

`bwrap` starts the runner in new namespaces, under a root folder that holds only what the runner reads, before the
runner's first line. Inside, the runner confines itself as it does without bubblewrap, so that each covers
a hole in the other.

Two processes of `bwrap` stay: the one that the host started, and the first of the new process namespace, which starts
the runner. When either is killed, the system ends the others with it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

from llmasos.errors import CannotConfine
from llmasos.i18n import Message, _, verbatim
from llmasos_runner.profiles import app_users, parse, readable

MECHANISM: Final = "bubblewrap"

_NAMESPACES: Final = ("--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try")
# What root's runner needs until it has made its own namespaces and root folder, become its app's user and emptied its
# bounding set. A user namespace would hold only root, and no app's user.
_CAPABILITIES: Final = ("CAP_SYS_ADMIN", "CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP")
_TRIAL_SECONDS: Final = 30


def arguments(read: Iterable[str], environment: Mapping[str, str], *, as_root: bool) -> list[str]:
    """Return the arguments of bwrap(1) 0.8 for a runner.

    Args:
        read: Files and folders that it sees, read only, under these names.
        environment: All its variables.
        as_root: Whether it starts as root, to become another user.
    """
    rights = [word for name in _CAPABILITIES for word in ("--cap-add", name)] if as_root else ["--unshare-user"]
    binds = [word for path in _outermost(read) for word in ("--ro-bind", path, path)]
    variables = [word for name, value in environment.items() for word in ("--setenv", name, value)]
    return [
        *_NAMESPACES, "--cap-drop", "ALL", *rights,
        "--die-with-parent", "--new-session", "--clearenv", *variables,
        # The runner counts its threads and memory there, and then mounts its own root folder over it.
        "--proc", "/proc",
        "--dev-bind", os.devnull, os.devnull,
        *binds, "--remount-ro", "/", "--chdir", "/",
    ]  # fmt: skip


def prefix(interpreter: str, profile: Mapping[str, Any], environment: Mapping[str, str]) -> list[str]:
    """Return what precedes a runner's command to start it behind bubblewrap.

    Args:
        interpreter: The path of its interpreter.
        profile: The fields of its `profiles.Profile`; `read` includes its own modules and script.
        environment: All its variables.

    Raises:
        CannotConfine: bubblewrap is not installed, or does not work here.
    """
    program = shutil.which("bwrap")
    if program is None:
        raise _unusable(_("`bwrap` is not found"))
    _try(program, interpreter, tuple(environment.items()))
    return [program, *_arguments(interpreter, profile, environment), "--"]


def runner_behind(monitor: int) -> int:
    """Return the process id of the runner behind a started `bwrap`: the last of the line, since it starts none itself.

    Raises:
        ProcessLookupError: It has ended.
    """
    pid = monitor
    try:
        # In each process, only the first thread starts others.
        while children := Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            pid = int(children[0])
    except OSError:
        raise ProcessLookupError from None
    if pid == monitor:
        raise ProcessLookupError
    return pid


@cache
def _try(program: str, interpreter: str, environment: tuple[tuple[str, str], ...]) -> None:
    """Start the interpreter once, which takes about 20 ms. A failure is not cached: an operator may mend it."""
    command = [program, *_arguments(interpreter, {"profile": "component"}, dict(environment)), "--", interpreter]
    try:
        done = subprocess.run(
            [*command, "-I", "-S", "-c", ""], capture_output=True, timeout=_TRIAL_SECONDS, check=False
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise _unusable(_("its trial failed ({error})", error=error)) from error
    if done.returncode != 0:
        said = " ".join(done.stderr.decode(errors="replace").split())[-300:] or f"exit code {done.returncode}"
        raise _unusable(verbatim(said))
    if not Path(f"/proc/self/task/{os.getpid()}/children").exists():
        # Without it, a runner's compute and memory cannot be measured.
        raise _unusable(
            _("the kernel does not list a process's children (CONFIG_PROC_CHILDREN)"),
        )


def _unusable(why: Message) -> CannotConfine:
    return CannotConfine(
        _(
            "No app is started: the setting bubblewrap is on, and it cannot be used here: {why}. Install "
            'bubblewrap and let the host\'s user make namespaces, or set bubblewrap = "off" in '
            "config.toml.",
            why=why,
        ),
    )


def _arguments(interpreter: str, profile: Mapping[str, Any], environment: Mapping[str, str]) -> list[str]:
    read = (*readable(parse(profile)), *_interpreter_files(interpreter, environment))
    return arguments(read, environment, as_root=app_users() is not None)


def _interpreter_files(interpreter: str, environment: Mapping[str, str]) -> list[str]:
    """The interpreter and its shared libraries, which are opened before the runner's first line."""
    libraries = [str(Path(sys.base_prefix, name)) for name in {"lib", sys.platlibdir}]
    searched = environment.get("LD_LIBRARY_PATH", "").split(":")
    named = [interpreter, *libraries, *(folder for folder in searched if Path(folder).is_absolute())]
    return [name for path in named if Path(path).exists() for name in (path, os.path.realpath(path))]


def _outermost(paths: Iterable[str]) -> list[str]:
    """The paths that lie in none of the others."""
    kept: list[str] = []
    for path in sorted(set(paths), key=lambda path: (len(Path(path).parts), path)):
        if not any(Path(path).is_relative_to(outer) for outer in kept):
            kept.append(path)
    return kept
