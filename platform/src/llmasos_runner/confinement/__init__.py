"""Confinement of a runner by the operating system. Linux 5.19 or newer, x86_64 or aarch64; the standard library alone.

A runner calls `apply` once, while it has one thread, after it imported its engine and before it is given app code:

    mechanisms = apply({"profile": "native", "identity": installation_id, "read": [environment], "keep_fds": [socket]})

Each mechanism closes what another leaves open:

============== =================================================== =============================================
mechanism      closes                                              leaves open
============== =================================================== =============================================
Landlock       opening, making, removing files; TCP ports; from    chmod, watching folders, a file's size, UDP,
               ABI 6 abstract sockets and signals to others        pathname sockets, limits of other processes
seccomp        every call that is not on the list: sockets,        what the list's calls do: opening files
               processes, tracing, chmod, watching, uncounted
               memory, new code, io_uring, namespaces, keys, time
limits         memory, threads, descriptors, files, core dumps     root's number of threads
namespaces     the network, IPC, and by a root folder with         nothing that the others need
               nothing else in it every name outside
own user       the host's files, processes and limits, and the     other files that all users may read
(root only)    same of other apps; root's number of threads
no_new_privs,  rights by set-uid programs; reading this process's
not dumpable   memory by another of the same user
clean start    secrets in the environment; inherited descriptors
bubblewrap     every name of a file outside, the network, IPC and  what the kernel lets any process call; to root's
(optional)     other processes, before the runner's first line     runner its set-up, until that gives up its rights
============== =================================================== =============================================

The host starts a runner behind bubblewrap if an operator switched that on: `llmasos.runtimes.bubblewrap`.

What is left: without namespaces (a kernel or container that allows none) an app can learn whether a path exists and
how large its file is. An app can use its own processor time and memory up to its limits until the host's deadline
kills the runner. It can write to its standard output and error, of which the host keeps a bounded part. It can fill
the buffers of the pairs and pipes that it makes (a few MiB, bounded by its descriptors).

It fails closed: `ConfinementMissing` says what this system lacks, and is raised before anything was changed, or by a
process that must then end. Landlock below ABI 2 or no seccomp filters: there is no confinement. Namespaces are
an addition to the others, used if they are allowed. `llmasos_runner.profiles` says what the three kinds of
runner differ in.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from llmasos_runner.confinement import landlock, namespaces, privileges, rlimits, seccomp
from llmasos_runner.confinement.kernel import ConfinementMissing, calls, die_with_parent, wipe_environment
from llmasos_runner.confinement.rules import ABSENT, rules
from llmasos_runner.profiles import Profile, app_users, is_root_outside, parse, readable

__all__ = ["ConfinementMissing", "apply"]

# Machine code in wheels starts a thread a core, each with buffers of 32 MiB; one is what an app is given.
_ENVIRONMENT: Final = {
    "LANG": "C.UTF-8",
    "HOME": "/",
    **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS"), "1"),
}


def apply(profile: Mapping[str, Any]) -> list[str]:
    """Confine this process for good.

    Args:
        profile: The fields of `profiles.Profile`; `profile` alone is required.

    Returns:
        The mechanisms that confine it, for the `ready` frame.

    Raises:
        ConfinementMissing: This system lacks what the profile needs; nothing was changed.
        ValueError: The profile is not one.
        OSError: A mechanism failed while it was set up: the process must end.
    """
    wanted = parse(profile)
    _require()
    read = readable(wanted)
    as_root = app_users() is not None
    if wanted.needs_own_user and not as_root and is_root_outside():
        raise ConfinementMissing(
            "this is root without other users to give to apps, and nothing limits root's threads; run the host as an "
            "ordinary user, or as root in a namespace with at least 65,536 users"
        )
    left = namespaces.enter(as_root=as_root, network=True) if wanted.namespaces else []
    # Not by the process id, which is the same for every runner in a process namespace of its own.
    user = privileges.user_of(wanted.identity or f"runner {os.urandom(8).hex()}") if as_root else None
    before = rlimits.footprint(own_user=user is not None or "user" in left)
    rooted = "mount" in left and namespaces.private_root(read, wanted.write)
    if user is not None:
        user = _user_that_can_read(user, (*read, *wanted.write), rooted=rooted, required=wanted.needs_own_user)
    _clean_start(wanted)
    rlimits.restrict(
        before,
        memory_bytes=wanted.memory_bytes,
        address_limit=wanted.bounds_addresses,
        threads=wanted.threads,
        open_files=wanted.open_files,
        file_bytes=wanted.file_bytes,
        cpu_seconds=wanted.cpu_seconds,
    )
    for folder in wanted.write if user is not None else ():
        os.chown(folder, user or 0, user or 0)
    privileges.drop(user)
    privileges.forbid_new_privileges()
    die_with_parent()  # again: becoming another user undoes it
    abi = landlock.restrict(read, wanted.write)
    seccomp.install(seccomp.program(rules(os.getpid(), runtime_code=wanted.runtime_code), ABSENT))
    mechanisms = [f"landlock {abi}", "seccomp", "limits", "no_new_privs", "no capabilities"]
    mechanisms += ["own user"] if user is not None else []
    mechanisms += [f"{name} namespace" for name in left]
    return [*mechanisms, *(["private root"] if rooted else [])]


def _require() -> None:
    calls()
    if (abi := landlock.abi()) < landlock.MINIMUM_ABI:
        raise ConfinementMissing(f"the kernel offers Landlock ABI {abi}; {landlock.MINIMUM_ABI} is needed (Linux 5.19)")
    if not seccomp.supported():
        raise ConfinementMissing("the kernel offers no seccomp filters (Linux 4.14)")
    if threading.active_count() > 1 or len(os.listdir("/proc/self/task")) > 1:  # noqa: PTH208 - a folder of names
        raise ConfinementMissing(
            "this process has threads already, and Landlock holds for one; confine before starting any"
        )


def _user_that_can_read(user: int, paths: tuple[str, ...], *, rooted: bool, required: bool) -> int | None:
    """`user`, or None if it could not read its own program and may stay root."""
    for path in paths:
        parents = () if rooted else Path(path).parents
        closed = next((str(p) for p in (Path(path), *parents) if not _is_open(p)), None)
        if closed and required:
            raise ConfinementMissing(f"{closed} is closed to the app's own user; run `chmod o+rX {closed}`")
        if closed:
            return None
    return user


def _is_open(path: Path) -> bool:
    needed = 0o005 if path.is_dir() else 0o004
    return path.stat().st_mode & needed == needed


def _clean_start(profile: Profile) -> None:
    keep = {0, 1, 2, *profile.keep_fds}
    start = 3
    for descriptor in sorted(keep - {0, 1, 2}):
        os.closerange(start, descriptor)
        start = descriptor + 1
    os.closerange(start, 1 << 20)
    # Neither the terminal to read from, nor to write to.
    with suppress(OSError):
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            if descriptor == 0 or os.isatty(descriptor):
                os.dup2(null, descriptor)
        os.close(null)
    wipe_environment()
    os.environ.clear()
    os.environ.update(_ENVIRONMENT)
    os.umask(0o022)  # what a compile runner writes, component runners of other users read
    with suppress(OSError):  # it leads a session already
        os.setsid()
    os.chdir("/")
