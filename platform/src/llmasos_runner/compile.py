"""Compiles one component in a process of its own: reads it from one descriptor and writes to another.

The compiler is large and its input is a stranger's, so this process has no paths, no network and no second task, and
ends within its limits of CPU, memory and written bytes. The engine that will run a component reads here what that
imports and exports, and checks it against the contract; the host never parses guest code.
"""

from __future__ import annotations

import errno
import os
import resource
from typing import Any, Final

from wasmtime import Engine, WasmtimeError
from wasmtime import component as wasm

from llmasos_runner import contract, wasi
from llmasos_runner.component import engine
from llmasos_runner.protocol import EXIT_DISK_FULL, Compiled, CompileTask, Refused
from llmasos_runner.signature import Unsupported, signature

# A bundle may unpack to as much.
MAX_COMPONENT_BYTES: Final = 64 << 20
_MAGIC: Final = b"\0asm"
_COMPONENT_VERSION: Final = b"\x0d\x00\x01\x00"
_MODULE_VERSION: Final = b"\x01\x00\x00\x00"


class Refusal(Exception):
    """The host does not run these bytes as a component; the message gives the reason in one line."""


def limit_itself(task: CompileTask) -> None:
    """Limit this process for good, unless it has lower limits already."""
    for kind, value in (
        (resource.RLIMIT_CPU, task["cpu_seconds"]),
        (resource.RLIMIT_AS, task["memory_bytes"]),
        (resource.RLIMIT_FSIZE, task["output_bytes"]),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(kind)[1]
        least = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (least, least))


def compile_component(task: CompileTask) -> Compiled | Refused:
    """Read, check, compile and write."""
    try:
        return _compile(_read(task["input_fd"]), task["output_fd"])
    except Refusal as refusal:
        return {"t": "refused", "message": str(refusal)}
    except MemoryError:
        return {"t": "refused", "message": f"Compiling it takes more than {task['memory_bytes'] >> 20} MiB of memory."}
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise SystemExit(EXIT_DISK_FULL) from error
        raise


def _read(descriptor: int) -> bytes:
    parts: list[bytes] = []
    left = MAX_COMPONENT_BYTES + 1
    while left > 0 and (part := os.read(descriptor, min(left, 1 << 20))):
        parts.append(part)
        left -= len(part)
    if left <= 0:
        raise Refusal(f"The component is larger than {MAX_COMPONENT_BYTES >> 20} MiB.")
    return b"".join(parts)


def _compile(data: bytes, output: int) -> Compiled:
    if data[:4] != _MAGIC:
        raise Refusal("This is no WebAssembly component: it does not begin as one.")
    if data[4:8] == _MODULE_VERSION:
        raise Refusal("This is a core module, not a component: `llmasos build` makes a component of it.")
    if data[4:8] != _COMPONENT_VERSION:
        raise Refusal("This is no WebAssembly component: its version is unknown.")
    own_engine = engine()
    try:
        component = wasm.Component(own_engine, data)
    except WasmtimeError as error:
        first = next((line.strip() for line in reversed(str(error).splitlines()) if line.strip()), "unknown")
        raise Refusal(f"The component is not valid: {first[:300]}.") from error
    kind = component.type
    imports = kind.imports(own_engine)
    exports = kind.exports(own_engine)
    for name, item in imports.items():
        _check_import(name, item.ty, own_engine)
    _check_handler(exports, own_engine)
    serialized = memoryview(component.serialize())
    while serialized:
        serialized = serialized[os.write(output, serialized) :]
    return {"t": "compiled", "imports": sorted(imports), "exports": sorted(exports)}


def _check_import(name: str, kind: object, own_engine: Engine) -> None:
    if not isinstance(kind, wasm.ComponentInstanceType):
        raise Refusal(f"The component imports {name}, which is no interface of the contract {contract.PACKAGE}.")
    if wasi.interface_of(name) is not None:
        return
    capability = contract.capability_of(name)
    if capability == contract.TYPES:
        return
    known = contract.interfaces().get(capability or "")
    if known is None or capability == contract.HANDLER:
        raise Refusal(
            f"The component imports {name}, which the contract {contract.PACKAGE}@{contract.VERSION} does not have: "
            "build it against the contract's world."
        )
    _check_functions(name, kind, known, own_engine)


def _check_handler(exports: dict[str, Any], own_engine: Engine) -> None:
    name = contract.interface_name(contract.HANDLER)
    kind = exports[name].ty if name in exports else None
    if not isinstance(kind, wasm.ComponentInstanceType):
        raise Refusal(f"The component does not export {name}: it was built for another world.")
    known = contract.interfaces()[contract.HANDLER]
    missing = sorted(known.keys() - kind.exports(own_engine).keys())
    if missing:
        raise Refusal(f"The component's {name} has no {missing[0]}.")
    _check_functions(name, kind, known, own_engine)


def _check_functions(name: str, kind: wasm.ComponentInstanceType, known: dict[str, str], own_engine: Engine) -> None:
    for member, item in kind.exports(own_engine).items():
        function = item.ty
        if not isinstance(function, wasm.FuncType):
            continue
        try:
            found = str(signature(function))
        except Unsupported as error:
            found = f"a function of {error}"
        if found != known.get(member):
            expected = known.get(member, "nothing of that name")
            raise Refusal(
                f"The component's {name} has {member}: {contract.short(found)}, "
                f"where the contract has {contract.short(expected)}."
            )
