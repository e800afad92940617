"""The data files of a component, which has no file system.

They are read into its memory when it is built. Afterwards the functions by which Python reads files find them there:
`open`, `pathlib`, `importlib.resources` and `pkgutil`, by the path of the module beside them, or by a path from the
app's folder.
"""

from __future__ import annotations

import builtins
import errno
import importlib.machinery
import io
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import IO, Any, cast


class MemoryFiles:
    """Files by their absolute paths, and the folders that they are in."""

    def __init__(self, root: str, contents: dict[str, bytes]) -> None:
        """Keep `contents`, named from the folder `root`."""
        self._root = root
        self._files = {f"{root}/{name}": content for name, content in contents.items()}
        self._folders: dict[str, set[str]] = {root: set()}
        for path in map(PurePosixPath, self._files):
            for parent, child in zip(path.parents, (path, *path.parents), strict=False):
                if str(parent).startswith(root):
                    self._folders.setdefault(str(parent), set()).add(child.name)

    def path(self, file: object) -> str | None:
        """The path of a file or folder in memory; None if there is none."""
        if not isinstance(file, str | bytes | os.PathLike):
            return None
        path = os.fsdecode(cast("str | bytes", file))
        named = os.path.normpath(os.path.join(self._root, path))  # noqa: PTH118
        return named if named in self._files or named in self._folders else None

    def open(self, path: str, mode: str, encoding: str | None, errors: str | None, newline: str | None) -> IO[Any]:
        """Open a file to read."""
        if path in self._folders:
            raise IsADirectoryError(errno.EISDIR, "it is a folder", path)
        if set(mode) & set("wax+"):
            raise OSError(errno.EROFS, "an app's own files are read-only", path)
        raw = io.BytesIO(self._files[path])
        return raw if "b" in mode else io.TextIOWrapper(raw, encoding or "utf-8", errors, newline)

    def read(self, path: str) -> bytes:
        """The bytes of a file."""
        return self._files[path]

    def stat(self, path: str) -> os.stat_result:
        """The `os.stat` result of a file or folder."""
        is_folder = path in self._folders
        mode = stat.S_IFDIR | 0o555 if is_folder else stat.S_IFREG | 0o444
        return os.stat_result((mode, 0, 0, 1, 0, 0, 0 if is_folder else len(self._files[path]), 0, 0, 0))

    def names(self, path: str) -> list[str]:
        """The names in a folder."""
        if path not in self._folders:
            raise NotADirectoryError(errno.ENOTDIR, "it is not a folder", path)
        return sorted(self._folders[path])


class _Entry:
    """An entry of `os.scandir`."""

    def __init__(self, files: MemoryFiles, folder: str, name: str) -> None:
        self._files, self.name, self.path = files, name, f"{folder}/{name}"

    def __fspath__(self) -> str:
        return self.path

    def is_dir(self, **_: bool) -> bool:
        return stat.S_ISDIR(self.stat().st_mode)

    def is_file(self, **_: bool) -> bool:
        return not self.is_dir()

    def is_symlink(self) -> bool:
        return False

    def stat(self, **_: bool) -> os.stat_result:
        return self._files.stat(self.path)


class _Scan:
    def __init__(self, entries: list[_Entry]) -> None:
        self._entries = entries

    def __enter__(self) -> Iterator[_Entry]:
        return iter(self._entries)

    def __iter__(self) -> Iterator[_Entry]:
        return iter(self._entries)

    def __exit__(self, *_: object) -> None:
        pass


def keep(root: str) -> MemoryFiles:
    """Read the data files below a folder into memory, and let Python's file functions find them there."""
    contents: dict[str, bytes] = {}
    for folder, _folders, names in os.walk(root):
        for name in names:
            if not name.endswith((".py", ".pyc")):
                path = f"{folder}/{name}"
                with open(path, "rb") as file:  # noqa: PTH123 (pathlib is not imported by every app)
                    contents[path.removeprefix(f"{root}/")] = file.read()
    files = MemoryFiles(root, contents)
    if contents:
        serve(files)
    return files


def serve(files: MemoryFiles) -> None:
    """Let Python's functions find these files from now on."""
    original_open, original_stat, original_scan = io.open, os.stat, os.scandir
    original_list = cast("Callable[[Any], list[Any]]", os.listdir)
    original_data = importlib.machinery.SourceFileLoader.get_data

    def open_(  # noqa: PLR0917 (the signature of `open`)
        file: Any,
        mode: str = "r",
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
        *more: Any,
        **named: Any,
    ) -> Any:
        path = files.path(file)
        if path is None:
            return original_open(file, mode, buffering, encoding, errors, newline, *more, **named)
        return files.open(path, mode, encoding, errors, newline)

    def stat_(path: Any, *more: Any, **named: Any) -> os.stat_result:
        found = files.path(path)
        return original_stat(path, *more, **named) if found is None else files.stat(found)

    def listdir(path: Any = ".") -> list[Any]:
        found = files.path(path)
        if found is not None:
            return files.names(found)
        return original_list(path)

    def scandir(path: Any = ".") -> Any:
        found = files.path(path)
        if found is None:
            return original_scan(path)
        return _Scan([_Entry(files, found, name) for name in files.names(found)])

    def get_data(self: Any, path: str) -> bytes:
        found = files.path(path)
        return original_data(self, path) if found is None else files.read(found)

    for owner, name, function in (
        (builtins, "open", open_),
        (io, "open", open_),
        (os, "stat", stat_),
        (os, "listdir", listdir),
        (os, "scandir", scandir),
        (importlib.machinery.SourceFileLoader, "get_data", get_data),
    ):
        setattr(owner, name, function)
