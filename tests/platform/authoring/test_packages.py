"""Packages that an app adds: locked by hash, bundled into a component, there in the app's tests."""

import re
import subprocess
import tomllib
import zipfile
from collections.abc import Iterable
from pathlib import Path

import pytest
from stock import Stock
from tests.platform.authoring.apps_with_packages import write_app
from tests.platform.authoring.component_runs import ComponentRun, describe
from tests.platform.authoring.projects import error_of_entry
from typer.testing import CliRunner

from llmasos.authoring import packages, python
from llmasos.authoring.add import add
from llmasos.authoring.build import build
from llmasos.authoring.packages import install_pure, lock
from llmasos.authoring.process import BuildFailed
from llmasos.authoring.project import open_project
from llmasos.authoring.testing import environment, pytest_command
from llmasos.bundles.reader import read_bundle
from llmasos.errors import Invalid, ManifestRejected
from llmasos_sdk.testing import FakeHost
from llmasos_server.cli.shell import app

# A package that another one needs, imports a module late, and reads a file beside it; its version is its metadata's.
WORDY = {
    "wordy/__init__.py": "def shout(text):\n    from wordy import late\n    return late.shout(text)\n",
    "wordy/late.py": """
import pkgutil
from importlib.metadata import version
from marks import MARK
def shout(text):
    import decimal
    words = pkgutil.get_data("wordy", "data.txt").decode().strip()
    return f"{text.upper()}{MARK} {words} {version('wordy')} {decimal.Decimal(1) / 4}"
""",
    "wordy/data.txt": "and so on",
}
TESTS = """
from llmasos_sdk.testing import call


def test_go(llmasos_app, fake_context):
    assert call(llmasos_app, "go", fake_context, text="a") == "A! and so on 2.1 0.25"
"""


def _wheel(
    folder: Path, name: str, version: str, files: dict[str, str], tag: str = "py3-none-any", inside: str | None = None
) -> None:
    needs = "Requires-Dist: marks>=1\n" if name == "wordy" else ""
    information = f"{name}-{version}.dist-info"
    files = {
        **files,
        f"{information}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}",
        f"{information}/WHEEL": f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: {inside or tag}\n",
    }
    record = "".join(f"{each},," + "\n" for each in [*files, f"{information}/RECORD"])
    with zipfile.ZipFile(folder / f"{name}-{version}-{tag}.whl", "w") as archive:
        for each, text in {**files, f"{information}/RECORD": record}.items():
            archive.writestr(each, text)


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheels")
    _wheel(folder, "wordy", "2.1", WORDY)
    _wheel(folder, "marks", "1.0", {"marks.py": 'MARK = "!"\n'})
    _wheel(folder, "fast", "1.0", {"fast.py": ""}, "py3-none-manylinux2014_x86_64")
    # Pure by its name alone: the tag inside counts too.
    _wheel(folder, "disguised", "1.0", {"disguised.py": ""}, inside="cp314-cp314-pyodide_2024_0_wasm32")
    return folder


