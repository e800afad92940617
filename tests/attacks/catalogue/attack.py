"""An attack: a function of a `Target` that returns evidence if it succeeds, and raises if it fails.

`driver.py` runs it in a process of its own, so it may import only the standard library, and every bomb here is
bounded: if confinement fails, the machine must survive.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from dataclasses import dataclass


@dataclass
class Target:
    """What an attack knows of the host."""

    home: str
    """A folder that belongs to the host: `secret`, `host.db`, `other/data`, a unix socket `control`."""
    victim: int
    """The pid of a process of the host's user."""
    victim_address: int
    """Where in its memory `SECRET` lies."""
    victim_descriptor: int
    """A descriptor that it holds, open on `secret`."""
    tcp_port: int
    udp_port: int
    abstract: str
    """The name of its abstract socket."""
    datagram: str
    """Its unix datagram socket's path."""
    code: str
    """A readable folder, as an app's environment is."""


SECRET = "the host's secret"

Attack = Callable[[Target], object]
ATTACKS: dict[str, Attack] = {}
NEEDS_PRIVATE_ROOT: set[str] = set()


def attack(function: Attack) -> Attack:
    """Register an attack under its function's name."""
    ATTACKS[function.__name__] = function
    return function


def attack_on_names(function: Attack) -> Attack:
    """Register an attack that only a private root prevents: it learns a name and opens nothing."""
    NEEDS_PRIVATE_ROOT.add(function.__name__)
    return attack(function)


libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]


def call(name: str, *arguments: object) -> int:
    """A system call by name; raises OSError as Python's own do."""
    from llmasos_runner.confinement.kernel import calls

    passed = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    ctypes.set_errno(0)
    result = libc.syscall(ctypes.c_long(calls()[name]), *passed)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def mapped(length: int, protection: int, flags: int, descriptor: int = -1) -> int:
    """mmap(2)."""
    address = libc.mmap(None, length, protection, flags, descriptor, 0)
    if address in (None, ctypes.c_void_p(-1).value):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return address


def succeeded(seen: object) -> object:
    """Return the evidence, which must not be empty."""
    if not seen:
        raise AssertionError("nothing was seen")
    return seen
