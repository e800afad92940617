"""Rare system calls of the kernel, and every way to take memory."""

import ctypes
import mmap
import os
import struct
import threading

from catalogue.attack import Target, attack, call, libc, mapped, succeeded

# Three times the suite's limit of a runner, and small enough for the machine if confinement fails.
ROAD = 192 << 20
PAGE = 4096


def _touch(address: int, length: int) -> int:
    for offset in range(0, length, PAGE):
        ctypes.c_char.from_address(address + offset).value = b"x"
    return length


@attack
def make_a_user_namespace(t: Target):
    return call("unshare", 0x10000000) == 0


@attack
def make_a_mount_namespace(t: Target):
    return call("unshare", 0x20000) == 0


@attack
def enter_the_host_s_namespace(t: Target):
    descriptor = os.open(f"/proc/{t.victim}/ns/net", os.O_RDONLY)
    return call("setns", descriptor, 0x40000000) == 0


@attack
def set_up_io_uring(t: Target):
    return call("io_uring_setup", 4, ctypes.byref(ctypes.create_string_buffer(120)))


@attack
def make_a_bpf_map(t: Target):
    attributes = ctypes.create_string_buffer(struct.pack("=5I", 2, 4, 4, 1, 0), 128)
    return call("bpf", 0, ctypes.byref(attributes), 128)


@attack
def load_a_bpf_program(t: Target):
    code = ctypes.create_string_buffer(struct.pack("=BBhiBBhi", 0xB7, 0, 0, 0, 0x95, 0, 0, 0), 16)
    licence = ctypes.create_string_buffer(b"GPL")
    pointers = (1, 2, ctypes.addressof(code), ctypes.addressof(licence))
    attributes = ctypes.create_string_buffer(struct.pack("=IIQQ", *pointers), 128)
    return call("bpf", 5, ctypes.byref(attributes), 128)


@attack
def count_events(t: Target):
    attributes = ctypes.create_string_buffer(struct.pack("=IIQQQQQ", 1, 112, 1, 0, 0, 0, 0x61), 112)
    return call("perf_event_open", ctypes.byref(attributes), 0, -1, -1, 0)


@attack
def handle_page_faults(t: Target):
    return call("userfaultfd", 1)


@attack
def add_a_key(t: Target):
    return call("add_key", b"user", b"llmasos-attack", b"x", 1, -2)


@attack
def read_keyrings(t: Target):
    return call("keyctl", 0, -4, 1)


@attack
def request_a_key(t: Target):
    call("add_key", b"user", b"llmasos-attack", b"x", 1, -2)
    return call("request_key", b"user", b"llmasos-attack", None, -2)


@attack
def set_the_clock(t: Target):
    return call("settimeofday", None, None) == 0  # nothing to set: as far as one goes on a real machine


@attack
def adjust_the_clock(t: Target):
    return call("adjtimex", ctypes.byref(ctypes.create_string_buffer(256))) >= 0


@attack
def adjust_another_clock(t: Target):
    return call("clock_adjtime", 0, ctypes.byref(ctypes.create_string_buffer(256))) >= 0


@attack
def make_a_timer(t: Target):
    return call("timer_create", 1, None, ctypes.byref(ctypes.c_int())) == 0


@attack
def make_a_timer_descriptor(t: Target):
    return call("timerfd_create", 1, 0)


@attack
def read_the_kernel_s_log(t: Target):
    return call("syslog", 10, None, 0)


@attack
def rename_the_machine(t: Target):
    name = os.uname().nodename.encode()
    return call("sethostname", name, len(name)) == 0


@attack
def open_the_ports(t: Target):
    return call("ioperm", 0x80, 1, 1) == 0


@attack
def change_the_privilege_for_ports(t: Target):
    return call("iopl", 3) == 0


@attack
def change_segments(t: Target):
    return call("modify_ldt", 0, ctypes.byref(ctypes.create_string_buffer(16)), 16) >= 0


@attack
def move_thread_registers(t: Target):
    base = ctypes.c_ulong()
    return call("arch_prctl", 0x1003, ctypes.byref(base)) == 0


@attack
def load_another_kernel(t: Target):
    return call("kexec_load", 0, 0, None, 0) == 0


@attack
def stop_accounting(t: Target):
    return call("acct", None) == 0


@attack
def set_memory_policy(t: Target):
    return call("set_mempolicy", 0, None, 0) == 0


@attack
def filter_one_s_own_calls(t: Target):
    return call("seccomp", 2, 0, ctypes.byref(ctypes.c_uint32(0x7FFF0000))) == 0


@attack
def read_capabilities(t: Target):
    header = ctypes.create_string_buffer(struct.pack("=Ii", 0x20080522, 0), 8)
    data = ctypes.create_string_buffer(24)
    return call("capget", ctypes.byref(header), ctypes.byref(data)) == 0


@attack
def make_a_message_queue(t: Target):
    queue = call("msgget", 0, 0o1600)
    call("msgctl", queue, 0, None)
    return "made"


