"""Reads the location of the host's state, and its `config.toml`, without pydantic.

A read-only command must start in a fifth of a second, and pydantic-settings alone would take most of that.
`settings.py` reads the same places; a test checks that the two agree.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

from llmasos.errors import Invalid, Unavailable
from llmasos.i18n import _

# The allowed keys of `config.toml`: the settings, and the models, which the gateway reads.
KEYS: Final = (
    "bubblewrap", "call_depth", "database_url", "home", "http_networks", "hub_url", "memory_budget_mib", "models",
    "native_idle_seconds", "native_runners", "plugins", "runner_threads", "runners", "token", "trusted_apps", "url",
)  # fmt: skip

WORKSPACE: Final = "default"
"""The workspace of a host that is used from the command line."""
_SQLITE: Final = "sqlite:///"


def default_home() -> Path:
    """`LLMASOS_HOME`, or the user's data folder.

    Raises:
        Unavailable: The system knows no home folder of this user.
    """
    named = os.environ.get("LLMASOS_HOME")
    if named:
        return expanded(named)
    import platformdirs  # noqa: PLC0415  (20 ms that LLMASOS_HOME spares)

    try:
        return Path(platformdirs.user_data_dir("llmasos"))
    except RuntimeError as error:  # neither HOME nor an entry in the password file
        raise Unavailable(
            _("This user has no home folder: set LLMASOS_HOME to a folder that LLMasOS may write to."),
        ) from error


def expanded(path: str | Path) -> Path:
    """Make a path absolute, and expand `~`, which a shell leaves alone after `=` and in quotes.

    Raises:
        Invalid: `~` names a user without a known home folder.
    """
    try:
        return Path(path).expanduser().absolute()
    except RuntimeError as error:
        raise Invalid(
            _(
                "{path}: the folder that {user} stands for is not known; write it out.",
                path=path,
                user=Path(path).parts[0],
            )
        ) from error


def make_private_folder(path: Path) -> None:
    """Create a folder of the home, and its missing parents, accessible to the owner alone.

    `Path.mkdir` applies its mode to the last folder alone: creating `home/builds` would leave the home open to all.

    Raises:
        OSError: It cannot be created.
    """
    for folder in (*reversed(path.parents), path):
        if not folder.is_dir():
            folder.mkdir(mode=0o700, exist_ok=True)


def make_private_file(path: Path) -> None:
    """Create an empty file for the owner alone, if it is missing. Errors surface when it is opened.

    A file that exists is not even opened: to close it would drop every lock that SQLite holds on it in this process.
    Another process then takes the database for unused, and removes its log under our connections.
    """
    with suppress(OSError):
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))


def database_url_of(named: str, home: Path) -> str:
    """The database's URL: the configured one, with `~` expanded in SQLite's path, else SQLite in the home."""
    if named.startswith(f"{_SQLITE}~"):
        return f"{_SQLITE}{expanded(named.removeprefix(_SQLITE))}"
    return named or f"{_SQLITE}{home / 'llmasos.db'}"


def plugins_are_on() -> bool:
    """Whether installed plugins may be loaded; equals `Settings.plugins`."""
    named = os.environ.get("LLMASOS_PLUGINS") or configured(default_home()).get("plugins")
    return named != "off"


def state_home_and_database_url() -> tuple[Path, str]:
    """The home and the database's URL; equal those in `Settings`.

    Raises:
        Invalid: `config.toml` is not valid.
    """
    home = default_home()
    said = configured(home)
    if "LLMASOS_HOME" not in os.environ and "home" in said:
        home = expanded(_text(said, "home", default_home()))
    named = os.environ.get("LLMASOS_DATABASE_URL") or _text(said, "database_url", default_home())
    return home, database_url_of(named, home)


def server_url_and_token() -> tuple[str, str] | None:
    """The server that commands use, and the token for it, as `Settings` would have them; None: this machine's home.

    Raises:
        Invalid: `config.toml` is not valid.
    """
    home = default_home()
    said = configured(home)
    url, token = (
        os.environ[variable] if variable in os.environ else _text(said, name, home)
        for name, variable in (("url", "LLMASOS_URL"), ("token", "LLMASOS_TOKEN"))
    )
    return (url.rstrip("/"), token) if url else None


def _text(said: dict[str, object], name: str, home: Path) -> str:
    value = said.get(name, "")
    if not isinstance(value, str):
        raise Invalid(_("{where}: {what}", where=f"{home / 'config.toml'}, {name}", what=_("must be a string")))
    return value


def configured(home: Path) -> dict[str, object]:
    """Read the `config.toml` of a home; empty if there is none.

    Raises:
        Unavailable: The file cannot be read.
        Invalid: It is not TOML, or has a key that no setting has.
    """
    file = home / "config.toml"
    import tomllib  # noqa: PLC0415

    try:
        # Some editors begin a file with a byte order mark, which TOML does not allow.
        said: dict[str, object] = tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise Unavailable(_("{file} cannot be read: {error}", file=file, error=error.strerror or error)) from error
    except (ValueError, RecursionError) as error:
        raise Invalid(_("{file} is not valid TOML: {error}", file=file, error=error)) from error
    unknown = [name for name in said if name not in KEYS]
    if unknown:
        raise _unknown(file, unknown[0])
    return said


def _unknown(file: Path, name: str) -> Invalid:
    from difflib import get_close_matches  # noqa: PLC0415

    near = get_close_matches(name, KEYS, 1)
    if near:
        return Invalid(
            _("{file}: there is no setting {name!r}; did you mean {near!r}?", file=file, name=name, near=near[0])
        )
    return Invalid(_("{file}: there is no setting {name!r}; there are {known}.", file=file, name=name, known=KEYS))
