"""The system calls that an app's process keeps, and with which arguments.

It has no others. Left out with a reason worth remembering: `memfd_create`, `shm*`, `sem*`, `msg*`,
shared writable mappings and `MAP_GROWSDOWN` (memory that no limit counts); `socket`, `connect`, `bind`, `sendmsg`
(a name in `sendmsg` lies in memory, where a filter cannot look); `inotify_*`, `fanotify_*` (watching folders needs no
right to read them); `chmod` and its family (Landlock does not handle it); `prlimit64` of others and with new limits;
`io_uring_*`, whose operations no filter sees.
"""

from __future__ import annotations

from llmasos_runner.confinement.seccomp import Argument, Rule

_PROT_WRITE, _PROT_EXEC = 2, 4
_MAP_SHARED, _MAP_PRIVATE, _MAP_TYPE, _MAP_ANONYMOUS = 1, 2, 3, 0x20
_MAP_GROWSDOWN, _MAP_HUGETLB = 0x100, 0x40000
_UNCOUNTED = _MAP_GROWSDOWN | _MAP_HUGETLB

# What pthread_create asks for: VM, FS, FILES, SIGHAND, THREAD, SYSVSEM, SETTLS, PARENT_SETTID, CHILD_CLEARTID.
_THREAD = 0x3D0F00
_CLONE_DETACHED = 0x400000  # ignored by the kernel; musl sets it

_AF_UNIX, _SOCK_STREAM, _SOCK_TYPE = 1, 1, 0xF

_FREE = """
    read pread64 readv preadv preadv2 write pwrite64 writev pwritev pwritev2 lseek close close_range
    open openat stat lstat fstat newfstatat statx statfs fstatfs access faccessat faccessat2 readlink readlinkat
    getdents64 getcwd fadvise64 readahead umask
    dup dup2 dup3 pipe pipe2 poll ppoll select pselect6
    epoll_create epoll_create1 epoll_ctl epoll_wait epoll_pwait epoll_pwait2 eventfd2
    recvfrom shutdown getsockname getpeername getsockopt
    brk munmap mremap madvise msync mincore membarrier
    futex futex_waitv set_robust_list rseq sched_yield sched_getaffinity getcpu
    rt_sigaction rt_sigprocmask rt_sigreturn rt_sigpending rt_sigtimedwait rt_sigsuspend sigaltstack pause
    alarm getitimer setitimer nanosleep clock_nanosleep clock_gettime clock_getres gettimeofday time times
    getpid gettid getppid getuid geteuid getgid getegid getresuid getresgid getgroups getpgrp getpgid getsid
    getrlimit getrusage uname sysinfo getrandom restart_syscall exit exit_group wait4
"""

# `close` of an inherited descriptor is the app's own loss. FIONBIO, FIOCLEX, FIONCLEX, FIONREAD, TCGETS, TIOCGWINSZ:
# what Python asks of files and sockets. Never FIOSETOWN or TIOCSTI, which reach other processes.
_IOCTLS = (0x5421, 0x5451, 0x5450, 0x541B, 0x5401, 0x5413)
# F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_GETLK, F_SETLK, F_DUPFD_CLOEXEC: never F_SETOWN or F_SETSIG.
_FCNTLS = (0, 1, 2, 3, 4, 5, 6, 1030)
_PRCTLS = (15, 16)  # the thread's own name

# A C library calls these first and falls back to their predecessors, whose arguments a filter can inspect.
ABSENT = ("clone3", "openat2")


def rules(pid: int, *, runtime_code: bool) -> dict[str, Rule]:
    """The calls that stay.

    Args:
        pid: The process that the filter is for; it may signal itself.
        runtime_code: Whether memory that was writable may become executable, as a compiler's output must.
    """
    return {
        **dict.fromkeys(_FREE.split()),
        "mmap": _MMAP,
        "mprotect": _MPROTECT_RUNTIME_CODE if runtime_code else _MPROTECT,
        "clone": [[Argument(0, _THREAD, 0xFFFFFFFF & ~_CLONE_DETACHED)]],
        "ioctl": _one_of(1, _IOCTLS),
        "fcntl": _one_of(1, _FCNTLS),
        "prctl": _one_of(0, _PRCTLS),
        "kill": [[Argument(0, pid)]],
        "tgkill": [[Argument(0, pid)]],
        # The process itself, and no new limits.
        "prlimit64": [[Argument(0, 0), Argument(2, 0, wide=True)]],
        # No address: to the socket's own peer.
        "sendto": [[Argument(4, 0, wide=True)]],
        # asyncio wakes itself by a pair. STREAM only: a DGRAM pair can be pointed at any socket on the machine.
        "socketpair": [[Argument(0, _AF_UNIX), Argument(1, _SOCK_STREAM, _SOCK_TYPE), Argument(2, 0)]],
    }


def _one_of(index: int, values: tuple[int, ...]) -> Rule:
    return [[Argument(index, value)] for value in values]


_MMAP: Rule = [
    # Private and not executable: what RLIMIT_DATA counts.
    [Argument(2, 0, _PROT_EXEC), Argument(3, _MAP_PRIVATE, _MAP_TYPE | _UNCOUNTED)],
    # A file, read only, shared with its other readers.
    [Argument(2, 0, _PROT_EXEC | _PROT_WRITE), Argument(3, _MAP_SHARED, _MAP_TYPE | _MAP_ANONYMOUS | _UNCOUNTED)],
    # A file's code: shared libraries.
    [Argument(2, 0, _PROT_WRITE), Argument(3, _MAP_PRIVATE, _MAP_TYPE | _MAP_ANONYMOUS | _UNCOUNTED)],
]
_MPROTECT: Rule = [[Argument(2, 0, _PROT_EXEC)]]
_MPROTECT_RUNTIME_CODE: Rule = [[Argument(2, 0, _PROT_EXEC)], [Argument(2, 0, _PROT_WRITE)]]
