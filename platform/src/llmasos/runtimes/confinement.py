"""Whether this system can confine a native app, and the error if it cannot.

A runner confines itself; the host asks for a trial of it in a process of its own.
"""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from llmasos.errors import CannotConfine
from llmasos.i18n import _
from llmasos.runtimes import process
from llmasos.runtimes.bubblewrap import MECHANISM, prefix
from llmasos.runtimes.building import base_python

_TRIAL_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Confinement:
    """The mechanisms that would confine a native app's runner, or what is missing for that."""

    mechanisms: tuple[str, ...]
    missing: str | None

    @property
    def is_available(self) -> bool:
        """Whether native apps can run here."""
        return self.missing is None


def confinement(*, bubblewrap: bool = False) -> Confinement:
    """Determine once what this system offers, by a trial in a process of its own, which takes about 0.1 s.

    Args:
        bubblewrap: Whether runners are started behind bubblewrap.

    Raises:
        CannotConfine: bubblewrap is required but cannot be used here.
    """
    if not bubblewrap:
        return _tried(())
    profile = {"profile": "native", "read": [str(process.MAIN.parent)]}
    offered = _tried(tuple(prefix(base_python(), profile, process.environment())))
    return replace(offered, mechanisms=(*offered.mechanisms, MECHANISM)) if offered.is_available else offered


@cache
def _tried(before: tuple[str, ...]) -> Confinement:
    trial = process.MAIN.with_name("confinement") / "__main__.py"
    command = [*before, base_python(), "-I", "-S", str(trial)]
    try:
        done = subprocess.run(command, capture_output=True, timeout=_TRIAL_SECONDS, check=True)
        answer: dict[str, Any] = json.loads(done.stdout)
        return Confinement(tuple(answer["mechanisms"]), answer["missing"])
    except (OSError, subprocess.SubprocessError, ValueError, KeyError) as error:
        return Confinement((), f"the trial of confinement failed ({error})")


def refusal(app_id: str, missing: str) -> CannotConfine:
    """Return the error for a native app that is not started."""
    return CannotConfine(
        _(
            "{app} is a native app, and this system cannot confine it: {missing}. Install its WASM "
            "build, run the host on Linux 5.19 or newer, or let an operator trust it: add {app!r} to "
            "trusted_apps in config.toml.",
            app=app_id,
            missing=missing,
        ),
    )
