"""Every attack succeeds in a plain process, else it proves nothing, and fails in a confined one, as root and as a user.

An attack that does not succeed unconfined on this machine, for this user, is skipped with its reason.
"""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from llmasos.errors import CannotConfine
from llmasos.runtimes.bubblewrap import arguments
from llmasos.runtimes.confinement import confinement

HERE = Path(__file__).parent
MODULES = ("files", "processes", "sockets", "kernel")
SECRET = "the host's secret"
PLAIN_USER = 60123

pytestmark = pytest.mark.skipif(not confinement().is_available, reason=str(confinement().missing))


def _catalogue() -> list[tuple[str, str, bool]]:
    """(module, attack), by the names in the sources: the attacks run in other processes only."""
    found = []
    for module in MODULES:
        lines = (HERE / "catalogue" / f"{module}.py").read_text().splitlines()
        for line, following in itertools.pairwise(lines):
            if line.startswith("@attack"):
                found.append((module, following.removeprefix("def ").partition("(")[0], line == "@attack_on_names"))
    return found


ATTACKS = _catalogue()
# Attacks that reach outside by a name: behind bubblewrap, no name may be left.
OUTSIDE = [
    *(("files", name) for name in ("read_a_secret", "write_the_database", "learn_a_file_s_size", "make_a_folder")),
    *(("processes", name) for name in ("signal_the_host", "read_the_host_s_memory", "read_the_environment")),
    *(("sockets", name) for name in ("connect_by_tcp", "connect_to_an_abstract_socket", "connect_to_a_socket_file")),
]


def _interpreter(user: int) -> str:
    """A Python that the user may start: one beneath a closed home folder is not."""
    for candidate in (sys._base_executable, "/usr/bin/python3"):
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            if subprocess.run([candidate, "-I", "-S", "-c", ""], **_as(user), check=False).returncode == 0:
                return candidate
    pytest.skip(f"user {user} may start no Python here")


def _as(user: int) -> dict:
    return {} if user == os.getuid() else {"user": user, "group": user, "extra_groups": []}


