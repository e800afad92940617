"""Python source to a wheel and its lock, for a native app.

The wheel holds the same files as a component would, and names the source's app at the entry point `llmasos.apps`.
What the app needs besides the SDK stands in `requirements.in` beside the manifest; uv pins it with hashes, wheels
only, for every platform and Python that the host runs on.
"""

from __future__ import annotations

import base64
import hashlib
import io
import re
import zipfile
from pathlib import Path

from llmasos.authoring.process import BuildFailed, run_tool
from llmasos.authoring.project import Project, source_files
from llmasos.bundles import layout
from llmasos.runtimes.environments import find_uv
from llmasos_sdk.hooks import GROUP

REQUIREMENTS = "requirements.in"
PYTHON_FLOOR = "3.11"
# The host brings these to every native app itself, in its own version.
BROUGHT = frozenset({"llmasos-sdk", "pluggy"})


def make_wheel(project: Project, source: Path) -> tuple[str, bytes]:
    """The name and the bytes of the app's wheel: the same for the same files.

    Raises:
        BuildFailed: The source's name cannot be imported.
    """
    if not source.stem.isidentifier():
        raise BuildFailed(f"{source.name} cannot be an app's module: rename it, such as app.py")
    manifest = project.manifest
    name = re.sub(r"[^A-Za-z0-9]+", "_", manifest.id)
    # What lies beside the source goes below one package-free root, as it lies beside it inside a component.
    files = {path.relative_to(source.parent).as_posix(): path.read_bytes() for path in source_files(source.parent)}
    if source.parent == project.root:
        files = {path: content for path, content in files.items() if path.endswith(".py") or "/" in path}
    info = f"{name}-{manifest.version}.dist-info"
    files[f"{info}/METADATA"] = (
        f"Metadata-Version: 2.1\nName: {name}\nVersion: {manifest.version}\nRequires-Python: >={PYTHON_FLOOR}\n"
    ).encode()
    files[f"{info}/WHEEL"] = b"Wheel-Version: 1.0\nGenerator: llmasos\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    files[f"{info}/entry_points.txt"] = f"[{GROUP}]\n{name} = {source.stem}:{_app_name(source)}\n".encode()
    record = f"{info}/RECORD"
    files[record] = _record(files, record)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for path in sorted(files):
            entry = zipfile.ZipInfo(path, (1980, 1, 1, 0, 0, 0))
            entry.external_attr = 0o100644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, files[path])
    return f"{name}-{manifest.version}-py3-none-any.whl", buffer.getvalue()


def _record(files: dict[str, bytes], record: str) -> bytes:
    lines: list[str] = []
    for path in sorted(files):
        digest = base64.urlsafe_b64encode(hashlib.sha256(files[path]).digest()).rstrip(b"=").decode()
        lines.append(f"{path},sha256={digest},{len(files[path])}\n")
    return ("".join(lines) + f"{record},,\n").encode()


def _app_name(source: Path) -> str:
    """The name of the `App` in the source: `app`, unless it is made under another one."""
    made = re.findall(r"^(\w+)\s*(?::[^=\n]+)?=\s*(?:\w+\.)?App\(\)", source.read_text(encoding="utf-8"), re.MULTILINE)
    return "app" if "app" in made or len(made) != 1 else made[0]


async def lock(project: Project, folder: Path) -> str:
    """The hash-pinned requirements of the app; empty but for a comment where it needs none.

    Raises:
        BuildFailed: They cannot be resolved from wheels alone.
        Unavailable: uv is not installed.
    """
    wanted = project.root / REQUIREMENTS
    if not wanted.is_file():
        return "# This app needs nothing besides the SDK.\n"
    lines = [line for line in wanted.read_text(encoding="utf-8").splitlines() if not _is_brought(line)]
    (folder / REQUIREMENTS).write_text("\n".join(lines) + "\n", encoding="utf-8")
    flags = ["--generate-hashes", "--universal", "--only-binary", ":all:", "--python-version", PYTHON_FLOOR]
    quiet = ["--no-header", "--no-annotate", "--no-emit-index-url", "--no-emit-find-links", "--quiet"]
    await run_tool(
        [find_uv(), "pip", "compile", REQUIREMENTS, *flags, *quiet, "-o", layout.LOCK],
        cwd=folder,
        what="uv pip compile",
    )
    return (folder / layout.LOCK).read_text(encoding="utf-8")


def _is_brought(line: str) -> bool:
    name = re.match(r"\s*([A-Za-z0-9._-]+)", line)
    return name is not None and re.sub(r"[-_.]+", "-", name[1]).lower() in BROUGHT
