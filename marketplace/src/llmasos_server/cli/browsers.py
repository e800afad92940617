"""Opens a browser of this machine, if it has one with windows."""

from __future__ import annotations

import os
import sys
import webbrowser
from pathlib import Path
from typing import Final

from llmasos.errors import Invalid

_DISPLAYS: Final = ("DISPLAY", "WAYLAND_DISPLAY")
FILE_NAME: Final = "open-pages.html"
_PAGE: Final = (
    '<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="0; url={url}"><title>LLMasOS</title>'
)


def has_browser() -> bool:
    """Whether a browser can open a window here: one in the terminal would take it from the server's log."""
    if sys.platform not in {"darwin", "win32"} and not any(map(os.environ.get, _DISPLAYS)):
        return False
    try:
        webbrowser.get()
    except webbrowser.Error:
        return False
    return True


def open_privately(home: Path, url: str) -> Path:
    """Open an address that signs in. Returns the file that leads there, which the caller deletes.

    The address is not given to the browser's process: every user of the machine can read what a process was given.
    """
    if any(each in url for each in "\"'<>&"):
        raise Invalid
    file = home / FILE_NAME
    file.unlink(missing_ok=True)
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as page:
        page.write(_PAGE.format(url=url))
    webbrowser.open(file.as_uri())
    return file
