"""Runs components: a fresh instance for each invocation, on a thread of its own, within its limits.

The engine limits what an invocation may use: memory, tables, instances and memories by the store's limits, compute by
fuel, time by the epoch. A guest that meets a limit, traps, ends itself or breaks the contract ends with one `Failure`,
and its instance is dropped, since an instance that failed cannot be entered again.
"""

from __future__ import annotations

import ctypes
import os
import resource
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final

from wasmtime import Config, Engine, Store, WasmtimeError
from wasmtime import component as wasm

from llmasos_runner import contract, epoch
from llmasos_runner.convert import Case, Err, Result, Text, TooLarge, Variant
from llmasos_runner.engine_abi import Value, ffi, take_error
from llmasos_runner.invocation import GuestInvocation
from llmasos_runner.linking import Linked, NotLinkable, current
from llmasos_runner.protocol import FUEL_PER_CPU_SECOND, Call, Done, Failure
from llmasos_sdk.messages import Message, to_text
from llmasos_sdk.messages import message as _

# A component made by componentize-py has about ten core instances and as many tables; a JavaScript one, five. What
# a component may have more than that buys it only memory on the host's side of its limit.
MAX_INSTANCES: Final = 200
MAX_TABLES: Final = 100
MAX_MEMORIES: Final = 20
# A Python component's function table has 12,000 entries of eight bytes each, outside the memory limit.
MAX_TABLE_ELEMENTS: Final = 200_000
# Linked components stay mapped, shared by their invocations; past this many, the least recently used one is unloaded.
MAX_PROGRAMS: Final = 128
_MESSAGE_CHARACTERS: Final = 4000
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")

_HANDLER: Final = contract.interface_name(contract.HANDLER)
_TEXT: Final = Text()
# The type of `call`'s result in wasmtime's C API; compiling checked that the component's type is this one.
_ANSWER: Final = Result(
    _TEXT,
    Variant(
        tuple(
            (name, _TEXT)
            for name in (
                "denied", "quota", "invalid", "unavailable", "timeout", "cancelled", "not-found", "conflict",
            )
        )
    ),
)  # fmt: skip


def engine() -> Engine:
    """Return the engine with the configuration that compiled files are made for; `ENGINE_CONFIGURATION` numbers it."""
    config = Config()
    config.wasm_component_model = True
    config.consume_fuel = True
    config.epoch_interruption = True
    # The contract uses none of these, and each would open more of the engine's code to guests.
    config.wasm_threads = False
    config.shared_memory = False
    config.wasm_memory64 = False
    config.wasm_stack_switching = False
    return Engine(config)


class ComponentRunner:
    """Runs invocations of components, each on the thread that calls `execute`."""

    def __init__(self) -> None:
        self._engine = engine()
        self.ticker = epoch.Ticker(self._engine)
        self._on_tick = epoch.on_tick(_current_is_over)
        self._programs: OrderedDict[tuple[str, frozenset[str]], _Program] = OrderedDict()
        self._lock = threading.Lock()

    def execute(self, invocation: GuestInvocation, call: Call) -> Done:
        """Run one invocation from its start to its end; never raises."""
        before = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
        fuel, computing_since = 0, time.thread_time()
        current.invocation = invocation
        answer: str | Failure
        try:
            program = self._program(call["program"], frozenset(call["capabilities"]))
            with Store(self._engine) as store, self.ticker:
                store.set_limits(
                    memory_size=invocation.limits["memory_bytes"], table_elements=MAX_TABLE_ELEMENTS,
                    instances=MAX_INSTANCES, tables=MAX_TABLES, memories=MAX_MEMORIES,
                )  # fmt: skip
                store.set_fuel(invocation.limits["fuel"])
                epoch.watch(store, self._on_tick)
                try:
                    answer = program.invoke(store, invocation, call["action"], call["input"])
                finally:
                    fuel = invocation.limits["fuel"] - store.get_fuel()
        except Trapped as error:
            # A guest that traps has not written back the fuel that it used since its last host call.
            computed = int((time.thread_time() - computing_since) * FUEL_PER_CPU_SECOND)
            fuel = min(max(fuel, computed), invocation.limits["fuel"])
            answer = _why(invocation, str(error))
        except NotLinkable as error:
            answer = {
                "tag": "invalid",
                "code": "component-rejected",
                "message": to_text(_("The component does not link: {error}.", error=error)),
            }
        except TooLarge as error:
            answer = {
                "tag": "invalid",
                "code": "resource-limit",
                "message": to_text(_("The app's result is too large: {error}.", error=error)),
            }
        except Exception as error:  # whatever it is, it ends only this invocation
            answer = {
                "tag": "unavailable",
                "code": "internal",
                "message": to_text(_("The component cannot be run: {error}", error=repr(error))),
            }
        finally:
            current.invocation = None
        # The pages that this thread touched for the first time: an instance's memory is a fresh mapping.
        # wasmtime's C API does not report a component's memory size.
        touched = (resource.getrusage(resource.RUSAGE_THREAD).ru_minflt - before) * _PAGE_BYTES
        done: Done = {
            "t": "done",
            "id": invocation.id,
            "fuel": fuel,
            "memory_bytes": touched,
            "log": invocation.log.text(),
        }
        if isinstance(answer, str):
            done["output"] = answer
        else:
            done["error"] = answer
        return done

    def close(self) -> None:
        """Free everything. Nothing may run any more."""
        self.ticker.close()
        self._programs.clear()

    def _program(self, path: str, capabilities: frozenset[str]) -> _Program:
        key = (path, capabilities)
        with self._lock:
            program = self._programs.get(key)
            if program is None:
                component = wasm.Component.deserialize_file(self._engine, path)
                program = self._programs[key] = _Program(Linked(self._engine, component, capabilities))
                while len(self._programs) > MAX_PROGRAMS:
                    self._programs.popitem(last=False)
            self._programs.move_to_end(key)
            return program