@pytest.fixture(autouse=True)
def _index(wheels: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LLMASOS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("UV_FIND_LINKS", str(wheels))
    monkeypatch.setenv("UV_NO_INDEX", "1")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv"))


def requirements(project: Path) -> list[str]:
    return tomllib.loads((project / "llmapp.toml").read_text())["runtime"].get("requirements", [])


async def test_a_component_has_the_packages_that_were_added(stock: Stock, tmp_path: Path) -> None:
    """11-33: a component could not have a dependency; now a pure one comes along, with its files and late imports."""
    project = write_app(tmp_path / "p")
    assert await add(project, ["Wordy"]) == ["Wordy>=2.1"]
    assert requirements(project) == ["Wordy>=2.1"]
    assert "# mine" in (project / "llmapp.toml").read_text()
    lock = (project / "requirements.lock").read_text()
    assert "wordy==2.1" in lock
    assert "marks==1.0" in lock
    assert lock.count("--hash=sha256:") == 2
    with stock.home(tmp_path / "home"):
        bundle = read_bundle(await build(project, describe=describe))
    path = tmp_path / "app.wasm"
    path.write_bytes(bundle.component or b"")
    assert ComponentRun(path, FakeHost()).call("go", text="a") == "A! and so on 2.1 0.25"


def test_an_app_whose_package_was_not_added_says_how_to_add_it(tmp_path: Path) -> None:
    said = error_of_entry(write_app(tmp_path / "p") / "app.py", tmp_path / "staged")
    assert re.search(r"app.py, line 10: .*wordy.*`llmasos add`", said)


@pytest.mark.parametrize("name", ["fast", "disguised"])
async def test_a_package_with_machine_code_is_refused_for_a_component(name: str, tmp_path: Path) -> None:
    """11-33: and the project stays as it was."""
    project = write_app(tmp_path / "p")
    before = {path.name: path.read_bytes() for path in project.iterdir()}
    with pytest.raises(BuildFailed, match=rf"{name} is not pure Python.*kind = \"python\".*--runtime python"):
        await add(project, ["wordy", name])
    assert {path.name: path.read_bytes() for path in project.iterdir()} == before


async def test_a_native_app_takes_a_package_with_machine_code(tmp_path: Path) -> None:
    project = write_app(tmp_path / "p", kind="python")
    assert await add(project, ["fast", "wordy>=2"]) == ["fast>=1.0", "wordy>=2"]
    assert requirements(project) == ["fast>=1.0", "wordy>=2"]
    assert await add(project, ["wordy==2.1"]) == ["wordy==2.1"]
    assert requirements(project) == ["fast>=1.0", "wordy==2.1"]


@pytest.mark.parametrize("name", ["no-such-package", "not a package", "wordy>=9"])
async def test_a_package_that_cannot_be_had_changes_nothing(name: str, tmp_path: Path) -> None:
    project = write_app(tmp_path / "p")
    with pytest.raises(Invalid):
        await add(project, [name])
    assert requirements(project) == []
    assert not (project / "requirements.lock").exists()


async def test_a_package_that_is_not_the_locked_one_is_not_built_in(wheels: Path, tmp_path: Path) -> None:
    lock = f"marks==1.0 --hash=sha256:{'0' * 64}\n"
    with pytest.raises(Invalid, match="not the one that the lock pins"):
        await install_pure(lock, tmp_path / "packages")


def test_a_lock_that_stays_the_same_is_not_written_again(tmp_path: Path) -> None:
    """11-33: `llmasos dev` took the lock that each of its builds wrote for a change, and built without end."""
    project = write_app(tmp_path / "p")
    text = lock(project, ["wordy"])
    before = (project / "requirements.lock").stat().st_ino
    assert lock(project, ["wordy"]) == text
    assert (project / "requirements.lock").stat().st_ino == before


@pytest.mark.parametrize("kind", ["wasm", "python"])
async def test_the_tests_of_an_app_have_its_packages(kind: str, tmp_path: Path) -> None:
    """11-33: `llmasos test` of a native app failed at the import of what the app requires."""
    project = write_app(tmp_path / "p", kind=kind, **{"tests/test_app.py": TESTS})
    await add(project, ["wordy"])
    opened = open_project(project)
    for _ in range(2):
        run = subprocess.run(
            pytest_command(opened),
            cwd=project,
            env=await environment(opened),
            capture_output=True,
            text=True,
            check=False,
        )
        assert run.returncode == 0, run.stdout
    assert not {"wordy", ".llmasos"} & {path.name for path in python.source_files(project)}


@pytest.mark.parametrize("arguments", [[], ["--json"]])
def test_the_command_says_what_it_added(arguments: list[str], tmp_path: Path) -> None:
    project = write_app(tmp_path / "p")
    done = CliRunner().invoke(app, ["add", "marks", "--path", str(project), *arguments])
    assert done.exit_code == 0, done.stderr
    assert "marks>=1.0" in done.stdout
    assert requirements(project) == ["marks>=1.0"]
    refused = CliRunner().invoke(app, ["add", "fast", "--path", str(project), *arguments])
    assert refused.exit_code == 1
    assert "--runtime python" in refused.stderr


def test_javascript_names_no_python_packages(tmp_path: Path) -> None:
    project = write_app(tmp_path / "p", source="app.js")
    manifest = project / "llmapp.toml"
    manifest.write_text(manifest.read_text().replace("[runtime]", '[runtime]\nrequirements = ["wordy"]'))
    with pytest.raises(ManifestRejected, match="only an app made from a Python source"):
        open_project(project)


def test_a_lock_is_resolved_again_only_if_it_or_the_requirements_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """11-33: a build of what did not change asks no index."""
    resolved: list[list[str]] = []

    def resolve(_project: Path, requirements: Iterable[str]) -> str:
        resolved.append(list(requirements))
        return "".join(f"{each}==1.0 --hash=sha256:{'0' * 64}\n" for each in resolved[-1])

    monkeypatch.setattr(packages, "resolve", resolve)
    first = packages.lock(tmp_path, ["a"])
    assert packages.lock(tmp_path, ["a"]) == first
    assert len(resolved) == 1
    assert "b==1.0" in packages.lock(tmp_path, ["b", "a"])
    (tmp_path / "requirements.lock").write_text(first)
    packages.lock(tmp_path, ["b", "a"])
    assert len(resolved) == 3
    assert (tmp_path / ".llmasos" / ".gitignore").read_text() == "*\n"


def test_a_lock_writes_nothing_outside_its_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """11-S16: the folder of what is kept in a project is no link."""
    project, outside = tmp_path / "p", tmp_path / "outside"
    project.mkdir()
    outside.mkdir()
    (project / ".llmasos").symlink_to(outside)
    monkeypatch.setattr(packages, "resolve", lambda *_: f"a==1.0 --hash=sha256:{'0' * 64}\n")
    with pytest.raises(BuildFailed, match="is a link to a place outside"):
        packages.lock(project, ["a"])
    assert list(outside.iterdir()) == []
