"""A native app's wheel and lock, from its source.

The wheel is written here rather than by a build backend: it is the author's modules, three small texts and a list of
hashes, so it needs no network, runs nothing of the project, and the same source gives the same bytes. An app with
machine code of its own is built by its author and named as `wheel = "dist/….whl"`.
"""

from __future__ import annotations

import ast
import base64
import hashlib
import io
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from email.parser import Parser
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement
from packaging.utils import InvalidWheelFilename, parse_wheel_filename

from llmasos.authoring.packages import PYTHON, lock
from llmasos.authoring.project import read_file, source_files
from llmasos.bundles.manifest import Manifest
from llmasos.errors import Invalid, NotFound
from llmasos.i18n import _

ENTRY_POINT_GROUP: Final = "llmasos.apps"
# The earliest time that a zip can hold.
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class NativeCode:
    """What a native app's bundle holds as code."""

    wheel_name: str
    wheel: bytes
    lock: str


def build_native(project: Path, manifest: Manifest) -> NativeCode:
    """Build or use the wheel of a native app, and lock its requirements.

    Args:
        project: The folder of `llmapp.toml`; `requirements.lock` is written into it.
        manifest: With `runtime.kind = "python"`.

    Raises:
        NotFound: The source or wheel that the manifest names is not there.
        Invalid: The source has no app, the wheel is none, or what it needs cannot be locked.
        Unavailable: There is no `uv`.
    """
    if manifest.runtime.wheel is not None:
        name, content = _finished(project, project / manifest.runtime.wheel)
        needed: Iterable[str] = _required_by(name, content)
    else:
        needed = manifest.runtime.requirements
        name, content = _write(project, manifest)
    return NativeCode(name, content, lock(project, needed))


def _finished(project: Path, path: Path) -> tuple[str, bytes]:
    if not path.is_file():
        raise NotFound(
            _("there is no wheel {path}: build it, for example with `uv build --wheel`", path=path),
        )
    try:
        parse_wheel_filename(path.name)
    except InvalidWheelFilename as error:
        raise Invalid(_("{path} is not the name of a wheel: {error}", path=path.name, error=error)) from None
    content = read_file(project, path)
    if not any(name.endswith(".dist-info/entry_points.txt") for name in _names(path.name, content)):
        raise Invalid(
            _(
                '{path} has no entry point: add [project.entry-points."{entry_point_group}"]',
                path=path.name,
                entry_point_group=ENTRY_POINT_GROUP,
            ),
        )
    return path.name, content


def _names(name: str, wheel: bytes) -> list[str]:
    try:
        with zipfile.ZipFile(io.BytesIO(wheel)) as archive:
            return archive.namelist()
    except zipfile.BadZipFile as error:
        raise Invalid(_("{name} is not a wheel: {error}", name=name, error=error)) from None


def _required_by(name: str, wheel: bytes) -> list[str]:
    with zipfile.ZipFile(io.BytesIO(wheel)) as archive:
        metadata = next((n for n in archive.namelist() if n.endswith(".dist-info/METADATA")), None)
        if metadata is None:
            raise Invalid(_("{name} has no METADATA: build it again", name=name))
        message = Parser().parsestr(archive.read(metadata).decode())
    required = [Requirement(str(text)) for text in message.get_all("Requires-Dist", [])]
    return [str(r) for r in required if r.marker is None or "extra" not in str(r.marker)]


def _write(project: Path, manifest: Manifest) -> tuple[str, bytes]:
    source = project / (manifest.runtime.source or "app.py")
    if not source.is_file():
        raise NotFound(
            _("there is no file {source}, which llmapp.toml names as the source", source=source),
        )
    distribution = "llmasos_app_" + manifest.id.replace("/", "_").replace("-", "_")
    information = f"{distribution}-{manifest.version}.dist-info"
    needed = "".join(f"Requires-Dist: {text}\n" for text in sorted(manifest.runtime.requirements))
    name = _app_in(source, read_file(project, source))
    texts = {
        "METADATA": f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {manifest.version}\n"
        f"Requires-Python: >={PYTHON}\n{needed}",
        "WHEEL": "Wheel-Version: 1.0\nGenerator: llmasos\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "entry_points.txt": f"[{ENTRY_POINT_GROUP}]\n{distribution} = {source.stem}:{name}\n",
    }
    files = {
        path.relative_to(source.parent).as_posix(): read_file(project, path) for path in source_files(source.parent)
    }
    files |= {f"{information}/{name}": text.encode() for name, text in texts.items()}
    record = "".join(f"{name},sha256={_hash(content)},{len(content)}\n" for name, content in sorted(files.items()))
    files[f"{information}/RECORD"] = f"{record}{information}/RECORD,,\n".encode()
    return f"{distribution}-{manifest.version}-py3-none-any.whl", _archive(files)


def _app_in(source: Path, content: bytes) -> str:
    """The name of the module's `App`, read without running it."""
    try:
        tree = ast.parse(content, filename=source.name)
    except (SyntaxError, ValueError) as error:
        raise Invalid(_("{source} is not Python: {error}", source=source.name, error=error)) from None
    found = [
        target.id
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call) and _is_app(node.value.func)
        for target in node.targets
        if isinstance(target, ast.Name)
    ]
    if "app" in found:
        return "app"
    if len(found) != 1:
        raise Invalid(
            _("{source} holds {count} apps; write `app = App()` in it", source=source.name, count=len(found)),
        )
    return found[0]


def _is_app(function: ast.expr) -> bool:
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    return name == "App"


def _hash(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()


def _archive(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in sorted(files.items()):
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.external_attr = 0o100644 << 16
            # Stored: the bundle around it is compressed, and versions of zlib differ in their bytes.
            archive.writestr(entry, content, zipfile.ZIP_STORED)
    return buffer.getvalue()
