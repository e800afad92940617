"""seccomp: a list of the system calls that stay, with the arguments that they may have.

A classic BPF program, as in the kernel's userspace-api/seccomp_filter.rst. It is built here rather than by
libseccomp because a runner has the standard library alone. Whatever is not on the list returns EPERM; calls that a
C library tries first and can do without return ENOSYS. A call by another architecture's gate (`int 0x80`, x32) kills
the process: its numbers mean other calls.
"""

from __future__ import annotations

import ctypes
import errno
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from llmasos_runner.confinement.kernel import ConfinementMissing, audit_architecture, calls, syscall

_ALLOW: Final = 0x7FFF0000
_KILL_PROCESS: Final = 0x80000000
_ERRNO: Final = 0x00050000
_SET_MODE_FILTER: Final = 1
_GET_ACTION_AVAILABLE: Final = 2
_TSYNC: Final = 1
# Calls of x32 carry this bit; they would pass for calls of x86_64.
_X32_BIT: Final = 0x40000000

_LOAD, _AND, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x54, 0x15, 0x35, 0x06
_OFFSET_NUMBER, _OFFSET_ARCHITECTURE, _OFFSET_ARGUMENTS = 0, 4, 16

Instruction: TypeAlias = tuple[int, int, int, int]


@dataclass(frozen=True)
class Argument:
    """That an argument, masked, is a value; or, `wide`, that all 64 bits of it are, as for a pointer."""

    index: int
    value: int
    mask: int = 0xFFFFFFFF
    wide: bool = False


# Ways in which a call may be made: any of them, each being all of its arguments. None: however it is made.
Rule: TypeAlias = "Sequence[Sequence[Argument]] | None"


def program(rules: Mapping[str, Rule], absent: Sequence[str] = ()) -> bytes:
    """The filter as an array of `struct sock_filter`.

    Args:
        rules: The calls that stay, by name. A name that this CPU does not have is left out.
        absent: Calls that return ENOSYS instead of EPERM.
    """
    numbers = calls()
    code: list[Instruction] = [
        (_LOAD, 0, 0, _OFFSET_ARCHITECTURE),
        (_EQUAL, 1, 0, audit_architecture()),
        (_RETURN, 0, 0, _KILL_PROCESS),
        (_LOAD, 0, 0, _OFFSET_NUMBER),
        (_AT_LEAST, 0, 1, _X32_BIT),
        (_RETURN, 0, 0, _KILL_PROCESS),
    ]
    # The few with arguments first: the kernel keeps a bitmap of those that are always allowed.
    for name, rule in sorted(rules.items(), key=lambda item: item[1] is None):
        if name in numbers:
            body = [(_RETURN, 0, 0, _ALLOW)] if rule is None else _conditions(rule)
            code += [(_EQUAL, 0, len(body), numbers[name]), *body]
    for name in absent:
        if name in numbers:
            code += [(_EQUAL, 0, 1, numbers[name]), (_RETURN, 0, 0, _ERRNO | errno.ENOSYS)]
    code.append((_RETURN, 0, 0, _ERRNO | errno.EPERM))
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in code)


def _conditions(rule: Sequence[Sequence[Argument]]) -> list[Instruction]:
    code: list[Instruction] = []
    for way in rule:
        checks = [check for argument in way for check in _check(argument)]
        # From each comparison that fails, over the rest of this way and its "allow", to the next way.
        length = 1 + sum(len(check) for check in checks)
        position = 0
        for check in checks:
            position += len(check)
            code += [*check[:-1], (_EQUAL, 0, length - position, check[-1][3])]
        code.append((_RETURN, 0, 0, _ALLOW))
    return [*code, (_RETURN, 0, 0, _ERRNO | errno.EPERM)]


def _check(argument: Argument) -> list[list[Instruction]]:
    halves = [(_OFFSET_ARGUMENTS + 8 * argument.index, 0)]
    if argument.wide:
        halves.append((_OFFSET_ARGUMENTS + 8 * argument.index + 4, 32))
    checks: list[list[Instruction]] = []
    for offset, shift in halves:
        mask = 0xFFFFFFFF if argument.wide else argument.mask
        load: list[Instruction] = [(_LOAD, 0, 0, offset)]
        if mask != 0xFFFFFFFF:
            load.append((_AND, 0, 0, mask))
        checks.append([*load, (_EQUAL, 0, 0, (argument.value >> shift) & 0xFFFFFFFF)])
    return checks


def supported() -> bool:
    """Whether the kernel has filters that can kill a process (Linux 4.14)."""
    action = ctypes.c_uint32(_KILL_PROCESS)
    try:
        syscall(calls()["seccomp"], _GET_ACTION_AVAILABLE, 0, ctypes.byref(action))
    except OSError:
        return False
    return True


def install(filter_bytes: bytes) -> None:
    """Put the filter on every thread of this process. It needs no_new_privs, and cannot be undone.

    Raises:
        ConfinementMissing: The kernel refuses.
    """
    buffer = ctypes.create_string_buffer(filter_bytes, len(filter_bytes))
    header = ctypes.create_string_buffer(struct.pack("@HP", len(filter_bytes) // 8, ctypes.addressof(buffer)))
    try:
        syscall(calls()["seccomp"], _SET_MODE_FILTER, _TSYNC, ctypes.byref(header))
    except OSError as error:
        raise ConfinementMissing(f"the kernel takes no seccomp filter ({error.strerror})") from error
