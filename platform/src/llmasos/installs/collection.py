"""Frees what no installed, pending or previous release needs: its code, compiled components and environments.

All of it is stored by digest and prepared again when an app runs, so removing too much costs time but no data. It is
safe under kill -9, and beside processes that install, prepare or run apps.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from llmasos.database.engine import Database
from llmasos.installs import repository
from llmasos.installs.code import CodeStore
from llmasos.runtimes import collection as prepared

# A running install prepares first and is recorded at its end; ten minutes are enough for any install.
_UNDER_WAY_SECONDS: Final = 600.0


def collect(database: Database, home: Path, *, thoroughly: bool = False) -> int:
    """Remove what no release needs, and return how many bytes that freed. Blocks; call it in a thread.

    Args:
        database: Where installations are recorded.
        home: The host's home.
        thoroughly: Also remove recent code within the bounds, unless a running install may need it.
    """
    with database.read() as session:
        needed = repository.code_digests(session)
    freed = CodeStore.in_home(home).sweep(needed)
    if thoroughly:
        return freed + prepared.collect(
            home, needed, spare_bytes=1 << 40, young_seconds=_UNDER_WAY_SECONDS, wheel_bytes=0
        )
    return freed + prepared.collect(home, needed)
