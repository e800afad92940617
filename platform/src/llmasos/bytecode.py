"""Keeps compiled Python in the home if it may not be written beside the sources.

Containers often forbid Python to write bytecode (PYTHONDONTWRITEBYTECODE); then every start compiles thousands of
modules again, which for litellm alone takes as long as a model's answer.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

# It takes about 50 MB, which a small disk cannot spare.
SPARE_BYTES: Final = 1 << 30


def keep_in(home: Path) -> None:
    """From now on, keep imported modules' bytecode in the home, if Python keeps none.

    Does nothing if others may write to the home, since bytecode there runs as this user, nor if the
    disk has little room, nor if an installer compiled the packages, which would then be compiled twice.

    Args:
        home: Does nothing if it does not exist.
    """
    if not sys.dont_write_bytecode or sys.pycache_prefix is not None or sys.platform == "win32":
        return
    with suppress(OSError):
        found, disk = home.stat(), os.statvfs(home)
        is_mine_alone = found.st_uid == os.geteuid() and not found.st_mode & 0o022
        if is_mine_alone and disk.f_bavail * disk.f_frsize > SPARE_BYTES and not _is_beside_the_sources():
            sys.pycache_prefix = str(home / "bytecode")
            sys.dont_write_bytecode = False


def _is_beside_the_sources() -> bool:
    """Whether the slowest package was compiled in place, which implies the others."""
    found = importlib.util.find_spec("litellm")
    if found is None or found.origin is None:
        return False
    return Path(importlib.util.cache_from_source(found.origin)).exists()
