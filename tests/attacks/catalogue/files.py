"""Files: the host's, other apps', the system's; watching, locking, filling."""

import ctypes
import fcntl
import os
import struct
from pathlib import Path

from catalogue.attack import SECRET, Target, attack, attack_on_names, call, libc, succeeded


@attack
def read_a_secret(t: Target):
    return succeeded(SECRET in Path(t.home, "secret").read_text())


@attack
def read_another_app_s_data(t: Target):
    return Path(t.home, "other/data").read_text()


@attack
def list_the_host_s_folder(t: Target):
    return os.listdir(t.home)


@attack
def write_the_database(t: Target):
    with open(f"{t.home}/host.db", "r+b") as file:
        return file.write(b"owned")


@attack
def append_to_the_database(t: Target):
    with open(f"{t.home}/host.db", "ab") as file:
        return file.write(b"owned")


@attack
def truncate_the_database(t: Target):
    os.truncate(f"{t.home}/host.db", 0)
    return succeeded(os.stat(f"{t.home}/host.db").st_size == 0)


@attack
def chmod_the_database(t: Target):
    os.chmod(f"{t.home}/host.db", 0o777)
    return oct(os.stat(f"{t.home}/host.db").st_mode)


@attack
def chown_the_database(t: Target):
    os.chown(f"{t.home}/host.db", os.getuid(), os.getgid())
    return "changed"


@attack
def change_times_of_the_database(t: Target):
    os.utime(f"{t.home}/host.db", (1, 1))
    return succeeded(os.stat(f"{t.home}/host.db").st_mtime == 1)


@attack
def set_an_extended_attribute(t: Target):
    os.setxattr(f"{t.home}/host.db", "user.owned", b"1")
    return os.getxattr(f"{t.home}/host.db", "user.owned")


@attack
def remove_the_database(t: Target):
    os.unlink(f"{t.home}/host.db")
    return "gone"


@attack
def rename_the_database(t: Target):
    os.rename(f"{t.home}/host.db", f"{t.home}/mine")
    return "moved"


@attack
def link_to_a_secret(t: Target):
    os.link(f"{t.home}/secret", f"{t.home}/link")
    return "linked"


@attack
def make_a_symbolic_link(t: Target):
    os.symlink("/etc/passwd", f"{t.home}/symbolic")
    return "linked"


@attack
def make_a_folder(t: Target):
    os.mkdir(f"{t.home}/folder")
    return "made"


@attack
def make_a_pipe_file(t: Target):
    os.mkfifo(f"{t.home}/fifo")
    return "made"


@attack
def fill_the_disk(t: Target):
    with open("/tmp/llmasos-attack-filler", "wb") as file:
        written = file.write(b"\0" * (8 << 20))
    os.unlink("/tmp/llmasos-attack-filler")
    return written


@attack
def make_an_unnamed_file(t: Target):
    descriptor = os.open("/tmp", os.O_TMPFILE | os.O_RDWR)
    return os.write(descriptor, b"\0" * (1 << 20))


@attack
def change_code_of_the_app(t: Target):
    with open(f"{t.code}/sitecustomize.py", "w") as file:
        file.write("owned = True")
    os.unlink(f"{t.code}/sitecustomize.py")
    return "written"


@attack
def fill_shared_memory_files(t: Target):
    with open("/dev/shm/llmasos-attack", "wb") as file:
        written = file.write(b"\0" * (1 << 20))
    os.unlink("/dev/shm/llmasos-attack")
    return written


@attack
def read_the_system_s_users(t: Target):
    return Path("/etc/passwd").read_text()[:20]


@attack
def lock_the_database(t: Target):
    descriptor = os.open(f"{t.home}/host.db", os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return "locked"


@attack
def watch_a_folder(t: Target):
    queue = call("inotify_init1", 0o4000)
    if libc.inotify_add_watch(queue, t.home.encode(), 0xFFF) < 0:
        raise OSError(ctypes.get_errno(), "inotify_add_watch")
    return "watched"


@attack
def make_a_watch_queue(t: Target):
    return call("inotify_init1", 0)


@attack
def watch_a_whole_file_system(t: Target):
    queue = call("fanotify_init", 0x200 | 0x400 | 0x800, 0)
    call("fanotify_mark", queue, 1, 0x20, -100, t.home.encode())
    return "watched"


@attack_on_names
def learn_a_file_s_size(t: Target):
    return os.stat(f"{t.home}/secret").st_size


@attack_on_names
def learn_that_a_path_exists(t: Target):
    return succeeded(os.path.exists(t.home) and os.access(t.home, os.F_OK))


@attack
def open_by_handle(t: Target):
    handle = ctypes.create_string_buffer(struct.pack("=Ii", 128, 0) + bytes(128))
    mount_id = ctypes.c_int()
    call("name_to_handle_at", -100, f"{t.home}/secret".encode(), ctypes.byref(handle), ctypes.byref(mount_id), 0)
    folder = os.open(t.home, os.O_RDONLY)
    return os.read(call("open_by_handle_at", folder, ctypes.byref(handle), os.O_RDONLY), 100).decode()


@attack
def open_with_resolve_flags(t: Target):
    how = ctypes.create_string_buffer(struct.pack("=QQQ", os.O_RDONLY, 0, 0), 24)
    return os.read(call("openat2", -100, f"{t.home}/secret".encode(), ctypes.byref(how), 24), 100).decode()


@attack
def leave_by_a_relative_path(t: Target):
    relative = os.path.relpath(f"{t.home}/secret", os.getcwd())
    return Path(relative).read_text()


@attack
def change_the_root(t: Target):
    os.chroot(t.home)
    return os.listdir("/")


@attack
def make_a_device(t: Target):
    os.mknod(f"{t.home}/memory", 0o20600, os.makedev(1, 1))
    return "made"


@attack
def open_a_terminal(t: Target):
    return os.openpty()


@attack
def mount_a_file_system(t: Target):
    call("mount", b"none", t.home.encode(), b"tmpfs", 0, None)
    call("umount2", t.home.encode(), 2)
    return "mounted"


@attack
def take_the_mounts_tree(t: Target):
    return call("open_tree", -100, b"/", 1)  # a clone of it


@attack
def open_a_file_system(t: Target):
    return call("fsopen", b"tmpfs", 0)


@attack
def ask_for_quotas(t: Target):
    call("quotactl", 0x800001 << 8, None, 0, None)  # Q_SYNC
    return "asked"


@attack
def sync_every_disk(t: Target):
    call("sync")
    return "synced"
