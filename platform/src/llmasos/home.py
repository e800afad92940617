"""Where the host keeps its state, known without pydantic.

A command that only reads must start in a fifth of a second, of which pydantic-settings alone would take most.
`settings.py` reads the same places; a test holds the two together.
"""

from __future__ import annotations

import os
from pathlib import Path

from llmasos.errors import Unavailable
from llmasos.i18n import _


def default_home() -> Path:
    """`LLMASOS_HOME`, or the user's data folder.

    Raises:
        Unavailable: The system knows no home folder of this user.
    """
    named = os.environ.get("LLMASOS_HOME")
    if named:
        return Path(named).absolute()
    import platformdirs  # noqa: PLC0415  (20 ms that LLMASOS_HOME spares)

    try:
        return Path(platformdirs.user_data_dir("llmasos"))
    except RuntimeError as error:  # neither HOME nor an entry in the password file
        raise Unavailable(
            _("This user has no home folder: set LLMASOS_HOME to a folder that LLMasOS may write to."),
        ) from error


def plugins_are_on() -> bool:
    """Whether installed plugins may be loaded, as `Settings.plugins` would have it."""
    named = os.environ.get("LLMASOS_PLUGINS") or _configured(default_home()).get("plugins")
    return named != "off"


def state_home_and_database_url() -> tuple[Path, str]:
    """The home and the database's URL, as `Settings` would have them."""
    home = default_home()
    configured = _configured(home)
    if "LLMASOS_HOME" not in os.environ and isinstance(moved := configured.get("home"), str):
        home = Path(moved)
    named = os.environ.get("LLMASOS_DATABASE_URL") or configured.get("database_url")
    return home, str(named) if named else f"sqlite:///{home / 'llmasos.db'}"


def _configured(home: Path) -> dict[str, object]:
    """What `config.toml` says."""
    file = home / "config.toml"
    if not file.exists():
        return {}
    import tomllib  # noqa: PLC0415

    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Unavailable(_("{file} cannot be read: {error}", file=file, error=error)) from error
