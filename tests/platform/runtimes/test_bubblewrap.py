"""Real runners behind bubblewrap, as root and as a plain user."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from tests.platform.runtimes import wat
from tests.platform.runtimes.conftest import no_host, program_of

from llmasos.errors import CannotConfine
from llmasos.i18n import render
from llmasos.runtimes.bubblewrap import arguments
from llmasos.runtimes.component import ComponentRuntime
from llmasos.runtimes.confinement import confinement
from llmasos.settings import Settings
from llmasos.uv import find_uv

HERE = Path(__file__).parent
PLAIN_USER = 60123


def why_not() -> str:
    """Why these tests cannot run here; empty if they can."""
    try:
        return confinement(bubblewrap=True).missing or ""
    except CannotConfine as error:
        return error.message


needs_bubblewrap = pytest.mark.skipif(bool(why_not()), reason=why_not())


def start_as(user: int, python: str, arguments: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    other = {} if user == os.getuid() else {"user": user, "group": user, "extra_groups": []}
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **environment}
    return subprocess.run(
        [python, *arguments], env=environment, capture_output=True, text=True, timeout=120, check=False, **other
    )


def interpreter_of(user: int) -> str:
    """A Python that the user may start, and that finds there what this one imports."""
    said = ""
    for candidate in (sys.executable, "/usr/bin/python3"):
        try:
            done = start_as(user, candidate, ["-c", "import llmasos.runtimes.native"])
        except OSError as error:
            said = said or str(error)
            continue
        if done.returncode == 0:
            return candidate
        said = done.stderr[-200:]
    pytest.skip(f"user {user} may start no Python here that has what llmasos needs: {said}")


@pytest.fixture(scope="module", params=["root", "user"])
def seen(request):
    """The output of `bubblewrapped.py`."""
    if request.param == "root" and os.getuid() != 0:
        pytest.skip("only root can try as root")
    user = PLAIN_USER if request.param == "user" and os.getuid() == 0 else os.getuid()
    python = interpreter_of(user)
    folder = Path(tempfile.mkdtemp(prefix="llmasos-bubblewrap-"))
    try:
        components = [
            wat.component(folder / "echo.wasm", wat.core_module()),
            wat.component(folder / "spin.wasm", wat.core_module(body="(loop (br 0))")),
        ]
        shutil.copy(find_uv(), folder)  # a place from which another user may start it
        for path in (folder, *components):
            path.chmod(0o755)
            os.chown(path, user, user)
        script = [str(HERE / "bubblewrapped.py"), *map(str, (folder, *components))]
        done = start_as(user, python, script, HOME=str(folder), PATH=f"{folder}:{os.environ['PATH']}")
        assert done.returncode == 0, done.stderr[-3000:]
        yield json.loads(done.stdout.splitlines()[-1])
    finally:
        for path in folder.rglob("*"):
            if path.is_dir() and not path.is_symlink():
                path.chmod(0o700)
        shutil.rmtree(folder)


@needs_bubblewrap
def test_apps_of_both_kinds_answer_and_components_are_compiled_behind_it(seen):
    assert seen["components"]["compiled_by"] == ["bwrap"]
    assert (seen["components"]["answer"], seen["native"]["answer"]) == ('"hello"', '"HELLO"')
    assert seen["native"]["outside"] == "[]"


@needs_bubblewrap
def test_it_is_named_and_the_runner_confines_itself_inside_as_it_does_without(seen):
    within = {name for name in seen["trial"] if name != "bubblewrap"}
    assert {"seccomp", "limits", "private root", "net namespace"} <= within
    for mechanisms in (
        seen["trial"],
        seen["components"]["runner"]["confinement"],
        seen["native"]["runner"]["confinement"],
    ):
        assert set(mechanisms) == {*within, "bubblewrap"}


@needs_bubblewrap
@pytest.mark.parametrize("kind", ["components", "native"])
def test_compute_and_memory_are_measured_of_the_runner_and_not_of_bwrap(seen, kind):
    runner = seen[kind]["runner"]
    assert runner["names"][:2] == ["bwrap", "bwrap"]
    assert runner["names"][2].startswith("python")
    assert runner["last"]
    assert runner["namespace_pids"] == 2
    assert runner["held"][0] > 4 << 20 > runner["held"][1]
    assert runner["computed"][0] > 0.02 > runner["computed"][1]
    assert runner["loses_first"] == "1000"


@needs_bubblewrap
def test_the_host_holds_a_native_app_to_its_compute_through_it(seen):
    assert seen["native"]["burn"].startswith("ResourceLimit: The app computed longer than the 0.5 s of cpu_seconds")


@needs_bubblewrap
def test_the_host_learns_through_it_how_a_runner_ended(seen):
    assert seen["native"]["leave"] == "RunnerDied: The app's runner died: exit code 3."
    assert seen["native"]["crash"] == "RunnerDied: The app's runner died: signal SIGSEGV."


@needs_bubblewrap
@pytest.mark.parametrize("target", ["runner", "bwrap"])
def test_killing_either_fails_the_call_and_leaves_no_process(seen, target):
    processes, message, left = seen["components"][f"killed {target}"]
    assert processes == 3
    assert message == "RunnerDied: The app's runner died: signal SIGKILL."
    assert left == []
    assert seen["components"]["afterwards"] == '"again"'


@needs_bubblewrap
def test_closing_ends_all_of_it(seen):
    assert seen["components"]["closed"] == [3, []]


async def test_without_it_no_runner_starts_and_the_message_has_the_cure(tmp_path, monkeypatch):
    component = wat.component(tmp_path / "echo.wasm", wat.core_module())
    prepared = ComponentRuntime(Settings(home=tmp_path), no_host)
    await prepared.prepare(program_of(component), component)
    await prepared.close()
    other = wat.component(tmp_path / "other.wasm", wat.core_module(pages="2"))
    monkeypatch.setenv("PATH", str(tmp_path))
    runtime = ComponentRuntime(Settings(home=tmp_path, bubblewrap="on"), no_host)
    with pytest.raises(
        CannotConfine, match=r"`bwrap` is not found.*Install bubblewrap.*bubblewrap = \"off\""
    ) as raised:
        await runtime.describe(program_of(component))
    assert "安装 bubblewrap" in render(raised.value.message, "zh")
    with pytest.raises(CannotConfine):
        await runtime.prepare(program_of(other), other)
    assert runtime.runner_pids == []
    await runtime.close()
    with pytest.raises(CannotConfine):
        confinement(bubblewrap=True)


@needs_bubblewrap
@pytest.mark.skipif(os.getuid() != 0 or not shutil.which("setpriv"), reason="root gives up a right for it by setpriv")
def test_the_error_says_that_it_may_make_no_namespaces():
    code = (
        "from llmasos.runtimes.confinement import confinement\n"
        "try: confinement(bubblewrap=True)\n"
        "except Exception as error: print(error.code, error.message)\n"
    )
    done = start_as(os.getuid(), "setpriv", ["--bounding-set=-sys_admin", sys.executable, "-c", code])
    assert done.stdout.startswith("cannot-confine No app is started"), done.stderr
    assert "bwrap: " in done.stdout


def words_after(option: str, line: list[str]) -> list[str]:
    return [line[index + 1] for index, word in enumerate(line) if word == option]


def test_what_lies_within_another_path_is_bound_with_it_and_all_is_read_only():
    line = arguments(["/usr/lib/python3", "/usr/lib", "/usr/library", "/a/b"], {"LANG": "C"}, as_root=False)
    assert words_after("--ro-bind", line) == ["/a/b", "/usr/lib", "/usr/library"]
    assert not {"--bind", "--bind-try", "--tmpfs"} & set(line)
    assert words_after("--dev-bind", line) == ["/dev/null"]
    assert line[line.index("--setenv") :][:3] == ["--setenv", "LANG", "C"]


def test_a_plain_user_s_runner_holds_no_capability_and_root_s_what_it_drops_to_its_own_user_with():
    plain = arguments([], {}, as_root=False)
    root = arguments([], {}, as_root=True)
    assert words_after("--cap-drop", plain) == words_after("--cap-drop", root) == ["ALL"]
    assert "--unshare-user" in plain
    assert "--cap-add" not in plain
    assert "--unshare-user" not in root
    assert "CAP_SETUID" in words_after("--cap-add", root)
    assert "CAP_DAC_OVERRIDE" not in words_after("--cap-add", root)
