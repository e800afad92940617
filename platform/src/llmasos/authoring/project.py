"""An app's folder: its manifest, and which of its files are source."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from llmasos.authoring.process import BuildFailed
from llmasos.bundles import layout
from llmasos.bundles.manifest import Manifest, parse_manifest
from llmasos.errors import NotFound

# Folders that are never an app's source: what tools make, and what only its author runs.
NOT_SOURCE = frozenset({"__pycache__", "build", "dist", "node_modules", "test", "tests", "venv"})
MAX_SOURCE_BYTES = 32 << 20


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
                f"{layout.MANIFEST} names {key} = {relative!r}, and there is no such file in {self.root}",
                zh=f"{layout.MANIFEST} 中写有 {key} = {relative!r}，而 {self.root} 中没有该文件",
            )
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
        text = file.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(
            f"There is no {layout.MANIFEST} in {root}: go to an app's folder, or make one with `llmasos new NAME`.",
            zh=f"{root} 中没有 {layout.MANIFEST}：请进入应用目录，或用 llmasos new NAME 新建。",
        ) from None
    except UnicodeDecodeError:
        raise BuildFailed(
            f"{file} is not UTF-8; save it as UTF-8", zh=f"{file} 不是 UTF-8 编码：请保存为 UTF-8"
        ) from None
    return Project(root.resolve(), parse_manifest(text))


def source_files(folder: Path) -> Iterator[Path]:
    """The files of a source folder, in order, without tests, tools' folders and hidden ones.

    Raises:
        BuildFailed: They are over 32 MiB together; then something else than source lies there.
    """
    total = 0
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if any(part.startswith(".") or part in NOT_SOURCE for part in parts) or not path.is_file():
            continue
        if path.name == "conftest.py" or path.name.startswith("test_") or path.suffix in {".llmapp", ".wasm"}:
            continue
        total += path.stat().st_size
        if total > MAX_SOURCE_BYTES:
            raise BuildFailed(
                f"the source in {folder} is over {MAX_SOURCE_BYTES >> 20} MiB at {path.name}: "
                "put it into a folder of its own, and name that in source",
                zh=f"{folder} 中的源文件在 {path.name} 处超过 {MAX_SOURCE_BYTES >> 20} "
                "MiB：请将源文件放入单独的目录，并在 source 中指定它",
            )
        yield path
