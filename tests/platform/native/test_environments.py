"""Wheels, locks and environments of native apps, built by the real uv."""

import asyncio
import hashlib
import io
import py_compile
import random
import resource
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from llmasos.authoring.native import build_native
from llmasos.bundles.archive import unpack
from llmasos.bundles.manifest import parse_manifest
from llmasos.bundles.reader import code_digest
from llmasos.bundles.writer import pack
from llmasos.errors import AppFailed, BundleRejected, Invalid, ManifestRejected, NotFound
from llmasos.runtimes import bytecode, packages
from llmasos.runtimes.building import base_python
from llmasos.runtimes.confinement import confinement
from llmasos.runtimes.environments import Environments
from llmasos.runtimes.prepared import size_bytes

SOURCE = """
from llmasos_sdk import App, Context
import sibling

app = App()


@app.action
def shout(ctx: Context, text: str) -> str:
    return sibling.upper(text)
"""
MANIFEST = """
schema = 1
id = "acme/shouter"
version = "1.0.0"
license = "Apache-2.0"
name.en = "Shouter"
summary.en = "Shouts."
[runtime]
kind = "python"
source = "app.py"
requirements = [{requirements}]
"""


def project_in(folder: Path, *requirements: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "app.py").write_text(SOURCE)
    (folder / "sibling.py").write_text("def upper(text):\n    return text.upper()\n")
    (folder / "test_app.py").write_text("assert False, 'tests stay at home'\n")
    return folder


def manifest_of(*requirements: str):
    return parse_manifest(MANIFEST.format(requirements=", ".join(f'"{r}"' for r in requirements)))


def code_in(folder: Path, files: dict[str, bytes]) -> tuple[str, Path]:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return code_digest(files), folder


def built(folder: Path, *requirements: str) -> dict[str, bytes]:
    code = build_native(project_in(folder), manifest_of(*requirements))
    return {code.wheel_name: code.wheel, "requirements.txt": code.lock.encode()}


def test_the_same_source_gives_the_same_bytes(tmp_path):
    one, two = built(tmp_path / "one"), built(tmp_path / "two")
    assert one == two
    (name,) = [name for name in one if name.endswith(".whl")]
    with zipfile.ZipFile(tmp_path / "one.whl", "w") as _:
        pass
    (tmp_path / name).write_bytes(one[name])
    names = zipfile.ZipFile(tmp_path / name).namelist()
    assert "sibling.py" in names
    assert "test_app.py" not in names
    assert one["requirements.txt"] == b""


async def test_an_environment_is_built_once_and_is_read_only(tmp_path):
    digest, code = code_in(tmp_path / "code", built(tmp_path / "project"))
    environments = Environments(tmp_path / "environments")
    results = await asyncio.gather(*(environments.prepare(digest, code) for _ in range(3)))
    assert len(set(results)) == 1
    environment = results[0]
    assert (environment.packages / "sibling.py").stat().st_mode & 0o222 == 0
    assert list(environment.packages.rglob("*.pyc"))
    assert (environment.runner / "llmasos_sdk").is_dir()
    assert not [path for path in (tmp_path / "environments").iterdir() if path.name.startswith(".building")]


async def test_two_apps_have_two_versions_of_one_package(tmp_path):
    environments = Environments(tmp_path / "environments")
    for version in ("2.0.0", "2.1.0"):
        files = built(tmp_path / version, f"iniconfig=={version}")
        digest, code = code_in(tmp_path / f"code-{version}", files)
        environment = await environments.prepare(digest, code)
        assert (environment.packages / f"iniconfig-{version}.dist-info").is_dir()
        file = environment.packages / "iniconfig" / "__init__.py"
        assert file.stat().st_nlink == 1, "a hard link to the cache would let one app change another's"
        assert "://" not in files["requirements.txt"].decode()


async def test_an_interrupted_build_is_built_again(tmp_path):
    digest, code = code_in(tmp_path / "code", built(tmp_path / "project"))
    environments = Environments(tmp_path / "environments")
    environment = await environments.prepare(digest, code)
    (environment.folder / "complete").unlink()
    assert environments.find(digest) is None
    left_over = tmp_path / "environments" / f".building-{digest[:16]}-abc"
    left_over.mkdir()
    assert (await environments.prepare(digest, code)) == environment
    assert (environment.folder / "complete").is_file()
    assert not left_over.exists()


