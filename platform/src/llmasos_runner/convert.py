"""Values across the border of a component, in both directions.

A converter is made once for a type, when the component is linked (`signature`), and lifts values of that type out of
wasmtime's memory and lowers Python values into it, without looking the type up again.

| component type | Python |
|---|---|
| bool, u8 to s64, f32, f64, string | bool, int, float, str |
| list<u8> | bytes |
| list<T>, tuple<…> | list, tuple |
| record | dict, by field |
| option<T> | T or None |
| result<T, E> | `Ok(T)` or `Err(E)` |
| variant, enum | `Case(name, payload)` |
| own<R>, borrow<R> | `Handle(kind, rep)` of a resource of the host's |

Arguments of a host function belong to wasmtime, which frees them; what is lowered is freed by its receiver.
"""

# ruff: noqa: D102 -- `lift` and `lower` are documented once, on `Converter`

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any, Final, Protocol

from llmasos_runner.engine_abi import (
    PAYLOAD_OFFSET,
    VALUE_BYTES,
    Value,
    ValueList,
    ffi,
    pointer_to,
    read_name,
    take_error,
    write_name,
)

# What one string may weigh on its way out of a guest. A frame to the host holds 4 MiB, and decoding a copy of
# more than that only to refuse it would let a guest spend the runner's memory instead of its own.
MAX_TEXT_BYTES: Final = 4 << 20


class TooLarge(Exception):
    """A guest handed over a value that is larger than any the host accepts."""


@dataclass(frozen=True, slots=True)
class Ok:
    """The good case of a result."""

    value: Any = None


@dataclass(frozen=True, slots=True)
class Err:
    """The bad case of a result."""

    value: Any = None


@dataclass(frozen=True, slots=True)
class Case:
    """One case of a variant or an enum."""

    name: str
    payload: Any = None


@dataclass(frozen=True, slots=True)
class Handle:
    """A resource of the host's: which kind it is, and the host's number for it."""

    kind: int
    rep: int


class Converter(Protocol):
    """Moves values of one component type. `str()` of it is the type in WIT's own words."""

    def lift(self, value: Any, context: Any, /) -> Any:
        """Read a value, which stays its owner's."""
        ...

    def lower(self, value: Any, target: Any, context: Any, /) -> None:
        """Write `value` into `target`.

        Raises:
            TypeError: It is no value of this type; `target` is then as it was.
        """
        ...


@dataclass(frozen=True, slots=True)
class Scalar:
    """A number or a truth value."""

    name: str
    kind: int
    field: str
    low: float
    high: float

    def __str__(self) -> str:
        return self.name

    def lift(self, value: Any, _context: Any) -> Any:
        return getattr(value.of, self.field)

    def lower(self, value: Any, target: Any, _context: Any) -> None:
        if self.field == "boolean":
            valid = isinstance(value, bool)
        elif self.field in ("f32", "f64"):
            valid = isinstance(value, (int, float)) and not isinstance(value, bool)
        else:
            valid = isinstance(value, int) and not isinstance(value, bool) and self.low <= value <= self.high
        if not valid:
            raise TypeError(f"{type(value).__name__} is no {self.name}")
        setattr(target.of, self.field, value)
        target.kind = self.kind


@dataclass(frozen=True, slots=True)
class Text:
    """A string."""

    def __str__(self) -> str:
        return "string"

    def lift(self, value: Any, _context: Any) -> str:
        name = value.of.string
        if name.size > MAX_TEXT_BYTES:
            raise TooLarge(f"a text of {name.size} bytes is over the limit of {MAX_TEXT_BYTES}")
        return read_name(name)

    def lower(self, value: Any, target: Any, _context: Any) -> None:
        if not isinstance(value, str):
            raise TypeError(f"{type(value).__name__} is no string")
        write_name(value, target.of.string)
        target.kind = _STRING


@dataclass(frozen=True, slots=True)
class ByteList:
    """A list<u8>, moved in one stride instead of value by value."""

    def __str__(self) -> str:
        return "list<u8>"

    def lift(self, value: Any, _context: Any) -> bytes:
        items = value.of.list
        if items.size > MAX_TEXT_BYTES:
            raise TooLarge(f"{items.size} bytes are over the limit of {MAX_TEXT_BYTES}")
        return (
            ctypes.string_at(items.data, items.size * VALUE_BYTES)[PAYLOAD_OFFSET::VALUE_BYTES] if items.size else b""
        )

    def lower(self, value: Any, target: Any, _context: Any) -> None:
        if not isinstance(value, bytes):
            raise TypeError(f"{type(value).__name__} is no list<u8>")
        items = ValueList()
        ffi.wasmtime_component_vallist_new_uninit(ctypes.byref(items), len(value))
        if value:
            raw = bytearray(len(value) * VALUE_BYTES)
            raw[0::VALUE_BYTES] = bytes([_U8]) * len(value)
            raw[PAYLOAD_OFFSET::VALUE_BYTES] = value
            ctypes.memmove(items.data, bytes(raw), len(raw))
        target.of.list = items
        target.kind = _LIST


