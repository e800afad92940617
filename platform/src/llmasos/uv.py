"""Runs `uv` with its user's configuration alone."""

from __future__ import annotations

import os
import re
import shutil
import sys
import tomllib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, cast
from urllib.parse import unquote, urlsplit

from llmasos.errors import Unavailable
from llmasos.i18n import _

_SYSTEM_WIDE: Final = Path("/etc/uv/uv.toml")
# Options of `uv` that name folders of packages, as variables and in its configuration.
_OF_FOLDERS: Final = ("find-links", "index", "default-index", "index-url", "extra-index-url")
# What else of the environment `uv` needs; the rest may hold keys.
_VARIABLES: Final = re.compile(
    r"UV_.*|PATH|HOME|LANG|LC_.*|NETRC|XDG_(CONFIG|DATA)_HOME|SSL_CERT_(FILE|DIR)|(HTTPS?|ALL|NO)_PROXY", re.IGNORECASE
)


def find_uv() -> str:
    """Return the path of `uv`.

    Raises:
        Unavailable: There is none.
    """
    beside = Path(sys.executable).with_name("uv")
    found = str(beside) if beside.is_file() else shutil.which("uv")
    if found is None:
        raise Unavailable(
            _("native Python apps need `uv` to install their packages: run `pip install uv`"),
        )
    return found


def configuration() -> list[str]:
    """The options that prevent `uv` from reading `uv.toml` or `pyproject.toml` in its working folder or above.

    A downloaded project could name its own package index there. What the user or the system configured still counts,
    and so does the environment.
    """
    if "UV_CONFIG_FILE" in os.environ:
        return []
    file = _configuration_file()
    return ["--no-config"] if file is None else ["--config-file", str(file)]


def environment() -> dict[str, str]:
    """The variables that `uv`, and what fetches for it, are started with."""
    return {name: value for name, value in os.environ.items() if _VARIABLES.fullmatch(name)}


def readable() -> list[str]:
    """The files of its user that `uv`, and what fetches for it, may read: configuration, credentials, packages."""
    data = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    named = [
        os.environ.get("NETRC") or "~/.netrc",
        os.environ.get("SSL_CERT_FILE"),
        *os.environ.get("SSL_CERT_DIR", "").split(os.pathsep),
        f"{data}/uv/credentials",
        *(_folder_of(each) for each in _indexes()),
    ]
    file = _configuration_file()
    return [
        *([] if file is None else [str(file)]),
        *(str(Path(each).expanduser().absolute()) for each in named if each),
    ]


def _configuration_file() -> Path | None:
    if named := os.environ.get("UV_CONFIG_FILE"):
        return Path(named)
    home = os.environ.get("XDG_CONFIG_HOME") or Path("~/.config").expanduser()
    return next((file for file in (Path(home) / "uv" / "uv.toml", _SYSTEM_WIDE) if file.is_file()), None)


def _indexes() -> Iterator[str]:
    """The addresses and folders where the user has `uv` look for packages."""
    for option in _OF_FOLDERS:
        yield from re.split(r"[\s,]+", os.environ.get(f"UV_{option.replace('-', '_').upper()}", ""))
    file = _configuration_file()
    with suppress(OSError, ValueError):  # uv itself reports what is wrong with it
        settings: dict[str, Any] = tomllib.loads(file.read_text()) if file is not None else {}
        for table in (settings, settings.get("pip", {})):
            for value in (each for option in _OF_FOLDERS for each in _listed(table.get(option, []))):
                yield str(cast("dict[str, Any]", value).get("url", "") if isinstance(value, dict) else value)


def _listed(value: object) -> list[object]:
    return cast("list[object]", value) if isinstance(value, list) else [value]


def _folder_of(index: str) -> str | None:
    address = index.partition("=")[2] or index  # an index may have a name
    if address.startswith("file://"):
        return unquote(urlsplit(address).path)
    return None if not address or "://" in address else address
