"""What each kind of runner needs, and why they differ.

- `native`: app code is machine code, so only the operating system confines it. Memory, addresses and threads are
  bounded; what was written is never run, and what runs came from a file that the host installed.
- `component`: WebAssembly confines each guest and bounds its memory; this is a second line. wasmtime maps a
  compiled file and then makes its pages executable, so `mprotect` may do that to pages that are not writable; it
  reserves 4 GiB of addresses a guest, so addresses are not bounded; it serves hundreds of guests, each on a thread.
- `compile`: it reads one untrusted file and its work grows with it, so compute, memory and the size of what it writes
  are bounded, and it may write beneath the folders named in `write`. It maps what it compiled, as `component` does.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

_MIB: Final = 1 << 20

# Shared libraries of the system for wheels' machine code, and the time zones. No configuration, no devices.
_SYSTEM: Final = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache")
_ZONES: Final = ("/etc/localtime", "/usr/share/zoneinfo")


# systemd's table of users leaves 0x70000000 to 0x7ffdffff free.
_MANY_USERS: Final = (0x70000000, 0x0FFD0000)
# In a container with 65,536 users: those that systemd gives to services while they run.
FEW_USERS: Final = (61184, 4336)
_CAP_SETUID: Final = 1 << 7


def app_users() -> tuple[int, int] | None:
    """The first and the number of the users that this process can give to apps; None if it can become no other user.

    Root can, but not the root of a user namespace that maps only itself, as `unshare -U -r` and some containers make.
    """
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    if os.getuid() != 0 or not int(status["CapEff"], 16) & _CAP_SETUID:
        return None
    return next((users for users in (_MANY_USERS, FEW_USERS) if _are_mapped(*users)), None)


def _are_mapped(start: int, count: int) -> bool:
    for line in Path("/proc/self/uid_map").read_text().splitlines():
        inside, _, length = (int(word) for word in line.split())
        if inside <= start and start + count <= inside + length:
            return True
    return False


def is_root_outside() -> bool:
    """Whether this process is root in the user namespace around its own, as far as can be seen from inside."""
    for line in Path("/proc/self/uid_map").read_text().splitlines():
        inside, outside, _ = (int(word) for word in line.split())
        if inside == os.getuid():
            return outside == 0
    return os.getuid() == 0


@dataclass(frozen=True)
class Profile:
    """How far a runner is confined. `confine.apply` receives these fields as a dict, since they arrive in a frame.

    Args:
        profile: The kind.
        identity: What a user is derived from, where the host is root: the installation, or the runner's own name.
        read: Folders and files that stay readable, besides the standard library and the system's shared libraries.
        write: Folders in which files may be made; empty for everything but `compile`.
        keep_fds: Descriptors that stay open besides 0, 1 and 2: the socket.
        memory_bytes: What the process may hold above what it holds now.
        threads: The most it may have.
        open_files: The most descriptors.
        file_bytes: The most bytes a file may have that it writes.
        cpu_seconds: Of compute, then the process is ended.
        namespaces: Whether to use them if the kernel allows.
    """

    profile: str
    identity: str = ""
    read: tuple[str, ...] = ()
    write: tuple[str, ...] = ()
    keep_fds: tuple[int, ...] = ()
    memory_bytes: int | None = None
    threads: int = 64
    open_files: int = 128
    file_bytes: int = 0
    cpu_seconds: int | None = None
    namespaces: bool = True

    @property
    def runtime_code(self) -> bool:
        """Whether memory may be made executable."""
        return self.profile != "native"

    @property
    def bounds_addresses(self) -> bool:
        """Whether addresses are bounded as memory is."""
        return self.profile == "native"

    @property
    def needs_own_user(self) -> bool:
        """Whether root's runner must become another user: nothing else limits root's number of threads."""
        return self.profile == "native"


_DEFAULTS: Final[Mapping[str, Mapping[str, Any]]] = {
    # numpy and pydantic together hold 60 MiB before an app's first line.
    "native": {"memory_bytes": 256 * _MIB},
    # 512 guests at once is the host's default; each is one thread.
    "component": {"threads": 1100, "open_files": 256},
    # Compiling a Python component needs 6 s of compute and 600 MiB, and produces 35 MB.
    "compile": {"memory_bytes": 3072 * _MIB, "cpu_seconds": 300, "file_bytes": 512 * _MIB, "threads": 256},
}


def parse(fields: Mapping[str, Any]) -> Profile:
    """Make a profile from the fields of a frame, with the kind's defaults for the others.

    Raises:
        ValueError: The kind or a field is unknown.
    """
    kind = fields.get("profile")
    if not isinstance(kind, str) or kind not in _DEFAULTS:
        raise ValueError(f"there is no profile {kind!r}; there are {', '.join(_DEFAULTS)}")
    values: dict[str, Any] = {**_DEFAULTS[kind], **fields}
    if unknown := values.keys() - Profile.__dataclass_fields__.keys():
        raise ValueError(f"a profile has no field {min(unknown)!r}")
    for name in ("read", "write", "keep_fds"):
        values[name] = tuple(values.get(name, ()))
    return Profile(**values)


def readable(profile: Profile) -> tuple[str, ...]:
    """Every path that stays readable and is there, the outer ones first."""
    library = str(Path(os.__file__).parent)
    named = (*_SYSTEM, *(_ZONES if profile.profile == "native" else ()), library, *profile.read)
    # A path that leads through links is opened by both of its names.
    both = {name for path in named for name in (path, os.path.realpath(path)) if Path(path).exists()}
    return tuple(sorted(both, key=lambda path: (len(Path(path).parts), path)))
