"""Measures a component through runner, protocol and kernel against the bare engine, and prints a table.

    uv run python tests/benchmarks/bench_components.py [--quick]

Each ratio compares two figures of one run, measured alternately, so that load slows both.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import importlib.util
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TypeAlias

import extism
import wasmtime
from sqlmodel import SQLModel
from wasmtime import component as wasm

import llmasos_sdk
from llmasos import tables  # noqa: F401
from llmasos.bundles.reader import read_bundle
from llmasos.database.engine import Database
from llmasos.invocations.lifecycle import Invocations
from llmasos.kernel.invocation import InstalledApp, Invocation, InvocationLimits, Principal
from llmasos.runtimes.component import ComponentRuntime
from llmasos.runtimes.runtime import Program
from llmasos.settings import Settings
from llmasos.testing import small_host

WIT = Path(llmasos_sdk.__file__).parent / "wit" / "llmasos.wit"
GUEST = """
from wit_world import exports
from wit_world.imports import model

class Handler(exports.Handler):
    def describe(self):
        return "[]"
    def call(self, action, input):
        return model.generate(input) if action == "wait" else input
"""
WORLD = "\nworld bench { import output; import log; import config; import model; export handler; }\n"
# A plugin that does nothing, as small as one can be.
EXTISM = '(module (memory (export "memory") 1) (func (export "run") (result i32) (i32.const 0)))'
WAITING = 500

# Runs a program, for an invocation if the kernel opened one.
Run: TypeAlias = Callable[..., Awaitable[None]]


def build(folder: Path) -> Path:
    """A Python component whose action does nothing."""
    (folder / "wit").mkdir()
    (folder / "wit" / "world.wit").write_text(WIT.read_text() + WORLD)
    (folder / "guest.py").write_text(GUEST)
    command = ["componentize-py", "-d", "wit", "-w", "bench", "componentize", "guest", "-o", "guest.wasm"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return folder / "guest.wasm"


class Raw:
    """The engine alone, in this process: an instance and a call, with the package's own WASI and conversions."""

    def __init__(self, compiled: Path) -> None:
        config = wasmtime.Config()
        config.wasm_component_model = True
        config.consume_fuel = True
        config.epoch_interruption = True
        for name in ("wasm_threads", "shared_memory", "wasm_memory64", "wasm_stack_switching"):
            setattr(config, name, False)
        self.engine = wasmtime.Engine(config)
        self.component = wasm.Component.deserialize_file(self.engine, str(compiled))
        self.linker = wasm.Linker(self.engine)
        self.linker.add_wasip2()
        with self.linker.root() as root:
            for name, item in self.component.type.imports(self.engine).items():
                if name.startswith("llmasos:"):
                    with root.add_instance(name) as instance:
                        for member, extern in item.ty.exports(self.engine).items():
                            if isinstance(extern.ty, wasm.FuncType):
                                instance.add_func(member, lambda *_: None)
        handler = self.component.get_export_index("llmasos:app/handler@0.1.0")
        self.call = self.component.get_export_index("call", handler)
        self.describe = self.component.get_export_index("describe", handler)

    def once(self) -> None:
        """One invocation."""
        assert self._fresh(self.call, "echo", '"x"') == '"x"'

    def described(self) -> None:
        """One description."""
        assert self._fresh(self.describe).startswith("[")

    def _fresh(self, export, *arguments):
        with wasmtime.Store(self.engine) as store:
            store.set_wasi(wasmtime.WasiConfig())
            store.set_fuel(10**10)
            store.set_epoch_deadline(10**6)
            instance = self.linker.instantiate(store, self.component)
            return instance.get_func(store, export)(store, *arguments)


def timed(run) -> float:
    started = time.perf_counter()
    run()
    return (time.perf_counter() - started) * 1000


async def timed_async(run: Awaitable[None]) -> float:
    started = time.perf_counter()
    await run
    return (time.perf_counter() - started) * 1000


def pss_bytes(pids: list[int]) -> int:
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1]) * 1024
    return total


def row(name: str, value: str, wanted: str = "") -> None:
    print(f"{name:<66}{value:>14}  {wanted}")


async def main(rounds: int) -> None:
    """Measure and print."""
    gate, calls = asyncio.Event(), 0

    async def handler(_invocation, _capability, _function, _arguments):
        nonlocal calls
        calls += 1
        await gate.wait()
        return '"x"'

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        code = build(folder)
        digest = hashlib.sha256(code.read_bytes()).hexdigest()
        program = Program("wasm", digest, frozenset({"model"}), "bench")
        runtime = ComponentRuntime(Settings(home=folder / "home", runners=1), handler)
        database = Database(f"sqlite:///{folder / 'bench.db'}")
        SQLModel.metadata.create_all(database.engine)
        hosts = AsyncExitStack()
        host = await hosts.enter_async_context(small_host(database))
        try:
            started = time.perf_counter()
            await runtime.prepare(program, code)
            row("compile once (s)", f"{time.perf_counter() - started:.1f}")
            started = time.perf_counter()
            await runtime.prepare(program, code)
            row("prepare again (ms)", f"{(time.perf_counter() - started) * 1000:.1f}", "< 500")
            await latencies(Ways(runtime, host.invocations, rounds), program, folder)
            await waiting(runtime, program, lambda: calls, gate)
        finally:
            await runtime.close()
            await hosts.aclose()
            database.close()


