"""Adds the bundles of the first-party apps to what is built.

They are made here, from the sources in `plugins/`, by the checkout's own build tools and checked in its own sandbox,
so that a host installed from the wheel needs no build tools. A source distribution holds the bundles themselves: a
wheel built from it has the same bytes.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PACKAGED = "llmasos_marketplace/_first_party"


class FirstPartyApps(BuildHookInterface):  # type: ignore[type-arg]
    """Runs before the files of a wheel or a source distribution are collected."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Make the bundles, and include them in the package."""
        root = Path(self.root)
        if version == "editable":  # which reads the sources in the checkout
            return
        if (root / "src" / PACKAGED).is_dir():  # built from a source distribution
            return
        bundles = root / "build" / "first-party"
        self._make(root, bundles)
        target = f"src/{PACKAGED}" if self.target_name == "sdist" else PACKAGED
        build_data["force_include"][str(bundles)] = target

    def _make(self, root: Path, bundles: Path) -> None:
        uv = os.environ.get("UV") or shutil.which("uv")
        if uv is None:
            raise RuntimeError("Building llmasos from a checkout needs uv: pip install uv")
        # Compiled components are kept in a home of the build's own, so that a second build takes seconds.
        environment = {"LLMASOS_HOME": str(root / "build" / "home"), **os.environ}
        environment.pop("VIRTUAL_ENV", None)  # the build backend's, which has none of the packages
        module = "llmasos_marketplace.publishing.first_party"
        command = [uv, "run", "--project", str(root.parent), "--no-dev", "python", "-m", module]
        subprocess.run([*command, str(root.parent / "plugins"), str(bundles)], env=environment, check=True)
