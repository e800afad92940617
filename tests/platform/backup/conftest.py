"""Homes with data, and a backup of one."""

from pathlib import Path

import pytest
from tests.platform.backup.homes import PASSPHRASE, Home

from llmasos.backup import sealing
from llmasos.backup.make import make_backup


@pytest.fixture(autouse=True)
def _cheap_passphrases(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each takes 64 MiB and a fifth of a second, by design; the command's tests pay it."""
    monkeypatch.setattr(sealing, "_COST", 1 << 10)


@pytest.fixture
def home(tmp_path: Path, database_url: str) -> Home:
    filled = Home(tmp_path / "home", database_url)
    filled.fill(tmp_path)
    return filled


@pytest.fixture
def sqlite_home(tmp_path: Path) -> Home:
    filled = Home(tmp_path / "sqlite", f"sqlite:///{tmp_path / 'sqlite' / 'llmasos.db'}")
    filled.fill(tmp_path)
    return filled


@pytest.fixture
def backup(sqlite_home: Home, tmp_path: Path) -> Path:
    return make_backup(sqlite_home.folder, sqlite_home.url, tmp_path / "b.llmbackup", PASSPHRASE).path
