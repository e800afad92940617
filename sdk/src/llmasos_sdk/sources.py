"""Tells which files are the app author's own.

In a component they are alone in their folder. A native app's are installed beside the packages that it needs; the list
of files that came with the app's own wheel tells them apart.
"""

from __future__ import annotations

import functools
from pathlib import Path


def authors_file(path: str, source: str) -> str | None:
    """A file's path relative to the folder of the app's module; None if the file is not the author's.

    Args:
        path: The file.
        source: The file of the app's module.
    """
    folder, _, module = source.rpartition("/")
    name = path.removeprefix(f"{folder}/")
    if not folder or name == path:
        return None
    parts = name.split("/")
    if "site-packages" in parts or any(part.startswith(".") for part in parts):
        return None
    installed = _installed_with(folder, module)
    return name if installed is None or name in installed else None


@functools.cache
def _installed_with(folder: str, module: str) -> frozenset[str] | None:
    """The files of the wheel that a module was installed from; None if it was not installed into this folder."""
    try:
        for record in Path(folder).glob("*.dist-info/RECORD"):
            names = frozenset(line.split(",")[0] for line in record.read_text(encoding="utf-8").splitlines())
            if module in names:
                return names
    except OSError:  # a component has no files
        pass
    return None
