"""An unwritable home or a full disk gives one clear error and leaves nothing half-done.

The file systems are real: a small one in memory that fills up, and a read-only mount.
"""

import contextlib
import json
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from llmasos.bundles.layout import MANIFEST
from llmasos.bundles.writer import write_bundle
from llmasos.runtimes.confinement import confinement

ROOT = Path(__file__).parents[2]
FULL = "Error: The disk is full: nothing was changed. Free some space in the home (LLMASOS_HOME) and run it again."
READ_ONLY = "Error: The home cannot be written: set LLMASOS_HOME to a folder that you may write to."
# It calls no model: these tests are about the home.
COUNTING = '''
from llmasos_sdk import App, Context

app = App()


@app.action
def count(ctx: Context, text: str) -> int:
    """Count the words of a text."""
    return len(text.split())
'''


def mount(*words: str) -> None:
    subprocess.run(["mount", *words], check=True, capture_output=True)


@contextmanager
def mounted(folder: Path, *words: str) -> Iterator[Path]:
    folder.mkdir(exist_ok=True)
    mount(*words, str(folder))
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def _may_mount() -> bool:
    try:
        with tempfile.TemporaryDirectory() as folder, mounted(Path(folder), "-t", "tmpfs", "tmpfs"):
            return True
    except (OSError, subprocess.SubprocessError):
        return False


may_mount = pytest.mark.skipif(
    not sys.platform.startswith("linux") or not _may_mount(), reason="mounting a file system needs root"
)


def full(folder: Path) -> Path:
    """Write a file that takes all the free space."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(1 << 12))
    return filler


def problems(somebody: Any) -> set[str]:
    """The parts in which doctor finds a problem, except free space, since these disks are small."""
    with somebody.start("doctor", "--json") as process:
        checks = json.loads(process.communicate(timeout=120)[0])["checks"]
    return {each["part"] for each in checks if each["status"] == "problem" and "MiB are free" not in each["detail"]}


def fails(somebody: Any, *words: str) -> str:
    """Run a command that must fail, and return its one-line error."""
    told = somebody.does(*words, code=1).stderr
    assert told.count("Error: ") == 1
    return told.splitlines()[-1]


@pytest.fixture(scope="module")
def author(stock: Any, tmp_path_factory: pytest.TempPathFactory, somebody: Any) -> Iterator[Any]:
    with stock.home(tmp_path_factory.mktemp("author") / "home") as home:
        yield somebody(home)


@pytest.fixture(scope="module")
def native(author: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A native app's bundle, and its id."""
    if not confinement().is_available:
        pytest.skip(str(confinement().missing))
    folder = tmp_path_factory.mktemp("native")
    author.does("new", "small", "--runtime", "python", cwd=folder)
    (folder / "small" / "app.py").write_text(COUNTING)
    return built(author, folder / "small")


def built(author: Any, project: Path) -> tuple[Path, str]:
    author.does("build", cwd=project)
    [bundle] = (project / "dist").glob("*.llmapp")
    return bundle, author.reads("inspect", str(bundle))["id"]


@may_mount
def test_a_disk_that_fills_up_while_a_component_compiles(somebody: Any, tmp_path: Path) -> None:
    [prebuilt] = (ROOT / "plugins" / "digest" / "prebuilt").glob("*.llmapp")
    with zipfile.ZipFile(prebuilt) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    bundle, app = tmp_path / "digest.llmapp", "acme/digest"
    write_bundle({**files, MANIFEST: files[MANIFEST].replace(b"llmasos/digest", app.encode())}, bundle)
    # It has 0.7 MB, and its compiled code 6.4.
    with mounted(tmp_path / "disk", "-t", "tmpfs", "-o", "size=6m", "tmpfs") as disk:
        user = somebody(disk / "home")
        assert fails(user, "publish", str(bundle)) == FULL
        user.does("show", app, code=5)
        assert (disk / "home" / "compiled").is_dir()
        assert [path for path in (disk / "home" / "compiled").rglob("*") if path.suffix in {".cwasm", ".json"}] == []
        assert list((disk / "home").glob("bundles/*")) == []
        assert problems(user) == set()


