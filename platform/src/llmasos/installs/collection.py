"""Frees what no installed, pending or previous release needs: its code, compiled components and environments.

All of it is kept by digest and prepared again when an app runs, so that removing too much costs time and no data. It is
safe under kill -9, and beside processes that install, prepare or run apps.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from llmasos.database.engine import Database
from llmasos.installs import repository
from llmasos.installs.code import CodeStore
from llmasos.runtimes import collection as prepared

# An install that is under way prepares first and is recorded at its end; ten minutes are enough for any of them.
_UNDER_WAY_SECONDS: Final = 600.0


def collect(database: Database, home: Path, *, thoroughly: bool = False) -> int:
    """Remove what no release needs, and return how many bytes that freed. Blocks; call it in a thread.

    Args:
        database: Where installations are recorded.
        home: The host's home.
        thoroughly: Remove also what is young and within the bounds, as long as no install can be about to need it.
    """
    with database.read() as session:
        needed = repository.code_digests(session)
    freed = CodeStore.in_home(home).sweep(needed)
    if thoroughly:
        return freed + prepared.collect(home, needed, spare_bytes=1 << 40, young_seconds=_UNDER_WAY_SECONDS)
    return freed + prepared.collect(home, needed)
