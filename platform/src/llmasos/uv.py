"""Runs `uv` with its user's configuration alone."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

_SYSTEM_WIDE: Final = Path("/etc/uv/uv.toml")


def configuration() -> list[str]:
    """The options that prevent `uv` from reading `uv.toml` or `pyproject.toml` in its working folder or above.

    A downloaded project could name its own package index there. What the user or the system configured still counts,
    and so does the environment.
    """
    if "UV_CONFIG_FILE" in os.environ:
        return []
    home = os.environ.get("XDG_CONFIG_HOME") or Path("~/.config").expanduser()
    for file in (Path(home) / "uv" / "uv.toml", _SYSTEM_WIDE):
        if file.is_file():
            return ["--config-file", str(file)]
    return ["--no-config"]
