"""The one place that uses wasmtime's C interface below its Python bindings.

The reason: the bindings' own conversions look every type up again on each call, share one scratch set between threads,
and keep exceptions in one process-wide slot; and they do not offer the epoch callback. All of it is public,
stable C API (`wasmtime/component/*.h`, `wasmtime/store.h`), whose ctypes declarations the bindings ship.

Everything here is untyped on purpose: ctypes has no types to give. Nothing untyped leaves `llmasos_runner`.
"""

from __future__ import annotations

import ctypes
from importlib.metadata import version
from typing import Any, Final

from wasmtime import _ffi as _wasmtime_ffi  # pyright: ignore[reportPrivateUsage]

ENGINE_VERSION: Final = version("wasmtime")

# Another major version may lay out its values differently. The dependency is pinned; this check enforces it.
SUPPORTED_MAJOR: Final = "50"

if ENGINE_VERSION.split(".")[0] != SUPPORTED_MAJOR:
    raise ImportError(
        f"llmasos needs wasmtime {SUPPORTED_MAJOR}.*, and found {ENGINE_VERSION}: install the version that llmasos pins"
    )

ffi: Any = _wasmtime_ffi

Value: Any = ffi.wasmtime_component_val_t
ValueList: Any = ffi.wasmtime_component_vallist_t
VALUE_BYTES: Final[int] = ctypes.sizeof(Value)
# The offset of a value's payload; the same for every case of the union.
PAYLOAD_OFFSET: Final[int] = Value.of.offset

HOST_FUNCTION: Any = ffi.wasmtime_component_func_callback_t
DESTRUCTOR: Any = ffi.wasmtime_component_resource_destructor_t
FINALIZER: Any = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_function_type: Any = ctypes.CFUNCTYPE
EPOCH_CALLBACK: Any = _function_type(
    ctypes.c_size_t,
    ctypes.POINTER(ffi.wasmtime_context_t),
    ctypes.c_void_p,
    ctypes.POINTER(ctypes.c_uint64),
    ctypes.POINTER(ffi.wasmtime_update_deadline_kind_t),
)
NO_FINALIZER: Any = ctypes.cast(0, FINALIZER)
CONTINUE: Final = 0  # WASMTIME_UPDATE_DEADLINE_CONTINUE


def pointer_to(structure: Any) -> Any:
    """A null pointer to a structure, for C to fill."""
    make: Any = ctypes.POINTER
    return make(structure)()


def new_error(message: str) -> int:
    """A `wasmtime_error_t` as the address that a callback returns to trap; wasmtime owns it from then on."""
    pointer = ffi.wasmtime_error_new(message.encode())
    return ctypes.cast(pointer, ctypes.c_void_p).value or 0


def take_error(pointer: Any) -> str | None:
    """The message of a `wasmtime_error_t*` that a call returned, freed; None if the call succeeded."""
    if not pointer:
        return None
    message = ffi.wasm_byte_vec_t()
    ffi.wasmtime_error_message(pointer, ctypes.byref(message))
    text = ctypes.string_at(message.data, message.size).decode(errors="replace") if message.size else ""
    ffi.wasm_byte_vec_delete(ctypes.byref(message))
    ffi.wasmtime_error_delete(pointer)
    return text or "an error without a message"


def read_name(name: Any) -> str:
    """A `wasm_name_t` as text."""
    return ctypes.string_at(name.data, name.size).decode() if name.size else ""


def write_name(text: str, name: Any) -> None:
    """Fill a `wasm_name_t` in place; the bytes are freed with the value that holds it."""
    data = text.encode()
    ffi.wasm_byte_vec_new_uninitialized(ctypes.byref(name), len(data))
    if data:
        ctypes.memmove(name.data, data, len(data))