@attack
def make_a_named_queue(t: Target):
    descriptor = call("mq_open", b"llmasos-attack", os.O_CREAT | os.O_RDWR, 0o600, None)
    call("mq_unlink", b"llmasos-attack")
    return descriptor


@attack
def make_semaphores(t: Target):
    semaphores = call("semget", 0, 1, 0o1600)
    call("semctl", semaphores, 0, 0)
    return "made"


@attack
def use_x32_calls(t: Target):
    return succeeded(libc.syscall(0x40000000 | 39) == os.getpid())


@attack
def use_the_old_gate(t: Target):
    # push rbx; mov eax, 20; int 0x80; pop rbx; ret: getpid of i386, from a file as a wheel would bring it.
    if os.uname().machine != "x86_64":
        raise OSError("this CPU has no such gate")
    descriptor = os.open(f"{t.code}/gate.bin", os.O_RDONLY)
    function = ctypes.CFUNCTYPE(ctypes.c_int)(mapped(PAGE, 5, 2, descriptor))
    return succeeded(function() == os.getpid())


@attack
def run_memory_that_was_written(t: Target):
    address = mapped(PAGE, 7, 0x22)
    ctypes.memmove(
        address,
        b"\xc3" if os.uname().machine == "x86_64" else b"\xc0\x03\x5f\xd6",
        4 if os.uname().machine != "x86_64" else 1,
    )
    ctypes.CFUNCTYPE(None)(address)()
    return "ran"


@attack
def make_memory_executable(t: Target):
    address = mapped(PAGE, 3, 0x22)
    libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    if libc.mprotect(address, PAGE, 5):
        raise OSError(ctypes.get_errno(), "mprotect")
    return "made"


@attack
def take_memory_from_the_heap(t: Target):
    return len(bytearray(ROAD))


@attack
def take_memory_by_private_mappings(t: Target):
    return _touch(mapped(ROAD, 3, 0x22), ROAD)


@attack
def take_memory_by_shared_mappings(t: Target):
    return _touch(mapped(ROAD, 3, 0x21), ROAD)


@attack
def take_memory_by_python_s_mmap(t: Target):
    return len(mmap.mmap(-1, ROAD))


@attack
def take_memory_by_a_growing_stack(t: Target):
    return _touch(mapped(ROAD, 3, 0x122), ROAD)


@attack
def take_memory_without_reserving(t: Target):
    return _touch(mapped(ROAD, 3, 0x4022), ROAD)


@attack
def take_memory_by_protecting_later(t: Target):
    address = mapped(ROAD, 0, 0x22)
    libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    if libc.mprotect(address, ROAD, 3):
        raise OSError(ctypes.get_errno(), "mprotect")
    return _touch(address, ROAD)


@attack
def take_memory_by_a_nameless_file(t: Target):
    descriptor = os.memfd_create("llmasos-attack")
    os.ftruncate(descriptor, ROAD)
    return _touch(mapped(ROAD, 3, 1, descriptor), ROAD)


@attack
def take_secret_memory(t: Target):
    return call("memfd_secret", 0)


@attack
def take_memory_by_system_v(t: Target):
    segment = call("shmget", 0, ROAD, 0o1600)
    libc.shmat.restype = ctypes.c_void_p
    address = libc.shmat(segment, None, 0)
    call("shmctl", segment, 0, None)
    return _touch(address, ROAD)


@attack
def take_memory_by_the_program_break(t: Target):
    libc.sbrk.restype = ctypes.c_void_p
    libc.sbrk.argtypes = [ctypes.c_long]
    address = libc.sbrk(ROAD)
    if address == ctypes.c_void_p(-1).value:
        raise OSError("sbrk")
    return _touch(address, ROAD)


@attack
def take_memory_by_thread_stacks(t: Target):
    threading.stack_size(16 << 20)
    gate = threading.Event()
    threads = []
    try:
        for _ in range(ROAD // (16 << 20)):
            thread = threading.Thread(target=gate.wait, daemon=True)
            thread.start()
            threads.append(thread)
    finally:
        gate.set()
    return len(threads)


@attack
def take_memory_by_pipes(t: Target):
    import fcntl

    held = 0
    for _ in range(200):
        _, writer = os.pipe()
        fcntl.fcntl(writer, 1031, 1 << 20)
        os.set_blocking(writer, False)
        held += os.write(writer, bytes(1 << 20))
    return held


@attack
def lock_memory(t: Target):
    return call("mlock", mapped(PAGE * 16, 3, 0x22), PAGE * 16) == 0


@attack
def exhaust_descriptors(t: Target):
    return len([os.dup(1) for _ in range(900)])


@attack
def give_pages_to_a_pipe(t: Target):
    _, writer = os.pipe()
    buffer = ctypes.create_string_buffer(PAGE)
    vector = ctypes.create_string_buffer(struct.pack("=QQ", ctypes.addressof(buffer), PAGE), 16)
    return call("vmsplice", writer, ctypes.byref(vector), 1, 0)


@attack
def list_the_system_s_devices(t: Target):
    return os.listdir("/sys")


@attack
def read_the_kernel_s_symbols(t: Target):
    with open("/proc/kallsyms") as file:
        return file.readline()
