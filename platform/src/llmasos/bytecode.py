"""Compiled Python, kept in the home where it may not stand beside the sources.

Containers often tell Python to write no bytecode (PYTHONDONTWRITEBYTECODE); then every start compiles thousands of
modules anew, which for litellm alone takes as long as a model's answer.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

# It takes about 50 MB, and is the last thing that a small disk is for.
SPARE_BYTES: Final = 1 << 30


def keep_in(home: Path) -> None:
    """Keep the bytecode of what is imported from here on in the home, if Python keeps none.

    Not where anybody else may write to the home: who can put bytecode there can run code as this user. Nor where the
    disk has little room, or where an installer compiled the packages: they would be compiled a second time.

    Args:
        home: Nothing is done while it is not there.
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
    """Whether the package that takes longest was compiled where it stands, and so the others."""
    found = importlib.util.find_spec("litellm")
    if found is None or found.origin is None:
        return False
    return Path(importlib.util.cache_from_source(found.origin)).exists()
