"""Small components, from WebAssembly text."""

import subprocess
import tempfile
from pathlib import Path

import llmasos_sdk
from llmasos.authoring.wrap import wasm_tools

WIT = Path(llmasos_sdk.__file__).parent / "wit" / "llmasos.wit"

# `describe` answers "[]", and `call` whatever `body` leaves at 256: a result whose first byte is 0 for ok, then
# pointer and length.
CORE = """
(module
  {imports}
  (memory (export "memory") {pages})
  (data (i32.const 512) "[]")
  (data (i32.const 128) "\\00\\02\\00\\00\\02\\00\\00\\00")
  (global $next (mut i32) (i32.const 4096))
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
    (global.set $next (i32.add (global.get $next) (i32.and (i32.add (local.get 3) (i32.const 15)) (i32.const -8))))
    (i32.sub (global.get $next) (i32.and (i32.add (local.get 3) (i32.const 15)) (i32.const -8))))
  (func (export "llmasos:app/handler@0.1.0#describe") (result i32) (i32.const 128))
  (func (export "llmasos:app/handler@0.1.0#call") (param i32 i32 i32 i32) (result i32)
    {body}
    (i32.store8 (i32.const 256) (i32.const 0))
    (i32.store (i32.const 260) (local.get 2))
    (i32.store (i32.const 264) (local.get 3))
    (i32.const 256))
  {rest})
"""
WORLD = "world tested { export handler; }"


def tool(*arguments: str, cwd: Path) -> None:
    subprocess.run([wasm_tools(), *arguments], cwd=cwd, check=True, capture_output=True)


def core_module(*, pages: str = "1", body: str = "", rest: str = "", imports: str = "") -> str:
    return CORE.format(pages=pages, body=body, rest=rest, imports=imports)


def component(target: Path, text: str, *, world: str = WORLD, wit: str | None = None) -> Path:
    """Wrap a core module into a component of a world."""
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        (work / "wit").mkdir()
        (work / "wit" / "world.wit").write_text((WIT.read_text() if wit is None else wit) + world)
        (work / "core.wat").write_text(text)
        tool("component", "embed", "wit", "-w", "tested", "core.wat", "-o", "embedded.wasm", cwd=work)
        tool("component", "new", "embedded.wasm", "-o", str(target), cwd=work)
    return target


def module(target: Path, text: str) -> Path:
    """A core module."""
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "core.wat").write_text(text)
        tool("parse", "core.wat", "-o", str(target), cwd=Path(name))
    return target
