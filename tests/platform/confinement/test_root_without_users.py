"""11-24: root of a user namespace that maps only itself, as `unshare -U -r` and rootless containers make."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from llmasos.runtimes.process import MAIN

NAMESPACE = ["unshare", "-U", "-r"]
PLAIN_USER = 60123


def can_make_namespaces() -> bool:
    return shutil.which("unshare") is not None and subprocess.run([*NAMESPACE, "true"], check=False).returncode == 0


pytestmark = pytest.mark.skipif(not can_make_namespaces(), reason="this system lets nobody make a user namespace")


def trial(profile: dict, *, user: int | None = None) -> dict:
    """Confine a process in such a namespace, and return by what, or why not."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        package = shutil.copytree(MAIN.parent, folder / "llmasos_runner", ignore=shutil.ignore_patterns("__pycache__"))
        script = (
            f"import json, sys; sys.path.insert(0, {name!r})\n"
            "from llmasos_runner.confinement import ConfinementMissing, apply\n"
            f"try: print(json.dumps(apply({ {**profile, 'read': [str(package)]}!r})))\n"
            "except ConfinementMissing as error: print(json.dumps({'missing': str(error)}))\n"
        )
        who = {} if user is None else {"user": user, "group": user, "extra_groups": []}
        python = sys._base_executable if user is None else "/usr/bin/python3"
        done = subprocess.run(
            [*NAMESPACE, python, "-I", "-S", "-c", script], capture_output=True, check=True, cwd="/", **who
        )
        return json.loads(done.stdout)


def test_components_are_confined_there():
    """11-24: no app ran, since its runner could not become another user."""
    mechanisms = trial({"profile": "component"})
    assert {"seccomp", "limits", "no capabilities"} <= set(mechanisms)
    assert "own user" not in mechanisms


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be root outside")
def test_a_native_app_of_real_root_is_refused_with_the_cure():
    """11-24: nothing limits the threads of real root."""
    assert "run the host as an ordinary user" in trial({"profile": "native"})["missing"]


@pytest.mark.skipif(not Path("/usr/bin/python3").exists(), reason="a plain user needs a Python that all may start")
def test_a_native_app_of_a_plain_user_is_confined_there():
    """11-24."""
    mechanisms = trial({"profile": "native"}, user=PLAIN_USER if os.getuid() == 0 else None)
    assert {"seccomp", "limits", "no capabilities"} <= set(mechanisms)