class Ways:
    """The ways to run a component, timed alternately in milliseconds."""

    def __init__(self, runtime: ComponentRuntime, invocations: Invocations, rounds: int) -> None:
        self.runtime = runtime
        self.rounds = rounds
        self._invocations = invocations
        self._app = InstalledApp("bench/app", "1", "bench", {}, frozenset())

    async def echo(self, program: Program, invocation: Invocation | None = None) -> None:
        """An action that does nothing, through runner and protocol."""
        invocation = invocation or Invocation(Principal(), None, "echo", limits=InvocationLimits())
        await self.runtime.call(program, invocation, "echo", '"x"')

    async def describe(self, program: Program, _invocation: Invocation | None = None) -> None:
        """The description of its actions, as trivial, for a component that has no `echo`."""
        await self.runtime.describe(program)

    async def whole(self, run: Run, program: Program) -> None:
        """Through the kernel too: reserved, recorded, settled and audited, on SQLite."""
        async with self._invocations.open(Principal(), self._app, "echo", InvocationLimits()) as invocation:
            await run(program, invocation)

    async def compare(self, name: str, bound: str, alone: Callable[[], None], run: Run, program: Program) -> None:
        """Print the time of the bare engine and of both ways, measured alternately."""
        times: list[tuple[float, ...]] = []
        for _ in range(self.rounds):
            times.append((timed(alone), await timed_async(run(program)), await timed_async(self.whole(run, program))))
        raw, runner, whole = (statistics.median(column) for column in zip(*times, strict=True))
        row(f"{name} component, engine alone in process (ms, median)", f"{raw:.2f}")
        row("the same through runner and protocol (ms, median)", f"{runner:.2f}", f"{runner / raw:.2f} x")
        row("the same through runner, protocol and kernel, end committed (ms, median)", f"{whole:.2f}")
        row("ratio", f"{whole / raw:.2f}", bound)


async def latencies(ways: Ways, program: Program, folder: Path) -> None:
    """One trivial action, in every way."""
    await ways.runtime.warm()
    first = await timed_async(ways.whole(ways.echo, program))
    row("first run after install, runner warm (ms)", f"{first:.1f}", "< 50")
    (compiled,) = (folder / "home" / "compiled").glob("*.cwasm")
    await ways.compare("Python", "<= 1.6", Raw(compiled).once, ways.echo, program)
    await quickjs(ways, folder)
    small = await minimal(ways, folder)
    manifest = {"wasm": [{"data": bytes(wasmtime.wat2wasm(EXTISM))}]}
    ours: list[float] = []
    plugin: list[float] = []
    for _ in range(ways.rounds):
        ours.append(await timed_async(ways.echo(small)))
        plugin.append(timed(lambda: extism.Plugin(manifest, wasi=False).call("run", b"")))
    row("a minimal component through runner and protocol (ms, median)", f"{statistics.median(ours):.2f}")
    row("a fresh minimal extism plugin in process (ms, median)", f"{statistics.median(plugin):.2f}", "slower")


async def quickjs(ways: Ways, folder: Path) -> None:
    """A JavaScript app that describes itself, against the bare engine."""
    (bundle,) = (Path(__file__).parents[2] / "plugins" / "digest" / "prebuilt").glob("*.llmapp")
    code = folder / "quickjs.wasm"
    code.write_bytes(read_bundle(bundle).component)
    program = Program("wasm", hashlib.sha256(code.read_bytes()).hexdigest(), frozenset({"model"}), "bench")
    known = set((folder / "home" / "compiled").glob("*.cwasm"))
    await ways.runtime.prepare(program, code)
    (compiled,) = set((folder / "home" / "compiled").glob("*.cwasm")) - known
    await ways.compare("QuickJS", "<= 3", Raw(compiled).described, ways.describe, program)


async def minimal(ways: Ways, folder: Path) -> Program:
    """A component that does as little as the extism plugin."""
    spec = importlib.util.spec_from_file_location("wat", Path(__file__).parents[1] / "platform" / "runtimes" / "wat.py")
    wat = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(wat)
    code = wat.component(folder / "minimal.wasm", wat.core_module())
    program = Program("wasm", hashlib.sha256(code.read_bytes()).hexdigest(), frozenset(), "bench")
    await ways.runtime.prepare(program, code)
    return program


async def waiting(runtime: ComponentRuntime, program: Program, calls, gate: asyncio.Event) -> None:
    """Many concurrent invocations that wait for the host."""
    pids = [os.getpid(), *runtime.runner_pids]
    before = pss_bytes(pids)
    started = time.perf_counter()
    running = [
        asyncio.create_task(
            runtime.call(program, Invocation(Principal(), None, "bench", limits=InvocationLimits()), "wait", '"x"')
        )
        for _ in range(WAITING)
    ]
    while calls() < WAITING:  # noqa: ASYNC110 -- it measures from outside
        await asyncio.sleep(0.05)
    row(f"{WAITING} wait at once, all there after (s)", f"{time.perf_counter() - started:.1f}")
    each = (pss_bytes(pids) - before) / WAITING / (1 << 20)
    row("each above what the host and its runner held before (MiB)", f"{each:.2f}", "<= 4")
    started = time.perf_counter()
    gate.set()
    done = await asyncio.gather(*running)
    row("all finished after (s)", f"{time.perf_counter() - started:.1f}", f"{len(done)} of {WAITING}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    sys.exit(asyncio.run(main(30 if parser.parse_args().quick else 300)))
