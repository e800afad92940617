"""Namespaces: a network with nothing in it, IPC of its own, and a root folder that holds only what is named.

They are used if the kernel allows them, as a second line behind the other mechanisms. The private root also lets a
runner that becomes another user read an app in a home folder that is closed to others.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from llmasos_runner.confinement.kernel import calls, mount, syscall

_NEWNS, _NEWUTS, _NEWIPC, _NEWUSER, _NEWNET = 0x20000, 0x4000000, 0x8000000, 0x10000000, 0x40000000
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_REMOUNT = 1, 2, 4, 8, 32
_MS_BIND, _MS_REC, _MS_PRIVATE = 4096, 16384, 1 << 18
_DETACH: Final = 2
_ATTR_RDONLY, _ATTR_NOSUID, _ATTR_NODEV = 1, 2, 4
_AT_RECURSIVE, _AT_FDCWD = 0x8000, -100

# The folder in which the new root is assembled: any folder that contains none of what is mounted into it.
_STAGES: Final = ("/sys", "/mnt", "/srv", "/proc")


def enter(*, as_root: bool, network: bool) -> list[str]:
    """Leave the namespaces of the host.

    Args:
        as_root: Whether the process may make them without a user namespace.
        network: Whether to leave the network too.

    Returns:
        The namespaces left; none if the system does not allow it.
    """
    flags = _NEWNS | _NEWIPC | _NEWUTS | (_NEWNET if network else 0)
    names = ["mount", "ipc", "uts", *(["net"] if network else [])]
    user, group = os.getuid(), os.getgid()
    try:
        syscall(calls()["unshare"], flags | (0 if as_root else _NEWUSER))
    except OSError:
        return []
    if not as_root:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
        names.insert(0, "user")
    mount(None, "/", None, _MS_REC | _MS_PRIVATE)
    return names


def private_root(read: Sequence[str], write: Sequence[str]) -> bool:
    """Replace `/` by a folder that holds `read`, read only, and `write`, and `/dev/null`.

    Returns:
        Whether that succeeded. If the system refuses, the root is as it was.
    """
    stage = next((s for s in _STAGES if Path(s).is_dir() and not any(_beneath(p, s) for p in (*read, *write))), None)
    if stage is None:
        return False
    try:
        mount("runner", stage, "tmpfs", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC, "size=64k,mode=0755")
    except OSError:
        return False
    try:
        _fill(stage, read, write)
        os.chdir(stage)
        syscall(calls()["pivot_root"], b".", b".")
    except OSError:
        os.chdir("/")
        syscall(calls()["umount2"], os.fsencode(stage), _DETACH)
        return False
    # The old root lies on top of the new one now; without it nothing outside has a name.
    syscall(calls()["umount2"], b".", _DETACH)
    os.chdir("/")
    mount(None, "/", None, _MS_REMOUNT | _MS_BIND | _MS_RDONLY | _MS_NOSUID | _MS_NODEV | _MS_NOEXEC)
    return True


def _beneath(path: str, folder: str) -> bool:
    return os.path.realpath(path).startswith(folder + "/") or path.startswith(folder + "/")


def _fill(stage: str, read: Sequence[str], write: Sequence[str]) -> None:
    for path in read:
        # A folder within one that is bound already is there.
        if not os.path.lexists(stage + path):
            _bind(path, stage + path)
            _protect(stage + path, _ATTR_RDONLY | _ATTR_NOSUID | _ATTR_NODEV)
    for path in write:
        _bind(path, stage + path)
        _protect(stage + path, _ATTR_NOSUID | _ATTR_NODEV)
    if Path(os.devnull).exists():
        _bind(os.devnull, stage + os.devnull)


def _bind(source: str, target: str) -> None:
    place = Path(target)
    if Path(source).is_dir():
        place.mkdir(parents=True, exist_ok=True)
    else:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.touch()
    mount(source, target, None, _MS_BIND | _MS_REC)


def _protect(target: str, attributes: int) -> None:
    """mount_setattr(2): the flags for a mount and those within it (Linux 5.12; Landlock asks for 5.19)."""
    wanted = struct.pack("=QQQQ", attributes, 0, 0, 0)
    buffer = ctypes.create_string_buffer(wanted, len(wanted))
    number = calls()["mount_setattr"]
    syscall(number, _AT_FDCWD, os.fsencode(target), _AT_RECURSIVE, ctypes.byref(buffer), len(wanted))