@may_mount
def test_a_disk_that_is_full_at_install_and_at_run_costs_nothing(
    somebody: Any, native: tuple[Path, str], tmp_path: Path
) -> None:
    bundle, app = native
    with mounted(tmp_path / "disk", "-t", "tmpfs", "-o", "size=16m", "tmpfs") as disk:
        user = somebody(disk / "home")
        filler = full(disk)
        assert "check the free space" in fails(user, "publish", str(bundle))
        filler.unlink()
        user.does("publish", str(bundle))
        filler = full(disk)
        assert fails(user, "install", app, "--yes").startswith(FULL)
        assert app in user.does("search").stdout  # reading still works
        assert "Nothing is installed" in user.does("list").stdout
        filler.unlink()
        user.does("install", app, "--yes")
        filler = full(disk)
        assert fails(user, "run", app, "count", "-p", "text=one two").startswith(FULL)
        assert fails(user, "quota", "set", "--app", app, "--meter", "tokens", "--window", "day", "--limit", "5")
        assert fails(user, "serve", "--port", "0").startswith(FULL)
        filler.unlink()
        assert user.reads("run", app, "count", "-p", "text=one two")["output"] == 2
        assert problems(user) == set()


@may_mount
def test_a_quickstart_on_a_small_disk_says_how_much_it_needs(somebody: Any, tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "-t", "tmpfs", "-o", "size=20m", "tmpfs") as disk:
        told = fails(somebody(disk / "home"), "quickstart")
        assert "The model smollm2 needs" in told
        assert "make room" in told


@may_mount
def test_a_read_only_home_is_read_and_not_written(somebody: Any, native: tuple[Path, str], tmp_path: Path) -> None:
    bundle, app = native
    user = somebody(tmp_path / "home")
    user.does("publish", str(bundle))
    user.does("install", app, "--yes")
    with mounted(tmp_path / "home", "--bind", str(tmp_path / "home")):
        mount("-o", "remount,ro,bind", str(tmp_path / "home"))
        assert app in user.does("list").stdout
        assert app in user.does("search", "small").stdout
        assert app in user.does("show", app).stdout
        for words in (
            ("run", app, "count", "-p", "text=a"),
            ("install", app, "--yes"),
            ("uninstall", app, "--keep-data"),
            ("tokens", "create"),
            ("serve", "--port", "0"),
        ):
            assert fails(user, *words) == READ_ONLY
        assert "set LLMASOS_HOME" in fails(user, "quickstart")
        assert problems(user) == {"home"}
    assert user.reads("run", app, "count", "-p", "text=a")["output"] == 1
    assert problems(user) == set()


@may_mount
def test_in_an_empty_read_only_home_commands_name_what_to_set(somebody: Any, tmp_path: Path) -> None:
    with mounted(tmp_path / "home", "-t", "tmpfs", "-o", "ro", "tmpfs") as home:
        for words in (("quickstart",), ("publish", "x.llmapp"), ("run", "a/b", "c"), ("serve", "--port", "0")):
            assert "set LLMASOS_HOME" in fails(somebody(home), *words)
        assert "Nothing is installed" in somebody(home).does("list").stdout


def test_two_installs_of_one_app_at_once_are_one_installation(
    somebody: Any, native: tuple[Path, str], tmp_path: Path
) -> None:
    bundle, app = native
    user = somebody(tmp_path / "home")
    user.does("publish", str(bundle))
    both = [user.start("install", app, "--yes") for _ in range(2)]
    told = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0], told
    assert [row["app"] for row in user.reads("list")["items"]] == [app]
    assert user.reads("run", app, "count", "-p", "text=a b c")["output"] == 3
    assert problems(user) == set()
