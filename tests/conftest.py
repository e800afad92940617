"""Fixtures and settings of every test."""

import os
import shutil
import sys
from pathlib import Path

pytest_plugins = ["databases", "network", "partition", "stock"]

# Workers of pytest-xdist and the commands that tests start inherit what is set here.

# Tests start the command hundreds of times; each would compile everything that it imports.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# A database waits for the disk at each commit, which tests do not need. Homes with compiled components need room.
MEMORY = Path("/dev/shm")
if MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > 6 << 30:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))
