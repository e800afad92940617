"""The few calls of the C library that confinement uses."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from contextlib import suppress
from typing import Final

from llmasos_runner.confinement.syscalls import AARCH64, X86_64


class ConfinementMissing(Exception):
    """This system cannot confine a process as the profile asks; the message names what is missing."""


# By os.uname().machine: the calls' numbers, and AUDIT_ARCH_* of <linux/audit.h>, which the filter checks first.
ARCHITECTURES: Final = {"x86_64": (X86_64, 0xC000003E), "aarch64": (AARCH64, 0xC00000B7)}

# prctl(2), <linux/prctl.h>
_PR_SET_PDEATHSIG: Final = 1
PR_SET_DUMPABLE: Final = 4
PR_CAPBSET_DROP: Final = 24
PR_SET_NO_NEW_PRIVS: Final = 38
PR_CAP_AMBIENT: Final = 47
PR_CAP_AMBIENT_CLEAR_ALL: Final = 4

_libc: Final = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def calls() -> dict[str, int]:
    """This CPU's system call numbers.

    Raises:
        ConfinementMissing: It is not Linux, or a CPU whose calls are not known.
    """
    return _architecture()[0]


def audit_architecture() -> int:
    """The number by which the kernel names this CPU to a filter."""
    return _architecture()[1]


def _architecture() -> tuple[dict[str, int], int]:
    if sys.platform != "linux":
        raise ConfinementMissing(f"{sys.platform} has neither Landlock nor seccomp; they are Linux's")
    machine = os.uname().machine
    if machine not in ARCHITECTURES or sys.maxsize < 1 << 32:
        raise ConfinementMissing(f"the CPU {machine} has no table of system calls here (x86_64 and aarch64 have)")
    return ARCHITECTURES[machine]


def syscall(number: int, *arguments: object) -> int:
    """A system call. Whole numbers go as longs; pointers and None as ctypes passes them.

    Raises:
        OSError: It failed.
    """
    passed = [ctypes.c_long(argument) if isinstance(argument, int) else argument for argument in arguments]
    ctypes.set_errno(0)
    result: int = _libc.syscall(ctypes.c_long(number), *passed)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def prctl(option: int, *arguments: int) -> int:
    """prctl(2), with the arguments left out as zeros, as the kernel insists."""
    return syscall(calls()["prctl"], option, *(arguments + (0,) * (4 - len(arguments))))


def die_with_parent() -> None:
    """Have the system kill this process when the thread that started it ends, if the system can."""
    with suppress(ConfinementMissing, OSError):
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def mount(source: str | None, target: str, kind: str | None, flags: int, options: str | None = None) -> None:
    """mount(2)."""
    texts = [None if text is None else os.fsencode(text) for text in (source, target, kind, options)]
    syscall(calls()["mount"], texts[0], texts[1], texts[2], flags, texts[3])


def bound_memory_arenas(arenas: int) -> None:
    """Keep glibc from reserving 64 MiB of addresses for each thread; nothing to do with another C library."""
    mallopt = getattr(_libc, "mallopt", None)
    if mallopt is not None:
        mallopt(-8, arenas)  # M_ARENA_MAX of <malloc.h>


def wipe_environment() -> None:
    """Overwrite the texts of the environment that the kernel laid on the stack; forgetting them leaves them there."""
    variables = ctypes.POINTER(ctypes.c_void_p).in_dll(_libc, "environ")
    index = 0
    while variables and (address := variables[index]):
        ctypes.memset(address, 0, len(ctypes.string_at(address)))
        index += 1
