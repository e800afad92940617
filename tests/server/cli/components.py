"""A real component, small and quick to build, for tests of commands."""

import subprocess
import tempfile
from pathlib import Path

import llmasos_sdk
from llmasos.authoring.wrap import wasm_tools

WIT = Path(llmasos_sdk.__file__).parent / "wit" / "llmasos.wit"

# `describe` answers what lies at 512; `call` answers its input.
CORE = """
(module
  (memory (export "memory") 1)
  (data (i32.const 512) "{text}")
  (data (i32.const 128) "\\00\\02\\00\\00{length}")
  (global $next (mut i32) (i32.const 16384))
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
    (global.set $next (i32.add (global.get $next) (i32.and (i32.add (local.get 3) (i32.const 15)) (i32.const -8))))
    (i32.sub (global.get $next) (i32.and (i32.add (local.get 3) (i32.const 15)) (i32.const -8))))
  (func (export "llmasos:app/handler@0.1.0#describe") (result i32) (i32.const 128))
  (func (export "llmasos:app/handler@0.1.0#call") (param i32 i32 i32 i32) (result i32)
    (i32.store8 (i32.const 256) (i32.const 0))
    (i32.store (i32.const 260) (local.get 2))
    (i32.store (i32.const 264) (local.get 3))
    (i32.const 256)))
"""


def minimal_component(described: str) -> bytes:
    """A component that describes itself so, and whose every action returns its input."""
    raw = described.encode()
    text = "".join(f"\\{byte:02x}" for byte in raw)
    length = "".join(f"\\{byte:02x}" for byte in len(raw).to_bytes(4, "little"))
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        (work / "wit").mkdir()
        (work / "wit" / "world.wit").write_text(WIT.read_text() + "world tested { export handler; }")
        (work / "core.wat").write_text(CORE.format(text=text, length=length))
        for words in (
            ["component", "embed", "wit", "-w", "tested", "core.wat", "-o", "embedded.wasm"],
            ["component", "new", "embedded.wasm", "-o", "app.wasm"],
        ):
            subprocess.run([wasm_tools(), *words], cwd=work, check=True, capture_output=True)
        return (work / "app.wasm").read_bytes()