@dataclass(frozen=True, slots=True)
class Many:
    """A list of anything but bytes."""

    element: Converter

    def __str__(self) -> str:
        return f"list<{self.element}>"

    def lift(self, value: Any, context: Any) -> list[Any]:
        items = value.of.list
        if items.size * VALUE_BYTES > MAX_TEXT_BYTES:
            raise TooLarge(f"a list of {items.size} is over the limit of {MAX_TEXT_BYTES // VALUE_BYTES}")
        return [self.element.lift(items.data[index], context) for index in range(items.size)]

    def lower(self, value: Any, target: Any, context: Any) -> None:
        if not isinstance(value, list):
            raise TypeError(f"{type(value).__name__} is no {self}")
        entries: list[Any] = value  # pyright: ignore[reportUnknownVariableType]
        items = ValueList()
        ffi.wasmtime_component_vallist_new_uninit(ctypes.byref(items), len(entries))
        _lower_each([self.element] * len(entries), entries, items.data, context)
        target.of.list = items
        target.kind = _LIST


@dataclass(frozen=True, slots=True)
class Tuple:
    """A tuple."""

    elements: tuple[Converter, ...]

    def __str__(self) -> str:
        return f"tuple<{', '.join(map(str, self.elements))}>"

    def lift(self, value: Any, context: Any) -> tuple[Any, ...]:
        items = value.of.tuple
        return tuple(element.lift(items.data[index], context) for index, element in enumerate(self.elements))

    def lower(self, value: Any, target: Any, context: Any) -> None:
        if not isinstance(value, tuple) or len(value) != len(self.elements):  # pyright: ignore[reportUnknownArgumentType]
            raise TypeError(f"{type(value).__name__} is no {self}")  # pyright: ignore[reportUnknownArgumentType]
        items = ffi.wasmtime_component_valtuple_t()
        ffi.wasmtime_component_valtuple_new_uninit(ctypes.byref(items), len(self.elements))
        _lower_each(list(self.elements), list(value), items.data, context)  # pyright: ignore[reportUnknownArgumentType]
        target.of.tuple = items
        target.kind = _TUPLE


@dataclass(frozen=True, slots=True)
class Record:
    """A record."""

    fields: tuple[tuple[str, Converter], ...]

    def __str__(self) -> str:
        return f"record {{ {', '.join(f'{name}: {kind}' for name, kind in self.fields)} }}"

    def lift(self, value: Any, context: Any) -> dict[str, Any]:
        entries = value.of.record
        return {name: kind.lift(entries.data[index].val, context) for index, (name, kind) in enumerate(self.fields)}

    def lower(self, value: Any, target: Any, context: Any) -> None:
        if not isinstance(value, dict) or set(value) != {name for name, _ in self.fields}:  # pyright: ignore[reportUnknownArgumentType]
            raise TypeError(f"no {self}")
        entries = ffi.wasmtime_component_valrecord_t()
        ffi.wasmtime_component_valrecord_new_uninit(ctypes.byref(entries), len(self.fields))
        for index, (name, kind) in enumerate(self.fields):
            entry = entries.data[index]
            write_name(name, entry.name)
            kind.lower(value[name], entry.val, context)
        target.of.record = entries
        target.kind = _RECORD


@dataclass(frozen=True, slots=True)
class Option:
    """An option."""

    inner: Converter

    def __str__(self) -> str:
        return f"option<{self.inner}>"

    def lift(self, value: Any, context: Any) -> Any:
        inside = value.of.option
        return self.inner.lift(inside.contents, context) if inside else None

    def lower(self, value: Any, target: Any, context: Any) -> None:
        target.of.option = None if value is None else _boxed(self.inner, value, context)
        target.kind = _OPTION


@dataclass(frozen=True, slots=True)
class Result:
    """A result, whose cases may carry nothing."""

    ok: Converter | None
    err: Converter | None

    def __str__(self) -> str:
        if self.err is None:
            return f"result<{self.ok}>" if self.ok else "result"
        return f"result<{self.ok or '_'}, {self.err}>"

    def lift(self, value: Any, context: Any) -> Ok | Err:
        result = value.of.result
        kind = self.ok if result.is_ok else self.err
        inside = kind.lift(result.val.contents, context) if kind is not None and result.val else None
        return Ok(inside) if result.is_ok else Err(inside)

    def lower(self, value: Any, target: Any, context: Any) -> None:
        if not isinstance(value, (Ok, Err)):
            raise TypeError(f"{type(value).__name__} is no {self}")
        kind = self.ok if isinstance(value, Ok) else self.err
        if kind is None and value.value is not None:
            raise TypeError(f"{self} carries nothing there")
        target.of.result.val = None if kind is None else _boxed(kind, value.value, context)
        target.of.result.is_ok = isinstance(value, Ok)
        target.kind = _RESULT


