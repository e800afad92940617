"""Links a component with exactly what it was granted: capabilities of the contract, and an empty WASI.

Every function that a component imports is a number, and all numbers lead to one C callback, which is made when this
module is imported: making one takes memory that is writable and executable, which a confined process cannot have.
A callback works for its thread's invocation, since a store lives and dies on one thread. It never raises: a failure is
the contract's `error` if the function has one, and otherwise ends the guest.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from typing import Any, Final

from wasmtime import Engine
from wasmtime import component as wasm

from llmasos_runner import contract, wasi
from llmasos_runner.convert import Case, Err, Ok, Result, TooLarge
from llmasos_runner.engine_abi import DESTRUCTOR, HOST_FUNCTION, NO_FINALIZER, ffi, new_error, take_error
from llmasos_runner.invocation import Ended, GuestInvocation
from llmasos_runner.signature import Signature, Unsupported, signature


class NotLinkable(Exception):
    """The component imports something that it does not get."""


class CurrentInvocation(threading.local):
    """The invocation whose guest this thread executes."""

    invocation: GuestInvocation | None = None


current: Final = CurrentInvocation()

# A host function under the engine: (context, arguments, results) to 0, or the address of an error.
HostFunction = Callable[[Any, Any, Any], int]

# Serves a host call: (invocation, arguments) to a value of the function's result type.
HostCall = Callable[[GuestInvocation, list[Any]], Any]


class Linked:
    """A component with its imports resolved: made once, instantiated for each invocation."""

    def __init__(self, engine: Engine, component: wasm.Component, capabilities: frozenset[str]) -> None:
        self.component = component
        self.linker = wasm.Linker(engine)
        self._numbers: list[int] = []
        with self.linker.root() as root:
            for name, item in component.type.imports(engine).items():
                kind = item.ty
                if not isinstance(kind, wasm.ComponentInstanceType):
                    raise NotLinkable(f"it imports {name}, which is no interface of the contract")
                answers = _answers(name, capabilities)
                with root.add_instance(name) as instance:
                    for member, extern in kind.exports(engine).items():
                        self._define(instance, member, extern.ty, answers)

    def _define(self, instance: wasm.LinkerInstance, name: str, kind: Any, answers: Callable[[str], HostCall]) -> None:
        if isinstance(kind, wasm.ResourceType):
            _check(_add_resource(instance, name, wasi.RESOURCES.get(name, wasi.OTHER)))
        elif isinstance(kind, wasm.FuncType):
            number = next(_numbers)
            _functions[number] = _host_function(name, kind, answers)
            self._numbers.append(number)
            encoded = name.encode()
            _check(
                ffi.wasmtime_component_linker_instance_add_func(
                    instance.ptr(), encoded, len(encoded), _callback, number, NO_FINALIZER
                )
            )


def _host_function(name: str, kind: wasm.FuncType, answers: Callable[[str], HostCall]) -> HostFunction:
    """What the engine calls. Types are read at the first call: a component imports 200 functions, and calls ten."""
    ready: HostFunction | None = None

    def call(context: Any, arguments: Any, results: Any) -> int:
        nonlocal ready
        if ready is None:
            try:
                ready = _function(signature(kind), answers(name))
            except Unsupported:
                # Only functions on files and sockets have such types, and no guest ever holds one.
                return new_error(f"{name} is not available to an app")
        return ready(context, arguments, results)

    return call


def _answers(import_name: str, capabilities: frozenset[str]) -> Callable[[str], HostCall]:
    interface = wasi.interface_of(import_name)
    if interface is not None:
        return lambda name: _wasi_answer(interface, name)
    capability = contract.capability_of(import_name)
    if capability == contract.TYPES or (capability is not None and capability in capabilities):
        return lambda name: _syscall(capability, name)
    raise NotLinkable(f"it imports {import_name}, which it was not granted")


def _wasi_answer(interface: str, name: str) -> HostCall:
    function = wasi.function(interface, name)
    return lambda invocation, arguments: function(invocation, *arguments)


def _syscall(capability: str, name: str) -> HostCall:
    def answer(invocation: GuestInvocation, arguments: list[Any]) -> Any:
        reply = invocation.call(capability, name, arguments)
        error = reply.get("error")
        return Ok(reply.get("value")) if error is None else Err(Case(error["tag"], error["message"]))

    return answer


def _function(types: Signature, answer: HostCall) -> HostFunction:
    parameters, result = types.parameters, types.result
    speaks_errors = isinstance(result, Result) and "denied(string)" in str(result.err)

    def call(context: Any, arguments: Any, results: Any) -> int:
        invocation = current.invocation
        if invocation is None:
            return new_error("a host function was called outside an invocation")
        try:
            values = [kind.lift(arguments[index], context) for index, kind in enumerate(parameters)]
            value = answer(invocation, values)
            if result is not None:
                result.lower(value, results[0], context)
        except Ended:
            return new_error("the invocation is over")
        except (TooLarge, TypeError, ValueError) as error:
            if not speaks_errors:
                return new_error(str(error))
            tag = "invalid" if isinstance(error, TooLarge) else "unavailable"
            return _lower_error(result, Err(Case(tag, str(error))), results[0], context)
        except BaseException as error:  # no exception may cross the engine; this ends the guest with its reason
            return new_error(str(error) or type(error).__name__)
        return 0

    return call


def _lower_error(result: Any, value: Err, target: Any, context: Any) -> int:
    try:
        result.lower(value, target, context)
    except Exception as error:
        return new_error(str(error))
    return 0


_functions: Final[dict[int, HostFunction]] = {}
_numbers: Final = itertools.count(1)


def _dispatch(
    number: int, context: Any, _type: Any, arguments: Any, _count: int, results: Any, _result_count: int
) -> int:
    function = _functions.get(number)
    return new_error("the component was unloaded") if function is None else function(context, arguments, results)


_callback: Final[Any] = HOST_FUNCTION(_dispatch)


def _dropped(_data: Any, _context: Any, _rep: int) -> int:
    return 0  # a resource of the host's is a number: there is nothing to free


_destructor: Final[Any] = DESTRUCTOR(_dropped)


def _add_resource(instance: wasm.LinkerInstance, name: str, kind: int) -> Any:
    encoded = name.encode()
    with wasm.ResourceType.host(kind) as resource:
        return ffi.wasmtime_component_linker_instance_add_resource(
            instance.ptr(), encoded, len(encoded), resource.ptr(), _destructor, None, NO_FINALIZER
        )


def _check(pointer: Any) -> None:
    problem = take_error(pointer)
    if problem is not None:
        raise NotLinkable(problem)
