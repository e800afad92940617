"""An app's folder: its manifest, and which of its files are source."""

from __future__ import annotations

import os
import stat
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from llmasos.authoring.process import BuildFailed
from llmasos.bundles import layout
from llmasos.bundles.manifest import Manifest, parse_manifest
from llmasos.errors import NotFound
from llmasos.i18n import Message, _
from llmasos.printable import hidden_character

# Folders that are never an app's source: what tools make, and what only its author runs.
NOT_SOURCE = frozenset({"__pycache__", "build", "dist", "node_modules", "test", "tests", "venv"})
MAX_SOURCE_BYTES = 32 << 20
LOCK_IN_PROJECT: Final = "requirements.lock"


@dataclass(frozen=True, slots=True)
class Project:
    """A folder with a manifest that is valid."""

    root: Path
    manifest: Manifest

    @property
    def bundle_name(self) -> str:
        """`name-version.llmapp`."""
        return f"{self.manifest.id.partition('/')[2]}-{self.manifest.version}{layout.SUFFIX}"

    def file(self, relative: str, key: str) -> Path:
        """A file that the manifest names, inside the folder.

        Args:
            relative: As the manifest has it.
            key: Which key names it, for the message.

        Raises:
            BuildFailed: It is not there.
        """
        path = self.root / relative
        if not path.is_file():
            raise BuildFailed(
                _(
                    "{manifest} names {key} = {relative!r}, and there is no such file in {root}",
                    manifest=layout.MANIFEST,
                    key=key,
                    relative=relative,
                    root=self.root,
                ),
            )
        check_inside(self.root, path)
        return path


def open_project(path: Path) -> Project:
    """Read the manifest of the folder `path`, or of the folder of the manifest `path`.

    Raises:
        NotFound: There is no manifest.
        ManifestRejected: It has faults; all of them are named.
    """
    root = path.parent if path.name == layout.MANIFEST else path
    file = root / layout.MANIFEST
    try:
        text = read_file(root, file).decode()
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(
            _(
                "There is no {manifest} in {root}: go to an app's folder, or make one with `llmasos new NAME`.",
                manifest=layout.MANIFEST,
                root=root,
            ),
        ) from None
    except UnicodeDecodeError:
        raise BuildFailed(_("{file} is not UTF-8; save it as UTF-8", file=file)) from None
    return Project(root.resolve(), parse_manifest(text))


def check_inside(root: Path, path: Path) -> None:
    """Refuse a file that is somewhere else: a link in a downloaded project must not publish its reader's files.

    Raises:
        BuildFailed: It is a link, or below a link, to a place outside `root`, or to itself.
    """
    try:
        target = path.resolve()
    except (RuntimeError, OSError):
        raise BuildFailed(_("{path} is a link that leads to itself: remove it", path=path)) from None
    if not target.is_relative_to(root.resolve()):
        raise BuildFailed(
            _(
                "{path} is a link to a place outside {root}: copy what it names into the app's folder, or "
                "remove the link",
                path=path,
                root=root,
            ),
        )


def read_file(root: Path, path: Path) -> bytes:
    """The bytes of a plain file of a project.

    Args:
        root: The project's folder.
        path: The file, in it.

    Raises:
        FileNotFoundError: It does not exist.
        BuildFailed: It is not a plain file, is outside the folder, or is too large.
    """
    check_inside(root, path)
    # Without blocking: opening a FIFO would wait for a writer.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise BuildFailed(_("{path} is not a plain file: remove it", path=path))
    with open(descriptor, "rb") as file:  # noqa: PTH123
        content = file.read(MAX_SOURCE_BYTES + 1)
    if len(content) > MAX_SOURCE_BYTES:
        raise BuildFailed(
            _("{path} is over {max_source_mib} MiB: make it smaller", path=path, max_source_mib=MAX_SOURCE_BYTES >> 20),
        )
    return content


def left_out(folder: Path) -> list[str]:
    """What a bundle leaves out of a source folder, by the outermost name: tests, tools' files and hidden files."""
    taken = {part for path in source_files(folder) for part in _prefixes(path.relative_to(folder))}
    found: list[str] = []
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        name = relative.as_posix() + ("/" if path.is_dir() else "")
        comes_along = relative in taken or _is_beside_code(path, folder)
        if not comes_along and not any(relative.is_relative_to(each) for each in found):
            found.append(name)
    return found


def files_beside_code(folder: Path) -> list[Path]:
    """The files in a source folder that a bundle holds besides its code, in order."""
    return [path for path in sorted(folder.iterdir()) if _is_beside_code(path, folder)]


def _is_beside_code(path: Path, folder: Path) -> bool:
    """Whether a bundle holds a file besides its code: a new version or a better README needs no new component."""
    named = path.name in {layout.MANIFEST, LOCK_IN_PROJECT} or layout.TEXTS.fullmatch(path.name) is not None
    return named and path.parent == folder


def _prefixes(path: Path) -> tuple[Path, ...]:
    return (path, *path.parents)


def _check_name(name: str) -> None:
    """Refuse a file whose name a bundle cannot hold, since some systems do not accept it."""
    try:
        name.encode()
    except UnicodeEncodeError:
        shown = os.fsencode(name).decode(errors="backslashreplace")
        raise BuildFailed(_("the name of the file {shown} is not UTF-8: rename it", shown=shown)) from None
    odd: str | Message | None = hidden_character(name) or next((sign for sign in ":\\" if sign in name), None)
    if odd is None and unicodedata.normalize("NFC", name) != name:
        odd = _("letters that are not in Unicode's composed form (NFC)")
    if odd is None and any(part != part.strip(" .") for part in name.split("/")):
        odd = _("a dot or a space at an end")
    if odd is not None:
        raise BuildFailed(_("the name of the file {name!r} has {odd}: rename it", name=name, odd=odd))


def source_files(folder: Path) -> Iterator[Path]:
    """The files of a source folder, in order, without tests, tools' folders, hidden ones, and what stands beside code.

    Raises:
        BuildFailed: They are over 32 MiB together; then something else than source lies there. Or one is a link to a
            place outside the folder. Or a file has a name that a bundle cannot hold.
    """
    total = 0
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if any(part.startswith(".") or part in NOT_SOURCE for part in parts):
            continue
        check_inside(folder, path)
        if path.is_symlink() and not path.is_file():
            raise BuildFailed(
                _("{path} is a link to a folder or to nothing: copy what it names into the app's folder", path=path),
            )
        if not path.is_file():
            continue
        if _is_beside_code(path, folder):
            continue
        _check_name(path.relative_to(folder).as_posix())
        if path.name == "conftest.py" or path.name.startswith("test_") or path.suffix in {".llmapp", ".wasm"}:
            continue
        total += path.stat().st_size
        if total > MAX_SOURCE_BYTES:
            raise BuildFailed(
                _(
                    "the source in {folder} is over {max_source_mib} MiB at {path}: put it into a folder of its "
                    "own, and name that in source",
                    folder=folder,
                    max_source_mib=MAX_SOURCE_BYTES >> 20,
                    path=path.name,
                ),
            )
        yield path
