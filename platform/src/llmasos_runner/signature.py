"""Which converters a component's types and functions have. Read once, when the component is compiled or linked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from wasmtime import component as wasm

from llmasos_runner.convert import (
    ByteList,
    Converter,
    Many,
    Option,
    Record,
    Resource,
    Result,
    Scalar,
    Text,
    Tuple,
    Variant,
)
from llmasos_runner.engine_abi import ffi


@dataclass(frozen=True, slots=True)
class Signature:
    """The converters of a function."""

    parameters: tuple[Converter, ...]
    result: Converter | None

    def __str__(self) -> str:
        return f"func({', '.join(map(str, self.parameters))})" + (f" -> {self.result}" if self.result else "")


class Unsupported(Exception):
    """A component type that nothing in the contract uses."""


def signature(function: wasm.FuncType) -> Signature:
    """The converters of a function's type.

    Raises:
        Unsupported: It uses a type that cannot cross, such as a stream.
    """
    result = function.result
    return Signature(
        tuple(converter(kind) for _, kind in function.params), None if result is None else converter(result)
    )


def converter(kind: wasm.ValType) -> Converter:  # noqa: PLR0911 -- one for each kind of type
    """The converter of one type.

    Raises:
        Unsupported: It cannot cross.
    """
    scalar = _SCALARS.get(type(kind))
    if scalar is not None:
        return scalar
    match kind:
        case wasm.String():
            return Text()
        case wasm.ListType():
            element = converter(kind.element)
            return ByteList() if str(element) == "u8" else Many(element)
        case wasm.TupleType():
            return Tuple(tuple(converter(element) for element in kind.elements))
        case wasm.RecordType():
            return Record(tuple((name, converter(field)) for name, field in kind.fields))
        case wasm.OptionType():
            return Option(converter(kind.payload))
        case wasm.ResultType():
            return Result(_optional(kind.ok), _optional(kind.err))
        case wasm.VariantType():
            return Variant(tuple((name, _optional(payload)) for name, payload in kind.cases))
        case wasm.EnumType():
            return Variant(tuple((name, None) for name in kind.names), is_enum=True)
        case wasm.OwnType() | wasm.BorrowType():
            return Resource(isinstance(kind, wasm.OwnType))
        case _:
            raise Unsupported(type(kind).__name__)


def _optional(kind: wasm.ValType | None) -> Converter | None:
    return None if kind is None else converter(kind)


def _integer(name: str, low: int, high: int) -> Scalar:
    return Scalar(name, getattr(ffi, f"WASMTIME_COMPONENT_{name.upper()}").value, name, low, high)


_SCALARS: Final[dict[type, Scalar]] = {
    wasm.Bool: Scalar("bool", ffi.WASMTIME_COMPONENT_BOOL.value, "boolean", 0, 1),
    wasm.U8: _integer("u8", 0, 2**8 - 1),
    wasm.U16: _integer("u16", 0, 2**16 - 1),
    wasm.U32: _integer("u32", 0, 2**32 - 1),
    wasm.U64: _integer("u64", 0, 2**64 - 1),
    wasm.S8: _integer("s8", -(2**7), 2**7 - 1),
    wasm.S16: _integer("s16", -(2**15), 2**15 - 1),
    wasm.S32: _integer("s32", -(2**31), 2**31 - 1),
    wasm.S64: _integer("s64", -(2**63), 2**63 - 1),
    wasm.F32: _integer("f32", 0, 0),
    wasm.F64: _integer("f64", 0, 0),
}
