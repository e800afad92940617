"""Other processes, new processes, and this process's sessions, groups and priority."""

import ctypes
import fcntl
import os
import resource
import signal
import struct
import subprocess
import threading

from catalogue.attack import SECRET, Target, attack, call, libc, succeeded

LENGTH = len(SECRET)


class _Vector(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]


def _vectors(t: Target, text: bytes) -> tuple:
    buffer = ctypes.create_string_buffer(text, LENGTH)
    local = _Vector(ctypes.addressof(buffer), LENGTH)
    return buffer, local, _Vector(t.victim_address, LENGTH)


@attack
def signal_the_host(t: Target):
    os.kill(t.victim, signal.SIGUSR1)
    return "sent"


@attack
def signal_a_thread_of_the_host(t: Target):
    call("tgkill", t.victim, t.victim, signal.SIGUSR1)
    return "sent"


@attack
def signal_by_the_old_call(t: Target):
    call("tkill", t.victim, signal.SIGUSR1)
    return "sent"


@attack
def signal_everybody(t: Target):
    os.kill(-1, 0)
    return "could"


@attack
def signal_the_process_group(t: Target):
    os.killpg(0, 0)
    return "could"


@attack
def queue_a_signal(t: Target):
    information = ctypes.create_string_buffer(struct.pack("=iii", signal.SIGUSR1, 0, -1), 128)
    call("rt_sigqueueinfo", t.victim, signal.SIGUSR1, ctypes.byref(information))
    return "sent"


@attack
def signal_by_descriptor(t: Target):
    call("pidfd_send_signal", call("pidfd_open", t.victim, 0), signal.SIGUSR1, None, 0)
    return "sent"


@attack
def steal_a_descriptor(t: Target):
    stolen = call("pidfd_getfd", call("pidfd_open", t.victim, 0), t.victim_descriptor, 0)
    return os.pread(stolen, 100, 0).decode()


@attack
def trace_the_host(t: Target):
    call("ptrace", 16, t.victim, 0, 0)
    os.waitpid(t.victim, 0x40000000)
    call("ptrace", 17, t.victim, 0, 0)
    return "attached"


@attack
def trace_oneself(t: Target):
    return call("ptrace", 0, 0, 0, 0) == 0


@attack
def read_the_host_s_memory(t: Target):
    buffer, local, remote = _vectors(t, b"")
    call("process_vm_readv", t.victim, ctypes.byref(local), 1, ctypes.byref(remote), 1, 0)
    return succeeded(SECRET in buffer.raw.decode())


@attack
def write_the_host_s_memory(t: Target):
    _buffer, local, remote = _vectors(t, SECRET.encode())
    return call("process_vm_writev", t.victim, ctypes.byref(local), 1, ctypes.byref(remote), 1, 0)


@attack
def read_the_host_s_memory_file(t: Target):
    with open(f"/proc/{t.victim}/mem", "rb", buffering=0) as file:
        return os.pread(file.fileno(), LENGTH, t.victim_address).decode()


@attack
def read_the_host_s_environment(t: Target):
    with open(f"/proc/{t.victim}/environ", "rb") as file:
        return succeeded(SECRET.encode() in file.read())


@attack
def list_processes(t: Target):
    return [pid for pid in os.listdir("/proc") if pid.isdecimal()][:3]


@attack
def walk_to_the_host_s_root(t: Target):
    return os.listdir(f"/proc/{t.victim}/root")


@attack
def read_one_s_own_maps(t: Target):
    with open("/proc/self/maps") as file:
        return file.readline()


@attack
def hide_from_the_memory_killer(t: Target):
    with open("/proc/self/oom_score_adj", "w") as file:
        file.write("1")
    return "written"


@attack
def change_the_host_s_limits(t: Target):
    return resource.prlimit(t.victim, resource.RLIMIT_NOFILE, resource.prlimit(t.victim, resource.RLIMIT_NOFILE))


@attack
def read_the_host_s_limits(t: Target):
    return resource.prlimit(t.victim, resource.RLIMIT_NOFILE)


@attack
def change_one_s_own_limits(t: Target):
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (10, hard))
    return "changed"


@attack
def slow_the_host(t: Target):
    os.setpriority(os.PRIO_PROCESS, t.victim, 1)
    return os.getpriority(os.PRIO_PROCESS, t.victim)


@attack
def pin_the_host(t: Target):
    os.sched_setaffinity(t.victim, os.sched_getaffinity(t.victim))
    return "pinned"


@attack
def schedule_the_host(t: Target):
    os.sched_setscheduler(t.victim, os.SCHED_BATCH, os.sched_param(0))
    return "scheduled"


