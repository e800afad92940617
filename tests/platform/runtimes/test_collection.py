"""The removal of prepared code: what a release needs stays, whatever else runs or dies at the same time."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.platform.runtimes import wat
from tests.platform.runtimes.conftest import program_of

from llmasos.runtimes import compiled, environments, prepared
from llmasos.runtimes.collection import collect, sizes
from llmasos.runtimes.compiled import CompiledStore
from llmasos.runtimes.environments import Environments

NEEDED, OTHER = "a" * 64, "b" * 64
LONG_AGO = time.time() - 10 * 3600


def aged(path: Path) -> None:
    os.utime(path, (LONG_AGO, LONG_AGO))


def compiled_file(home: Path, digest: str, *, age: bool = True, size: int = 10_000) -> Path:
    """A compiled file with its record, of this engine."""
    path = CompiledStore(home / "compiled").path(digest)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(os.urandom(size))
    path.with_suffix(".json").write_text("{}")
    for each in (path, path.with_suffix(".json")) if age else ():
        aged(each)
    return path


def environment(home: Path, digest: str, *, age: bool = True) -> Path:
    """An environment of this Python and this runner, read-only as they are."""
    folder = home / "environments" / environments._key(digest)
    (folder / "app").mkdir(parents=True)
    (folder / "app" / "one.py").write_text("x = 1\n")
    (folder / "app").chmod(0o555)
    (folder / "complete").write_text(digest)
    if age:
        aged(folder / "complete")
    return folder


def test_what_no_release_needs_goes_and_what_one_needs_stays(tmp_path):
    """10-19: `compiled/` and `environments/` were never collected."""
    kept = [compiled_file(tmp_path, NEEDED), environment(tmp_path, NEEDED)]
    gone = [compiled_file(tmp_path, OTHER), environment(tmp_path, OTHER)]
    before = sum(sizes(tmp_path).values())
    freed = collect(tmp_path, frozenset({NEEDED}))
    assert freed > 0
    assert sum(sizes(tmp_path).values()) <= before - freed + 100_000  # the lock files are there now
    assert all(path.exists() for path in kept)
    assert not any(path.exists() for path in gone)
    assert not gone[0].with_suffix(".json").exists()


def test_what_another_engine_or_runner_made_goes_though_its_release_is_needed(tmp_path, monkeypatch):
    """10-19."""
    stale = [compiled_file(tmp_path, NEEDED), environment(tmp_path, NEEDED)]
    monkeypatch.setattr(compiled, "version", lambda _package: "999.0")
    monkeypatch.setattr(environments, "_key_suffix", lambda: "another")
    collect(tmp_path, frozenset({NEEDED}))
    assert not any(path.exists() for path in stale)


def test_what_is_young_stays_within_a_bound_and_the_oldest_of_it_goes_first(tmp_path):
    """10-19."""
    digests = [letter * 64 for letter in "cdef"]
    paths = [compiled_file(tmp_path, digest, age=False, size=100_000) for digest in digests]
    for number, path in enumerate(paths):
        os.utime(path, (time.time() - number, time.time() - number))
        os.utime(path.with_suffix(".json"), (time.time() - number, time.time() - number))
    collect(tmp_path, frozenset(), spare_bytes=250_000)
    assert [path.exists() for path in paths] == [True, True, False, False]


def test_what_killed_hosts_left_goes(tmp_path):
    """10-19."""
    path = compiled_file(tmp_path, NEEDED)
    half = path.with_name(f".{path.name}.abcdefgh")
    building = tmp_path / "environments" / f".building-{NEEDED[:16]}-xyz"
    leaving = tmp_path / "environments" / f".removing-{NEEDED[:16]}-xyz"
    half.write_bytes(b"half")
    orphan = CompiledStore(tmp_path / "compiled").path(OTHER)
    orphan.write_bytes(b"without a record")
    old_lock = path.with_suffix(".lock")
    for folder in (building, leaving):
        (folder / "app").mkdir(parents=True)
    old_lock.touch()
    for each in (half, building, leaving, orphan, old_lock):
        aged(each)
    collect(tmp_path, frozenset({NEEDED, OTHER}))
    assert path.exists()
    assert not any(each.exists() for each in (half, building, leaving, orphan))


def test_an_environment_that_a_runner_uses_stays(tmp_path):
    """10-19: also in another process, and whatever kills that."""
    folder = environment(tmp_path, OTHER)
    script = (
        "import sys; from pathlib import Path; from llmasos.runtimes.environments import Environment\n"
        f"Environment(Path({str(folder)!r})).hold(); print('held', flush=True); sys.stdin.read()\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as user:
        assert user.stdout.readline() == b"held\n"
        assert collect(tmp_path, frozenset()) == 0
        assert (folder / "complete").exists()
        user.kill()
    assert collect(tmp_path, frozenset()) > 0
    assert not folder.exists()


async def test_what_is_being_prepared_stays(tmp_path):
    """10-19."""
    path = compiled_file(tmp_path, OTHER)
    async with prepared.locked(tmp_path / "compiled", OTHER):
        assert collect(tmp_path, frozenset()) == 0
    assert path.exists()
    collect(tmp_path, frozenset())
    assert not path.exists()


def test_an_environment_that_was_removed_cannot_be_held(tmp_path):
    folder = environment(tmp_path, OTHER)
    found = Environments(tmp_path / "environments").find(OTHER)
    collect(tmp_path, frozenset())
    assert not folder.exists()
    with pytest.raises(FileNotFoundError):
        found.hold()


async def test_preparing_again_keeps_it_from_the_collector(tmp_path):
    path = wat.component(tmp_path / "echo.wasm", wat.core_module())
    digest, store = program_of(path).digest, CompiledStore(tmp_path / "compiled")
    await store.ensure(digest, path)
    for each in (store.path(digest), store.path(digest).with_suffix(".json")):
        aged(each)
    await store.ensure(digest, path)
    assert collect(tmp_path, frozenset()) == 0
    assert await store.find(digest) is not None


def test_an_empty_home_has_nothing_to_collect(tmp_path):
    assert collect(tmp_path, frozenset()) == 0
    assert sizes(tmp_path) == {"compiled": 0, "environments": 0}
    assert not list(tmp_path.iterdir())
