"""Landlock: which files a process may open, and that it reaches no TCP port, abstract socket or other process.

By the kernel's own documentation, userspace-api/landlock.rst, and <linux/landlock.h>. Landlock forbids what it
handles and what no rule gives back; what an older ABI does not handle stays open, so each bit is listed with the ABI
that brought it.
"""

from __future__ import annotations

import ctypes
import os
import stat
import struct
from collections.abc import Iterable
from contextlib import suppress
from typing import Final

from llmasos_runner.confinement.kernel import ConfinementMissing, calls, syscall

# Before ABI 2 a file could not be kept from being linked or moved between folders by another program's rules.
MINIMUM_ABI: Final = 2

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
MAKE_REG, REMOVE_FILE = 1 << 8, 1 << 5
_REMOVE_DIR, _MAKE_DIR, _MAKE_SYM = 1 << 4, 1 << 7, 1 << 12
_ABI_1 = (1 << 13) - 1  # execute, write, read, remove, and every kind of make
_REFER, _TRUNCATE, _IOCTL_DEVICE = 1 << 13, 1 << 14, 1 << 15  # ABI 2, 3, 5
_BIND_TCP, _CONNECT_TCP = 1 << 0, 1 << 1  # ABI 4
_ABSTRACT_UNIX_SOCKET, _SIGNAL = 1 << 0, 1 << 1  # ABI 6

_BUILD: Final = (
    READ_FILE | READ_DIR | WRITE_FILE | MAKE_REG | REMOVE_FILE | _REMOVE_DIR | _MAKE_DIR | _MAKE_SYM | _REFER
)

_CREATE_VERSION: Final = 1
_RULE_PATH_BENEATH: Final = 1


def abi() -> int:
    """Return the kernel's Landlock version; 0 if it has none."""
    try:
        return syscall(calls()["landlock_create_ruleset"], None, 0, _CREATE_VERSION)
    except OSError:
        return 0


def restrict(
    read: Iterable[str],
    write: Iterable[str] = (),
    null: str = os.devnull,
    *,
    run: Iterable[str] = (),
    build: Iterable[str] = (),
    network: bool = False,
) -> int:
    """Forbid every file but those that are named.

    It holds for the calling thread and what it starts, so it is called while there is one thread.

    Args:
        read: Files and folders that are read: no writing, no running.
        write: Folders in which files are also made and written.
        null: The null device.
        run: Files and folders that are read, and whose programs are run.
        build: Folders in which anything is made, written, moved and removed, but nothing is run.
        network: Whether TCP ports stay open.

    Returns:
        The ABI that is in force.

    Raises:
        ConfinementMissing: The kernel has no Landlock of ABI 2 or newer.
        OSError: A path is not there.
    """
    version = abi()
    if version < MINIMUM_ABI:
        raise ConfinementMissing(
            f"Landlock ABI {version} is too old, {MINIMUM_ABI} is needed (Linux 5.19, and lsm=landlock)"
        )
    truncate = _TRUNCATE if version >= 3 else 0
    ruleset = _create(version, network=network)
    try:
        for path in read:
            _allow(ruleset, path, READ_FILE | READ_DIR)
        for path in write:
            _allow(ruleset, path, READ_FILE | READ_DIR | WRITE_FILE | MAKE_REG | REMOVE_FILE | truncate)
        for path in run:
            _allow(ruleset, path, EXECUTE | READ_FILE | READ_DIR)
        for path in build:
            _allow(ruleset, path, _BUILD | truncate)
        with suppress(OSError):  # a root without devices does without
            _allow(ruleset, null, READ_FILE | WRITE_FILE)
        syscall(calls()["landlock_restrict_self"], ruleset, 0)
    finally:
        os.close(ruleset)
    return version


def _create(version: int, *, network: bool) -> int:
    files = _ABI_1 | _REFER
    files |= _TRUNCATE if version >= 3 else 0
    files |= _IOCTL_DEVICE if version >= 5 else 0
    fields = [files]
    if version >= 4:
        fields.append(0 if network else _BIND_TCP | _CONNECT_TCP)
    if version >= 6:
        fields.append(_ABSTRACT_UNIX_SOCKET | _SIGNAL)
    attributes = struct.pack(f"={len(fields)}Q", *fields)
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    return syscall(calls()["landlock_create_ruleset"], ctypes.byref(buffer), len(attributes), 0)


def _allow(ruleset: int, path: str, access: int) -> None:
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            access &= EXECUTE | WRITE_FILE | READ_FILE | _TRUNCATE
        rule = ctypes.create_string_buffer(struct.pack("=Qi", access, descriptor), 12)
        syscall(calls()["landlock_add_rule"], ruleset, _RULE_PATH_BENEATH, ctypes.byref(rule), 0)
    finally:
        os.close(descriptor)
