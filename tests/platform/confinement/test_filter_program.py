"""Runs the seccomp filter in an interpreter of classic BPF: no kernel is needed to know what it allows."""

import errno
import struct

import pytest

from llmasos_runner.confinement import kernel
from llmasos_runner.confinement.rules import ABSENT, rules
from llmasos_runner.confinement.seccomp import program
from llmasos_runner.confinement.syscalls import AARCH64, X86_64

ALLOW, KILL, REFUSE, NO_SUCH = 0x7FFF0000, 0x80000000, 0x50000 | errno.EPERM, 0x50000 | errno.ENOSYS
PID = 4242


def answer(code: bytes, number: int, *arguments: int, architecture: int) -> int:
    """Run the program as the kernel would."""
    data = struct.pack("=IIQ6Q", number, architecture, 0, *(arguments + (0,) * (6 - len(arguments))))
    instructions = list(struct.iter_unpack("=HBBI", code))
    accumulator, position = 0, 0
    while True:
        operation, when_true, when_false, k = instructions[position]
        position += 1
        match operation:
            case 0x20:
                (accumulator,) = struct.unpack_from("=I", data, k)
            case 0x54:
                accumulator &= k
            case 0x15:
                position += when_true if accumulator == k else when_false
            case 0x35:
                position += when_true if accumulator >= k else when_false
            case 0x06:
                return k
            case _:
                raise AssertionError(hex(operation))


class Filter:
    """A profile's filter on one CPU."""

    def __init__(self, machine: str, *, runtime_code: bool = False) -> None:
        self.numbers, self.architecture = kernel.ARCHITECTURES[machine]
        self.code = program(rules(PID, runtime_code=runtime_code), ABSENT)

    def __call__(self, name: str, *arguments: int) -> int:
        return answer(self.code, self.numbers[name], *arguments, architecture=self.architecture)


@pytest.fixture(params=["x86_64", "aarch64"])
def machine(request, monkeypatch) -> str:
    monkeypatch.setattr(kernel, "_architecture", lambda: kernel.ARCHITECTURES[request.param])
    return request.param


def test_another_architecture_s_gate_kills(machine):
    native = Filter(machine)
    other = kernel.ARCHITECTURES["aarch64" if machine == "x86_64" else "x86_64"][1]
    for architecture in (other, 0x40000003):  # i386, by int 0x80
        assert answer(native.code, native.numbers["read"], architecture=architecture) == KILL
    assert answer(native.code, 0x40000000, architecture=native.architecture) == KILL


def test_calls_without_conditions_pass_and_unknown_ones_do_not(machine):
    native = Filter(machine)
    assert native("read", 0, 0, 0) == ALLOW
    assert native("futex") == ALLOW
    assert native("clone3") == NO_SUCH
    for name in (
        "execve",
        "ptrace",
        "bpf",
        "io_uring_setup",
        "memfd_create",
        "socket",
        "sendmsg",
        "fchmodat",
        "shmget",
    ):
        assert native(name) == REFUSE, name
    assert answer(native.code, 9999, architecture=native.architecture) == REFUSE


def test_conditions_look_at_what_the_kernel_looks_at(machine):
    native = Filter(machine)
    assert native("clone", 0x3D0F00) == ALLOW
    assert native("clone", 0x7D0F00) == ALLOW
    assert native("clone", 0x3D0F00 | 0x10000000) == REFUSE  # and a user namespace
    assert native("clone", 17) == REFUSE  # fork
    assert native("sendto", 3, 1, 1, 0, 0) == ALLOW
    assert native("sendto", 3, 1, 1, 0, 1) == REFUSE
    assert native("sendto", 3, 1, 1, 0, 1 << 32) == REFUSE  # an address whose lower half is zero
    assert native("kill", PID, 15) == ALLOW
    for pid in (1, PID + 1, 0, 0xFFFFFFFF):
        assert native("kill", pid, 0) == REFUSE
    assert native("prlimit64", 0, 7, 0, 1) == ALLOW
    assert native("prlimit64", 0, 7, 1 << 40, 0) == REFUSE
    assert native("prlimit64", 1, 7, 0, 1) == REFUSE
    assert native("socketpair", 1, 1 | 0x80000, 0) == ALLOW
    assert native("socketpair", 1, 2, 0) == REFUSE
    assert native("socketpair", 1, 5, 0) == REFUSE  # SEQPACKET
    assert native("ioctl", 0, 0x5401) == ALLOW
    assert native("ioctl", 0, 0x5412) == REFUSE  # TIOCSTI
    assert native("ioctl", 0, 0x8901 | 1 << 32) == REFUSE  # FIOSETOWN, with bits that the kernel ignores
    assert native("fcntl", 0, 8, 1) == REFUSE  # F_SETOWN


def test_memory_is_private_counted_and_never_both_written_and_run(machine):
    native, component = Filter(machine), Filter(machine, runtime_code=True)
    for either in (native, component):
        assert either("mmap", 0, 1, 3, 0x22) == ALLOW
        assert either("mmap", 0, 1, 3, 0x21) == REFUSE  # shared
        assert either("mmap", 0, 1, 3, 0x23) == REFUSE  # shared, validated
        assert either("mmap", 0, 1, 1, 0x01) == ALLOW  # a file, read
        assert either("mmap", 0, 1, 3, 0x01) == REFUSE
        assert either("mmap", 0, 1, 3, 0x122) == REFUSE  # grows down
        assert either("mmap", 0, 1, 7, 0x22) == REFUSE
        assert either("mmap", 0, 1, 5, 0x22) == REFUSE  # anonymous code
        assert either("mmap", 0, 1, 5, 0x802) == ALLOW  # a library's code
        assert either("mprotect", 0, 1, 7) == REFUSE
        assert either("mprotect", 0, 1, 3) == ALLOW
    assert native("mprotect", 0, 1, 5) == REFUSE
    assert component("mprotect", 0, 1, 5) == ALLOW


def test_the_tables_are_those_of_the_cpus():
    assert (X86_64["openat"], X86_64["seccomp"], AARCH64["openat"], AARCH64["seccomp"]) == (257, 317, 56, 277)
    assert X86_64["landlock_restrict_self"] == AARCH64["landlock_restrict_self"] == 446