@attack
def starve_the_host_of_disk(t: Target):
    call("ioprio_set", 1, t.victim, (3 << 13))
    return "set"


@attack
def compare_with_the_host(t: Target):
    return call("kcmp", os.getpid(), t.victim, 1, 0, 0) >= 0


@attack
def move_the_host_s_pages(t: Target):
    return call("move_pages", t.victim, 0, None, None, None, 0) == 0


@attack
def advise_on_the_host_s_memory(t: Target):
    _buffer, _local, remote = _vectors(t, b"")
    remote.base = t.victim_address & ~0xFFF
    remote.length = 4096
    return call("process_madvise", call("pidfd_open", t.victim, 0), ctypes.byref(remote), 1, 20, 0) >= 0


def _reap(pid: int) -> int:
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return pid


@attack
def fork(t: Target):
    return _reap(os.fork())


@attack
def fork_by_a_raw_call(t: Target):
    return _reap(call("clone", signal.SIGCHLD, 0, 0, 0, 0))


@attack
def fork_by_the_new_call(t: Target):
    arguments = ctypes.create_string_buffer(struct.pack("=8Q", 0, 0, 0, 0, signal.SIGCHLD, 0, 0, 0), 64)
    return _reap(call("clone3", ctypes.byref(arguments), 64))


@attack
def fork_into_a_namespace(t: Target):
    return _reap(call("clone", signal.SIGCHLD | 0x10000000, 0, 0, 0, 0))


@attack
def start_a_program(t: Target):
    return succeeded(subprocess.run(["/bin/true"], check=False).returncode == 0)


@attack
def start_a_shell(t: Target):
    return succeeded(os.system("true") == 0)


@attack
def spawn(t: Target):
    return _reap(os.posix_spawn("/bin/true", ["true"], {}))


@attack
def replace_oneself(t: Target):
    os.execv("/bin/echo", ["echo", '{"effect": "replaced"}'])


@attack
def fork_bomb(t: Target):
    children = []
    while len(children) < 40:
        child = os.fork()
        if child == 0:
            signal.pause()
        children.append(child)
    for child in children:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    return len(children)


@attack
def thread_bomb(t: Target):
    threading.stack_size(64 << 10)
    gate = threading.Event()
    threads = []
    try:
        for _ in range(400):
            thread = threading.Thread(target=gate.wait, daemon=True)
            thread.start()
            threads.append(thread)
    finally:
        gate.set()
    return len(threads)


@attack
def leave_the_session(t: Target):
    try:
        os.setsid()
    except PermissionError:
        os.setpgid(0, os.getppid())  # a leader already: as far as a plain process gets
    return "left"


@attack
def own_the_host_s_signals_by_fcntl(t: Target):
    reader, _ = os.pipe()
    fcntl.fcntl(reader, fcntl.F_SETOWN, t.victim)
    return fcntl.fcntl(reader, fcntl.F_GETOWN)


@attack
def own_the_host_s_signals_by_ioctl(t: Target):
    import socket

    one, _ = socket.socketpair()
    fcntl.ioctl(one, 0x8901, struct.pack("i", t.victim))
    return "owned"


@attack
def choose_a_signal_for_a_descriptor(t: Target):
    reader, _ = os.pipe()
    fcntl.fcntl(reader, 10, signal.SIGKILL)
    return "chosen"


@attack
def adopt_orphans(t: Target):
    return call("prctl", 36, 1, 0, 0, 0) == 0


@attack
def become_traceable(t: Target):
    return call("prctl", 4, 1, 0, 0, 0) == 0


@attack
def allow_anybody_to_trace(t: Target):
    return call("prctl", 0x59616D61, -1, 0, 0, 0) == 0


@attack
def change_the_personality(t: Target):
    return libc.personality(0x0040000) != -1 and call("personality", 0xFFFFFFFF) & 0x0040000


@attack
def become_root_again(t: Target):
    os.setuid(0)
    return succeeded(os.getuid() == 0)


@attack
def change_groups(t: Target):
    os.setgroups([0])
    return os.getgroups()


@attack
def read_the_environment(t: Target):
    return succeeded(os.environ["HOST_SECRET"] == SECRET)


@attack
def find_the_environment_in_memory(t: Target):
    libc.getauxval.restype = ctypes.c_void_p
    program = libc.getauxval(31)  # AT_EXECFN, which lies above the environment's texts at the end of the stack
    return succeeded(SECRET.encode() in ctypes.string_at(program - 512, 512))


@attack
def use_a_descriptor_left_open(t: Target):
    for descriptor in range(3, 64):
        try:
            if SECRET.encode() in os.pread(descriptor, 100, 0):
                return descriptor
        except OSError:
            continue
    raise OSError("none is open")
