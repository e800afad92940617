"""The size of a home's prepared code, and the removal of what nothing needs."""

from __future__ import annotations

from pathlib import Path

from llmasos.runtimes.compiled import CompiledStore
from llmasos.runtimes.environments import Environments, wheel_folder
from llmasos.runtimes.prepared import SPARE_BYTES, YOUNG_SECONDS, remove_unneeded, size_bytes
from llmasos.runtimes.wheels import WheelStore

COMPILED = "compiled"
ENVIRONMENTS = "environments"


def collect(
    home: Path,
    keep: frozenset[str],
    *,
    spare_bytes: int = SPARE_BYTES,
    young_seconds: float = YOUNG_SECONDS,
    wheel_bytes: int = SPARE_BYTES,
) -> int:
    """Remove prepared code, and wheels that it was made of, that nothing needs; return how many bytes that freed.

    What a release in `keep` needs stays, if it fits this engine, interpreter and runner. Of the rest, old entries are
    removed, and the oldest of the recent ones beyond a bound. Safe under kill -9, and while other processes prepare
    or run apps. Blocks; call it in a thread.

    Args:
        home: The host's home.
        keep: The digests of the code that an installed, pending or previous release needs.
        spare_bytes: How much of the rest may stay in each folder because it is recent.
        young_seconds: A running install may be about to need entries younger than this.
        wheel_bytes: How much of the wheels may stay. A running install has copies of those that it needs.
    """
    compiled, environments = home / COMPILED, home / ENVIRONMENTS
    stores = ((compiled, CompiledStore(compiled)), (environments, Environments(environments)))
    wheels = WheelStore(wheel_folder(environments), max_bytes=wheel_bytes)
    return wheels.trim() + sum(
        remove_unneeded(folder, store.entries(), keep, spare_bytes=spare_bytes, young_seconds=young_seconds)
        for folder, store in stores
    )


def sizes(home: Path) -> dict[str, int]:
    """The sizes of the folders of prepared code on disk, in bytes, by name."""
    return {name: size_bytes(home / name) for name in (COMPILED, ENVIRONMENTS)}
