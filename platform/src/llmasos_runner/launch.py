"""Limits and confines itself, then becomes a program that builds something: `python -I -S launch.py LIMITS PROGRAM …`.

LIMITS is the JSON of `protocol.BuildLimits`. What it sets survives the program's start, and holds for every process
that the program starts: Landlock for files, a seccomp filter, resource limits, no capabilities, and the system kills
the program with its host. The programs are ours or the operator's (`uv`, `fetch.py`, `wheels.py`), but what they read
is a stranger's. Where the kernel has no Landlock or no seccomp, the rest holds.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from llmasos_runner.confinement.seccomp import Rule
    from llmasos_runner.protocol import BuildLimits

# Calls that no build needs: other processes, mounts and namespaces, the kernel's keys, modules, clocks and programs.
_REFUSED: Final = """
    ptrace process_vm_readv process_vm_writev process_madvise process_mrelease kcmp pidfd_open pidfd_getfd
    pidfd_send_signal mount umount2 pivot_root chroot open_tree move_mount fsopen fsconfig fsmount fspick mount_setattr
    unshare setns bpf perf_event_open userfaultfd memfd_secret add_key request_key keyctl
    io_uring_setup io_uring_enter io_uring_register init_module finit_module create_module delete_module
    kexec_load kexec_file_load reboot swapon swapoff settimeofday clock_settime clock_adjtime adjtimex
    sethostname setdomainname iopl ioperm acct quotactl quotactl_fd syslog nfsservctl uselib personality
    open_by_handle_at name_to_handle_at fanotify_init fanotify_mark mknod mknodat lookup_dcookie vhangup modify_ldt
"""
_NEW_NAMESPACES: Final = 0x7E020000  # CLONE_NEW*, the flags of clone(2)
_AF_INET, _AF_INET6, _AF_NETLINK = 2, 10, 16  # the last asks which addresses this machine has


def main() -> None:
    """Confine this process and start the program."""
    # Last, so that nothing there can replace a module of the standard library.
    sys.path.append(str(Path(__file__).parent.parent))
    limits: BuildLimits = json.loads(sys.argv[1])
    program = sys.argv[2:]
    os.umask(0o022)
    _limit(limits)
    _confine(limits)
    os.execve(program[0], program, os.environ)  # noqa: S606 -- the host named it


def _limit(limits: BuildLimits) -> None:
    for kind, value in (
        (resource.RLIMIT_CPU, limits["cpu_seconds"]),
        (resource.RLIMIT_DATA, limits["memory_bytes"]),
        (resource.RLIMIT_FSIZE, limits["file_bytes"]),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(kind)
        limit = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (limit, limit))


def _confine(limits: BuildLimits) -> None:
    from llmasos_runner.confinement import ConfinementMissing, landlock, privileges, seccomp  # noqa: PLC0415
    from llmasos_runner.confinement.kernel import die_with_parent  # noqa: PLC0415

    die_with_parent()
    with suppress(ConfinementMissing):
        privileges.drop(None)
        privileges.forbid_new_privileges()
    with suppress(ConfinementMissing):
        there = {name: [path for path in limits[name] if Path(path).exists()] for name in ("read", "run")}
        landlock.restrict(there["read"], run=there["run"], build=limits["write"], network=limits["network"])
    with suppress(ConfinementMissing):
        if seccomp.supported():
            seccomp.install(seccomp.program(_rules(network=limits["network"]), ("clone3",)))


def _rules(*, network: bool) -> dict[str, Rule]:
    from llmasos_runner.confinement.kernel import calls  # noqa: PLC0415
    from llmasos_runner.confinement.seccomp import Argument  # noqa: PLC0415

    rules: dict[str, Any] = dict.fromkeys(calls().keys() - set(_REFUSED.split()))
    families = (_AF_INET, _AF_INET6, _AF_NETLINK) if network else ()
    rules["clone"] = [[Argument(0, 0, _NEW_NAMESPACES)]]
    # A socket of the file system could lead to a program with more rights.
    rules["socket"] = [[Argument(0, family)] for family in families]
    return rules


if __name__ == "__main__":
    main()
