"""A user of its own for each app, if the host is root and has users to give, and no capability for any runner."""

from __future__ import annotations

import ctypes
import hashlib
import os
import struct
from contextlib import suppress
from typing import Final

from llmasos_runner.confinement.kernel import (
    PR_CAP_AMBIENT,
    PR_CAP_AMBIENT_CLEAR_ALL,
    PR_CAPBSET_DROP,
    PR_SET_DUMPABLE,
    PR_SET_NO_NEW_PRIVS,
    calls,
    prctl,
    syscall,
)
from llmasos_runner.profiles import FEW_USERS, app_users

_LAST_CAPABILITY: Final = 63
_CAPABILITY_VERSION_3: Final = 0x20080522


def user_of(identity: str) -> int:
    """The user that an app runs as, of those that this user namespace has."""
    start, count = app_users() or FEW_USERS
    return start + int.from_bytes(hashlib.sha256(identity.encode()).digest()[:8], "big") % count


def forbid_new_privileges() -> None:
    """Let no program that is started from here gain rights, and no process of the same user read this one's memory."""
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    prctl(PR_SET_DUMPABLE, 0)


def drop(user: int | None) -> None:
    """Give up every capability and, for root, become `user`, with no group but its own."""
    for capability in range(_LAST_CAPABILITY + 1):
        try:
            prctl(PR_CAPBSET_DROP, capability)
        except OSError:  # past the kernel's last one, or a plain user, which has none
            break
    if user is not None:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    with suppress(OSError):
        prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    header = ctypes.create_string_buffer(struct.pack("=Ii", _CAPABILITY_VERSION_3, 0), 8)
    nothing = ctypes.create_string_buffer(24)
    syscall(calls()["capset"], ctypes.byref(header), ctypes.byref(nothing))
