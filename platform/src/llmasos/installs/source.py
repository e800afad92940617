"""The source of releases for installs. The marketplace's catalog implements it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from llmasos.bundles.manifest import Manifest


@dataclass(frozen=True, slots=True)
class Candidate:
    """One release that an install may choose."""

    app_id: str
    version: str
    digest: str
    """SHA-256 of the bundle, hexadecimal."""
    manifest: Manifest
    yanked: bool = False
    quarantined: bool = False


class ReleaseSource(Protocol):
    """Lists releases and provides their bundles."""

    def releases(self, app_id: str) -> list[Candidate]:
        """Every release of an app, newest first; empty if it has none."""
        ...

    def bundle(self, digest: str) -> Path:
        """The bundle file.

        Raises:
            NotFound: It is not in the store.
        """
        ...