@dataclass(frozen=True, slots=True)
class Variant:
    """A variant, or an enum, whose cases carry nothing."""

    cases: tuple[tuple[str, Converter | None], ...]
    is_enum: bool = False

    def __str__(self) -> str:
        inside = ", ".join(name if kind is None else f"{name}({kind})" for name, kind in self.cases)
        return f"{'enum' if self.is_enum else 'variant'} {{ {inside} }}"

    def lift(self, value: Any, context: Any) -> Case:
        if self.is_enum:
            return Case(read_name(value.of.enumeration))
        variant = value.of.variant
        name = read_name(variant.discriminant)
        kind = dict(self.cases)[name]
        return Case(name, kind.lift(variant.val.contents, context) if kind is not None else None)

    def lower(self, value: Any, target: Any, context: Any) -> None:
        if not isinstance(value, Case) or value.name not in dict(self.cases):
            raise TypeError(f"{value!r} is no case of {self}")
        if self.is_enum:
            write_name(value.name, target.of.enumeration)
            target.kind = _ENUM
            return
        kind = dict(self.cases)[value.name]
        boxed = None if kind is None else _boxed(kind, value.payload, context)
        write_name(value.name, target.of.variant.discriminant)
        target.of.variant.val = boxed
        target.kind = _VARIANT


@dataclass(frozen=True, slots=True)
class Resource:
    """A handle of a resource that the host defines. A borrowed one must be given back, or the call traps."""

    owned: bool

    def __str__(self) -> str:
        return "own" if self.owned else "borrow"

    def lift(self, value: Any, context: Any) -> Handle:
        host = pointer_to(ffi.wasmtime_component_resource_host_t)
        problem = take_error(
            ffi.wasmtime_component_resource_any_to_host(context, value.of.resource, ctypes.byref(host))
        )
        if problem is not None:
            raise TypeError(problem)
        handle = Handle(ffi.wasmtime_component_resource_host_type(host), ffi.wasmtime_component_resource_host_rep(host))
        ffi.wasmtime_component_resource_host_delete(host)
        if not self.owned:
            take_error(ffi.wasmtime_component_resource_any_drop(context, value.of.resource))
        return handle

    def lower(self, value: Any, target: Any, context: Any) -> None:
        if not isinstance(value, Handle):
            raise TypeError(f"{type(value).__name__} is no handle")
        host = ffi.wasmtime_component_resource_host_new(self.owned, value.rep, value.kind)
        handle = pointer_to(ffi.wasmtime_component_resource_any_t)
        problem = take_error(ffi.wasmtime_component_resource_host_to_any(context, host, ctypes.byref(handle)))
        ffi.wasmtime_component_resource_host_delete(host)
        if problem is not None:
            raise TypeError(problem)
        target.of.resource = handle
        target.kind = _RESOURCE


def _boxed(kind: Converter, value: Any, context: Any) -> Any:
    inside = Value()
    kind.lower(value, inside, context)
    return ffi.wasmtime_component_val_new(ctypes.byref(inside))


def _lower_each(kinds: list[Converter], values: list[Any], target: Any, context: Any) -> None:
    for index in range(len(values)):
        target[index].kind = _BOOL  # nothing to free there, should a later one fail
    for index, (kind, value) in enumerate(zip(kinds, values, strict=True)):
        kind.lower(value, target[index], context)


_BOOL: Final[int] = ffi.WASMTIME_COMPONENT_BOOL.value
_U8: Final[int] = ffi.WASMTIME_COMPONENT_U8.value
_STRING: Final[int] = ffi.WASMTIME_COMPONENT_STRING.value
_LIST: Final[int] = ffi.WASMTIME_COMPONENT_LIST.value
_TUPLE: Final[int] = ffi.WASMTIME_COMPONENT_TUPLE.value
_RECORD: Final[int] = ffi.WASMTIME_COMPONENT_RECORD.value
_OPTION: Final[int] = ffi.WASMTIME_COMPONENT_OPTION.value
_RESULT: Final[int] = ffi.WASMTIME_COMPONENT_RESULT.value
_VARIANT: Final[int] = ffi.WASMTIME_COMPONENT_VARIANT.value
_ENUM: Final[int] = ffi.WASMTIME_COMPONENT_ENUM.value
_RESOURCE: Final[int] = ffi.WASMTIME_COMPONENT_RESOURCE.value