class Trapped(Exception):
    """The guest returned no result; the message is the engine's."""


class _Program:
    """A linked component and its two exports."""

    def __init__(self, linked: Linked) -> None:
        self._linked = linked
        self._call = _export(linked.component, "call")
        self._describe = _export(linked.component, "describe")

    def invoke(self, store: Store, invocation: GuestInvocation, action: str | None, input_json: str) -> str | Failure:
        """Make an instance and call it: `describe` when `action` is None."""
        try:
            instance = self._linked.linker.instantiate(store, self._linked.component)
        except WasmtimeError as error:
            raise Trapped(str(error)) from error
        if action is None:
            return _checked(_call(store, instance, self._describe, [], lambda value: _bounded(value, invocation)))
        answer = _call(store, instance, self._call, [action, input_json], lambda value: _answer(value, invocation))
        if isinstance(answer, Err):
            case: Case = answer.value
            return {"tag": case.name, "message": str(case.payload)[:_MESSAGE_CHARACTERS]}
        return _checked(answer)


def _checked(answer: Any) -> str:
    if not isinstance(answer, str):
        raise Trapped("the answer is not a text")
    return answer


def _export(component: wasm.Component, name: str) -> wasm.ExportIndex:
    handler = component.get_export_index(_HANDLER)
    index = component.get_export_index(name, handler) if handler is not None else None
    if index is None:
        raise NotLinkable(f"it does not export {_HANDLER} with {name}")
    return index


def _call(
    store: Store, instance: wasm.Instance, index: wasm.ExportIndex, arguments: list[str], lift: Callable[[Any], Any]
) -> Any:
    function = instance.get_func(store, index)
    if function is None:
        raise Trapped("its handler exports no such function")
    context = store._context()  # pyright: ignore[reportPrivateUsage]
    parameters = (Value * len(arguments))()
    answer = Value()
    try:
        for argument, parameter in zip(arguments, parameters, strict=True):
            _TEXT.lower(argument, parameter, context)
        problem = take_error(
            ffi.wasmtime_component_func_call(
                ctypes.byref(function._func),  # pyright: ignore[reportPrivateUsage]
                context,
                parameters,
                len(arguments),
                ctypes.byref(answer),
                1,
            )
        )
        if problem is not None:
            raise Trapped(problem)
        return lift(answer)
    finally:
        for parameter in parameters:
            ffi.wasmtime_component_val_delete(ctypes.byref(parameter))
        ffi.wasmtime_component_val_delete(ctypes.byref(answer))


def _bounded(value: Any, invocation: GuestInvocation) -> str:
    size = value.of.string.size
    if size > invocation.limits["output_bytes"]:
        raise TooLarge(f"{size} bytes, and it may be {invocation.limits['output_bytes']}")
    return _TEXT.lift(value, None)


def _answer(value: Any, invocation: GuestInvocation) -> str | Err:
    result = value.of.result
    if result.is_ok and result.val:
        return _bounded(result.val.contents, invocation)
    answer = _ANSWER.lift(value, None)
    return answer if isinstance(answer, Err) else Err(Case("invalid", "the app answered nothing"))


def _current_is_over() -> bool:
    invocation = current.invocation
    return invocation is None or invocation.is_over()


def _why(invocation: GuestInvocation, trap: str) -> Failure:  # noqa: PLR0911 -- one for each cause
    """Return the single error of an invocation that ended without a result."""
    if invocation.reason is not None:
        return invocation.reason
    if invocation.exit_code is not None:
        said = _(
            "The app ended itself with exit code {exit_code} instead of answering.", exit_code=invocation.exit_code
        )
        return _failure("app-failed", said, invocation)
    if "all fuel consumed" in trap:
        said = _(
            "The app used all the compute that it may use: {fuel:,} units of fuel.", fuel=invocation.limits["fuel"]
        )
        return _failure("resource-limit", said, invocation)
    if "exceeds memory limits" in trap or "memory minimum size" in trap or _ran_out_of_memory(invocation):
        mib = invocation.limits["memory_bytes"] >> 20
        return _failure(
            "resource-limit", _("The app used more memory than it may use: {mib} MiB.", mib=mib), invocation
        )
    if "call stack exhausted" in trap:
        return _failure("resource-limit", _("The app's calls nest deeper than the stack allows."), invocation)
    if "resource limit exceeded" in trap:
        said = _("The app has more instances, tables or memories than it may have.")
        return _failure("resource-limit", said, invocation)
    causes = [line.strip() for line in trap.splitlines() if line.strip()]
    cause = next((line for line in reversed(causes) if "wasm trap:" in line), causes[-1])
    trapped = cause.split("wasm trap: ")[-1]
    return _failure("app-failed", _("The app crashed: {trapped}.", trapped=trapped), invocation)


def _ran_out_of_memory(invocation: GuestInvocation) -> bool:
    # A guest learns that its memory cannot grow, and aborts with its own language's message.
    end = invocation.log.text()[-2000:]
    return any(word in end for word in ("MemoryError", "memory allocation of", "out of memory"))


def _failure(code: str, said: Message, invocation: GuestInvocation) -> Failure:
    # A Python guest prints its traceback; then the Rust below it prints that it panicked, which adds nothing.
    printed = invocation.log.text().split("\nthread '")[0]
    lines = [line for line in printed.splitlines() if line.strip()]
    if lines:
        last = lines[-1].strip()[:500]
        said = _("{what} It said last: {last}", what=said, last=last)
    return {"tag": "invalid", "code": code, "message": to_text(said)}