@pytest.mark.parametrize(
    ("lock", "said"),
    [
        ("iniconfig==2.1.0\n", "no sha256 hash"),
        ("iniconfig>=2 --hash=sha256:" + "0" * 64, "not pinned"),
        ("iniconfig @ https://example.com/x.whl --hash=sha256:" + "0" * 64, "names an address"),
        ("--index-url https://example.com\n", "is an option"),
        ("-e .\n", "is an option"),
        ("# a \\\n--index-url https://example.com\n", "goes on in the next line"),
        ("iniconfig==2.1.0 # a\\\nx @ https://example.com/x.whl", "goes on in the next line"),
        ("#\r--index-url https://example.com\n", "is an option"),
        ("#\u2028--index-url https://example.com\n", "is an option"),
    ],
)
async def test_a_lock_with_a_line_that_is_not_pinned_and_hashed_is_refused(tmp_path, lock, said):
    """11-S16, its kind: a comment that ended in a backslash hid the line after it from the check, and not from uv."""
    files = {**built(tmp_path / "project"), "requirements.txt": lock.encode()}
    digest, code = code_in(tmp_path / "code", files)
    with pytest.raises(BundleRejected, match=said):
        await Environments(tmp_path / "environments").prepare(digest, code)
    assert not (tmp_path / "environments").exists()


async def test_a_wheel_whose_hash_changed_is_refused(tmp_path):
    """SECURITY C5."""
    files = built(tmp_path / "project", "iniconfig==2.1.0")
    real = files["requirements.txt"].decode()
    wrong = "iniconfig==2.1.0 --hash=sha256:" + hashlib.sha256(b"another").hexdigest()
    assert real != wrong
    digest, code = code_in(tmp_path / "code", {**files, "requirements.txt": wrong.encode()})
    with pytest.raises(AppFailed, match="not the one that the lock pins"):
        await Environments(tmp_path / "environments").prepare(digest, code)


async def test_a_wheel_changed_after_the_install_is_refused(tmp_path):
    files = built(tmp_path / "project")
    digest = code_digest(files)
    name = next(name for name in files if name.endswith(".whl"))
    _, code = code_in(tmp_path / "code", {**files, name: files[name] + b" "})
    with pytest.raises(BundleRejected, match="not the one that was installed"):
        await Environments(tmp_path / "environments").prepare(digest, code)


async def test_a_source_distribution_is_never_built(tmp_path, monkeypatch):
    """SECURITY C5."""
    source = tmp_path / "source"
    (source / "evil").mkdir(parents=True)
    (source / "pyproject.toml").write_text('[project]\nname = "evil-sdist"\nversion = "1.0"\n')
    (source / "setup.py").write_text(
        f"open({str(tmp_path / 'ran')!r}, 'w').close()\nimport setuptools; setuptools.setup()"
    )
    index = tmp_path / "index"
    index.mkdir()
    archive = index / "evil_sdist-1.0.tar.gz"
    subprocess.run(
        ["tar", "czf", archive, "-C", source, "--transform", "s,^,evil_sdist-1.0/,", "setup.py", "pyproject.toml"],
        check=True,
    )
    monkeypatch.setenv("UV_FIND_LINKS", str(index))
    lock = f"evil-sdist==1.0 --hash=sha256:{hashlib.sha256(archive.read_bytes()).hexdigest()}"
    digest, code = code_in(tmp_path / "code", {**built(tmp_path / "project"), "requirements.txt": lock.encode()})
    with pytest.raises(AppFailed, match="has no wheel"):
        await Environments(tmp_path / "environments").prepare(digest, code)
    assert not (tmp_path / "ran").exists()


def test_errors_of_a_project_name_the_cure(tmp_path):
    project = project_in(tmp_path / "project")
    (project / "app.py").write_text("import os\n")
    with pytest.raises(Invalid, match=r"write `app = App\(\)`"):
        build_native(project, manifest_of())
    (project / "app.py").unlink()
    with pytest.raises(NotFound, match="there is no file"):
        build_native(project, manifest_of())
    with pytest.raises(ManifestRejected, match="names an address"):
        manifest_of("x @ https://example.com/x.whl")
    with pytest.raises(Invalid, match="cannot be locked"):
        build_native(project_in(project), manifest_of("iniconfig==999"))


async def test_a_pth_file_of_a_wheel_is_never_run(tmp_path):
    """SECURITY C5."""
    digest, code = code_in(tmp_path / "code", built(tmp_path / "project"))
    environment = await Environments(tmp_path / "environments").prepare(digest, code)
    environment.packages.chmod(0o755)
    (environment.packages / "evil.pth").write_text(f"import os; open({str(tmp_path / 'ran')!r}, 'w').close()\n")
    (environment.packages / "sitecustomize.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n")
    command = [
        sys._base_executable,
        "-I",
        "-S",
        "-c",
        f"import sys; sys.path.append({str(environment.packages)!r}); import app",
    ]
    subprocess.run(command, check=False, capture_output=True)
    assert not (tmp_path / "ran").exists()


def with_module(files: dict[str, bytes], name: str, source: bytes) -> dict[str, bytes]:
    """The same app, with another module in its wheel."""
    wheel = next(each for each in files if each.endswith(".whl"))
    return {**files, wheel: pack({**unpack(files[wheel]), name: source})}


