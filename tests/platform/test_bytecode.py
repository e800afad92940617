"""Bytecode is kept in the home if Python keeps none, and never in a place that others may write."""

import os
import py_compile
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from llmasos import bytecode

COMMAND = [sys.executable, "-m", "llmasos_server.cli", "--help"]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    tmp_path.chmod(0o700)
    (tmp_path / "config.toml").touch()
    return tmp_path


def kept(home: Path, *, compiled: bool = False, **environment: str) -> int:
    """How many files the command keeps in the home, whether or not packages were compiled beside their sources."""
    with tempfile.TemporaryDirectory() as sources:
        (package := Path(sources, "litellm")).mkdir()
        (package / "__init__.py").touch()
        if compiled:
            py_compile.compile(str(package / "__init__.py"))
        told = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
        told |= {"LLMASOS_HOME": str(home), "PYTHONPATH": sources, **environment}
        subprocess.run(COMMAND, env=told, check=True, capture_output=True)
    return len(list(home.glob("bytecode/**/*.pyc")))


def test_it_is_kept_where_python_is_told_to_write_none(home: Path) -> None:
    assert kept(home, PYTHONDONTWRITEBYTECODE="1") > 50


def test_it_is_not_kept_twice_where_the_packages_were_compiled(home: Path) -> None:
    assert kept(home, compiled=True, PYTHONDONTWRITEBYTECODE="1") == 0


def test_python_keeps_its_own_ways_otherwise(home: Path) -> None:
    assert kept(home) == 0
    mine = home / "mine"
    assert kept(home, PYTHONDONTWRITEBYTECODE="1", PYTHONPYCACHEPREFIX=str(mine)) == 0
    assert not mine.exists()


@pytest.mark.parametrize("mode", [0o770, 0o707], ids=["a group", "others"])
def test_a_home_that_others_may_write_holds_no_code(home: Path, mode: int) -> None:
    home.chmod(mode)
    assert kept(home, PYTHONDONTWRITEBYTECODE="1") == 0


def test_a_disk_with_little_room_is_left_alone(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = list(os.statvfs(home))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setattr(sys, "pycache_prefix", None)
    monkeypatch.setattr(bytecode, "_is_beside_the_sources", lambda: False)
    for free, kept_in in ((bytecode.SPARE_BYTES, None), (bytecode.SPARE_BYTES + 1, str(home / "bytecode"))):
        told[0:5] = [1, 1, free, free, free]
        monkeypatch.setattr(os, "statvfs", lambda _path: os.statvfs_result(told))
        bytecode.keep_in(home)
        assert sys.pycache_prefix == kept_in


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_home_of_somebody_else_holds_no_code(home: Path) -> None:
    os.chown(home, 12345, 12345)
    assert kept(home, PYTHONDONTWRITEBYTECODE="1") == 0


def test_help_leaves_nothing_where_there_is_no_home_yet(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    assert kept(tmp_path, PYTHONDONTWRITEBYTECODE="1") == 0
    kept(tmp_path / "home", PYTHONDONTWRITEBYTECODE="1")
    assert list(tmp_path.iterdir()) == []