class Host:
    """A host of one user: its folder, its victim, and attacks on them."""

    def __init__(self, user: int, base: Path) -> None:
        self.user, self.base = user, base
        self.code, self.home = base / "code", base / "home"
        self.python = _interpreter(user)
        self._plain: dict[str, dict] = {}
        self.code.mkdir()
        package = Path(importlib.util.find_spec("llmasos_runner").origin).parent
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(package, self.code / "llmasos_runner", ignore=ignore)
        shutil.copytree(HERE / "catalogue", self.code / "catalogue", ignore=ignore)
        shutil.copy(HERE / "driver.py", self.code)
        shutil.copy(HERE / "victim.py", self.code)
        (self.code / "gate.bin").write_bytes(b"\x53\xb8\x14\x00\x00\x00\xcd\x80\x5b\xc3".ljust(4096, b"\x90"))
        self.home.mkdir()
        self.restore()
        self._own(self.home)
        self._own(self.code)
        self.control = socket.socket(socket.AF_UNIX)
        self.control.bind(str(self.home / "control"))
        (self.home / "control").chmod(0o666)
        self.control.listen()
        threading.Thread(target=self._welcome, daemon=True).start()
        command = [self.python, "-I", "-S", str(self.code / "victim.py"), str(self.home)]
        self.victim = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={"HOST_SECRET": SECRET}, **_as(user)
        )
        facts = json.loads(self.victim.stdout.readline())
        self.facts = json.dumps({**facts, "home": str(self.home), "code": str(self.code)})
        self.driver = subprocess.Popen(
            self._driver(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env={"HOST_SECRET": SECRET}, cwd=self.home, **_as(user),
        )  # fmt: skip
        # Where the kernel allows no namespaces the other mechanisms are alone. Root's app then needs a Python that its
        # own user may read, which one beneath a closed home folder is not.
        alone = self.attack("without namespaces", "files", "read_a_secret")
        self.lesser_modes = ("without namespaces",) if "ConfinementMissing" not in alone["error"] else ()

    def _welcome(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.control.accept()
                connection.sendall(b"welcome")
                connection.close()

    def _own(self, folder: Path) -> None:
        for path in (folder, *folder.rglob("*")):
            os.chown(path, self.user, self.user)

    def restore(self) -> None:
        """Restore the folder after a successful attack."""
        for name in ("mine", "link", "symbolic", "fifo", "folder", "host.db", "memory"):
            path = self.home / name
            if path.is_dir():
                path.rmdir()
            else:
                path.unlink(missing_ok=True)
        (self.home / "secret").write_text(SECRET)
        (self.home / "other").mkdir(exist_ok=True)
        (self.home / "other" / "data").write_text("another app's data")
        (self.home / "host.db").write_bytes(b"rows " * 100)
        (self.home / "host.db").chmod(0o644)
        for path in ("secret", "other", "other/data", "host.db"):
            os.chown(self.home / path, self.user, self.user)

    def state(self) -> tuple:
        """The state that an attack must not change."""
        database = self.home / "host.db"
        status = database.stat()
        names = sorted(path.name for path in self.home.iterdir())
        return (
            names,
            database.read_bytes(),
            status.st_mode,
            status.st_uid,
            status.st_mtime,
            (self.home / "secret").read_text(),
        )

    def alive(self) -> bool:
        """Whether the victim runs, with its memory unchanged."""
        self.victim.stdin.write("?\n")
        self.victim.stdin.flush()
        return self.victim.stdout.readline().strip() == SECRET

    def behind_bubblewrap(self) -> list[str]:
        """The prefix of a command of this user that starts it behind bubblewrap."""
        read = [str(self.code), "/usr", "/lib", "/lib64", *([sys.base_prefix] if self.user == 0 else [])]
        there = [path for path in read if Path(path).exists()]
        return [shutil.which("bwrap"), *arguments(there, {}, as_root=self.user == 0), "--"]

    def _driver(self) -> list[str]:
        return [self.python, "-I", "-S", str(self.code / "driver.py")]

    def attack(self, mode: str, module: str, name: str) -> dict:
        """Run an attack in a new process, with a secret in its environment and in an inherited descriptor."""
        self.driver.stdin.write(json.dumps([mode, name, module, self.facts]) + "\n")
        self.driver.stdin.flush()
        printed = []
        for line in self.driver.stdout:
            printed.append(line)
            if line.startswith('{"ended": '):
                break
        return _seen(printed)

    def attack_behind_bubblewrap(self, mode: str, module: str, name: str) -> dict:
        """Run the same in a sandbox that bubblewrap made."""
        left_open = os.open(self.home / "secret", os.O_RDONLY)
        try:
            done = subprocess.run(
                [*self.behind_bubblewrap(), *self._driver(), mode, name, module, self.facts],
                **_as(self.user), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60, check=False,
                env={"HOST_SECRET": SECRET}, pass_fds=(left_open,), cwd=self.home,
            )  # fmt: skip
        finally:
            os.close(left_open)
        return _seen(done.stdout.splitlines())

    def require_success_in_a_plain_process(self, module: str, name: str) -> None:
        """Skip a test whose attack proves nothing here. The control runs once for each attack."""
        if name not in self._plain:
            self._plain[name] = self.attack("plain", module, name)
            self.restore()
        if self._plain[name]["effect"] is None:
            error = self._plain[name]["error"]
            pytest.skip(f"it proves nothing here, since it fails in a plain process too: {error}")

    def close(self) -> None:
        """End the victim and the driver."""
        for process in (self.victim, self.driver):
            process.kill()
            process.communicate()
        self.control.close()


def _seen(printed: Sequence[str]) -> dict:
    """What the process of an attack printed of it, or that it died."""
    for line in printed:
        with contextlib.suppress(ValueError):
            if "ended" not in (seen := json.loads(line)):
                return {"error": None, "effect": None, **seen}
    return {"confinement": None, "effect": None, "error": f"it died: {''.join(printed)[-300:]}"}


@pytest.fixture(scope="module", params=["root", "user"])
def host(request) -> Iterator[Host]:
    if request.param == "root" and os.getuid() != 0:
        pytest.skip("only root can try as root")
    user = PLAIN_USER if request.param == "user" and os.getuid() == 0 else os.getuid()
    base = Path(tempfile.mkdtemp(prefix="llmasos-attacks-"))
    base.chmod(0o755)
    host = Host(user, base)
    yield host
    host.close()
    shutil.rmtree(base)


@pytest.mark.parametrize(("module", "name", "on_names"), ATTACKS, ids=[name for _, name, _ in ATTACKS])
def test_an_attack_succeeds_in_a_plain_process_and_fails_in_a_confined_one(host, module, name, on_names):
    """SECURITY C3."""
    host.require_success_in_a_plain_process(module, name)
    before = host.state()
    for mode in ("confined", *host.lesser_modes):
        confined = host.attack(mode, module, name)
        assert host.alive()
        if on_names and "private root" not in (confined["confinement"] or ()):
            continue  # without it, only names are exposed
        assert confined["effect"] is None, (mode, confined)
        assert "Traceback" not in confined["error"], (mode, confined)
        assert host.state() == before


def _why_no_bubblewrap() -> str:
    try:
        return confinement(bubblewrap=True).missing or ""
    except CannotConfine as error:
        return error.message


@pytest.mark.skipif(bool(_why_no_bubblewrap()), reason=_why_no_bubblewrap())
@pytest.mark.parametrize("mode", ["plain", "confined"])
@pytest.mark.parametrize(("module", "name"), OUTSIDE, ids=[name for _, name in OUTSIDE])
def test_bubblewrap_withstands_an_attack_by_itself_and_around_the_other_mechanisms(host, module, name, mode):
    host.require_success_in_a_plain_process(module, name)
    before = host.state()
    behind = host.attack_behind_bubblewrap(mode, module, name)
    assert host.alive()
    assert behind["effect"] is None, behind
    assert "it died" not in behind["error"], behind
    assert host.state() == before


def test_there_are_more_than_fifty_attacks_and_no_two_of_one_name():
    names = [name for _, name, _ in ATTACKS]
    assert len(names) == len(set(names)) > 50