async def test_a_wheel_that_unpacks_to_gigabytes_is_refused_before_anything_unpacks_it(tmp_path):
    """11-S2: a wheel of 3 MB unpacked to 3 GB, for good. SECURITY C1."""
    files = built(tmp_path / "project")
    wheel = next(name for name in files if name.endswith(".whl"))
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        archive.writestr("zeros.bin", bytes(100 << 20))
    digest, code = code_in(tmp_path / "code", {**files, wheel: bomb.getvalue()})
    assert len(bomb.getvalue()) < 200_000
    with pytest.raises(BundleRejected, match=r"whl: .*(unpacks to|times its size)"):
        await Environments(tmp_path / "environments").prepare(digest, code)
    assert size_bytes(tmp_path / "environments") < 100_000


@pytest.mark.skipif(confinement().missing is not None, reason="this system cannot confine what compiles bytecode")
async def test_a_source_that_the_compiler_cannot_hold_costs_neither_the_host_nor_the_app(tmp_path, monkeypatch):
    """11-S2: a bundle of 33 KB made the host take 11 GB, since it compiled the app's Python itself."""
    digits = random.Random(1).choices(range(10), k=2_000_000)
    bomb = b"x = [" + b",".join(b"%d" % digit for digit in digits) + b"]"
    files = with_module(built(tmp_path / "project"), "bomb.py", bomb)
    monkeypatch.setattr(bytecode, "MEMORY_BYTES", 256 << 20)
    monkeypatch.setattr(py_compile, "compile", lambda file, *_, **__: file.count("/app/") and pytest.fail(file))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    digest, code = code_in(tmp_path / "code", files)
    environment = await Environments(tmp_path / "environments").prepare(digest, code)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10
    names = {path.name.partition(".")[0] for path in environment.packages.rglob("*.pyc")}
    assert "app" in names
    assert "bomb" not in names


@pytest.mark.skipif(confinement().missing is not None, reason="this system cannot confine what compiles bytecode")
@pytest.mark.parametrize("python_writes_none", [False, True])
async def test_bytecode_lies_beside_each_source_and_is_used(tmp_path, monkeypatch, python_writes_none):
    """It went to the home's folder of bytecode where PYTHONDONTWRITEBYTECODE is set, and every start compiled."""
    if python_writes_none:
        monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
        monkeypatch.setattr(sys, "dont_write_bytecode", False)  # as `llmasos.bytecode` does then
        monkeypatch.setattr(sys, "pycache_prefix", str(tmp_path / "bytecode"))
    digest, code = code_in(tmp_path / "code", built(tmp_path / "project"))
    environment = await Environments(tmp_path / "environments").prepare(digest, code)
    script = (
        f"import sys; sys.path[:0] = [{str(environment.runner)!r}, {str(environment.packages)!r}]; import sibling, app;"
        "print(sibling.__cached__, sibling.upper.__code__.co_filename, sibling.upper('a'))"
    )
    command = [base_python(), "-v", "-I", "-S", "-c", script]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    cached, file, answer = done.stdout.split()
    assert f"code object from '{cached}'" in done.stderr
    assert file == str(environment.packages / "sibling.py")
    assert answer == "A"


async def test_packages_that_are_too_large_are_refused_and_leave_nothing(tmp_path, monkeypatch):
    """11-S2: what the packages of a lock unpack to was not counted."""
    files = built(tmp_path / "project", "iniconfig==2.1.0")
    monkeypatch.setattr(packages, "_MAX_FILES", 3)
    digest, code = code_in(tmp_path / "code", files)
    with pytest.raises(AppFailed, match="take more than"):
        await Environments(tmp_path / "environments").prepare(digest, code)
    assert size_bytes(tmp_path / "environments") < 100_000


def test_a_link_among_the_packages_is_refused(tmp_path):
    (tmp_path / "inside").symlink_to("/etc/passwd")
    with pytest.raises(AppFailed, match="is no file"):
        packages.check_tree(tmp_path)


def test_a_wheel_for_another_machine_is_refused(tmp_path):
    with pytest.raises(AppFailed, match="another kind of machine"):
        packages.install_wheel("app-1.0-cp39-cp39-win32.whl", b"", tmp_path)


def test_a_wheel_does_not_replace_a_folder_of_a_package(tmp_path):
    (tmp_path / "taken").mkdir()
    with pytest.raises(BundleRejected, match="'taken' is something else"):
        packages.install_wheel("app-1.0-py3-none-any.whl", pack({"taken": b"x"}), tmp_path)


def test_only_the_importable_parts_of_a_wheels_data_are_installed(tmp_path):
    files = {"app-1.0.data/purelib/inner/one.py": b"", "app-1.0.data/scripts/run": b"", "two.py": b""}
    packages.install_wheel("app-1.0-py3-none-any.whl", pack(files), tmp_path)
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()) == [
        "inner/one.py",
        "two.py",
    ]
