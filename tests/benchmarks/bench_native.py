"""What a host call of a native app costs: `python tests/benchmarks/bench_native.py [calls]`.

The same calls (`log.write`, which only passes the kernel, and `storage.get`, which reads the database; neither meets
the ledger) are made by a native app in its confined runner, through its socket, and by code in the host's process at
`GuestCalls`. Rounds of both alternate in one run, so that load slows both. The bound: a
call from a native app takes at most 100 µs more than from in-process code. No processor halts (`awake.py`).

Also printed: `bare echo`, the cost of a frame to a bare child and back over such a socket, which no protocol can go
below; and `woken`, the in-process call after that echo, since a host that just woke is slower than a busy loop.
"""

from __future__ import annotations

import asyncio
import json
import socket
import statistics
import struct
import sys
import tempfile
import time
from pathlib import Path

from awake import awake
from bench_confine import ECHO, Echoes, installed

from llmasos.bundles.manifest import LocalisedText, StoragePermission
from llmasos.capabilities.baseline import ConfigCapability, LogCapability
from llmasos.capabilities.storage import StorageCapability
from llmasos.database.engine import Database
from llmasos.database.schema import ensure_schema
from llmasos.kernel import calls
from llmasos.kernel.guest_calls import GuestCalls
from llmasos.kernel.invocation import InstalledApp, Invocation, InvocationLimits, Principal
from llmasos.runtimes.building import base_python
from llmasos.runtimes.confinement import confinement
from llmasos.runtimes.native import NativeRuntime
from llmasos.runtimes.runtime import Program
from llmasos.testing import small_host

# The app times itself, to compare calls as the app sees them. The first call of each is not counted.
SOURCE = """
import time

from llmasos_sdk import App, Context

app = App()


@app.action
def calls(ctx: Context, kind: str, count: int) -> float:
    call = (lambda: ctx.log.info("a line")) if kind == "log.write" else (lambda: ctx.storage.get("key"))
    call()
    began = time.perf_counter()
    for _ in range(count):
        call()
    return (time.perf_counter() - began) / count


@app.action
def put(ctx: Context) -> None:
    ctx.storage.put("key", "value")
"""
MANIFEST = """
schema = 1
id = "acme/calls"
version = "1.0.0"
license = "Apache-2.0"
name.en = "Calls"
summary.en = "Calls the host."
[runtime]
kind = "python"
source = "app.py"
[[permissions]]
capability = "storage"
reason.en = "bench"
"""
CALLS = {"log.write": ("log", "write", ["info", "a line"]), "storage.get": ("storage", "get", ["key"])}
ROUNDS = 30
BOUND_US = 100
INVOCATION = InvocationLimits(fuel=1 << 60, wall_seconds=600, log_bytes=1 << 30)
# The host delays an app that calls faster; this measures the call itself.
calls.CALLS_PER_SECOND = 1e12


async def in_process(guest: GuestCalls, invocation: Invocation, kind: str, count: int) -> float:
    """Seconds per call of code in the host's process."""
    capability, function, arguments = CALLS[kind]
    began = time.perf_counter()
    for _ in range(count):
        await guest(invocation, capability, function, [*arguments])
    return (time.perf_counter() - began) / count


class Bare:
    """A child that echoes, over a socket pair."""

    async def start(self) -> None:
        ours, theirs = socket.socketpair()
        self._child = await asyncio.create_subprocess_exec(
            base_python(), "-I", "-S", "-c", ECHO, str(theirs.fileno()), pass_fds=[theirs.fileno()]
        )
        theirs.close()
        self._loop = asyncio.get_running_loop()
        self._transport, self._echoes = await self._loop.create_connection(Echoes, sock=ours)

    async def echo(self) -> None:
        """Send a frame as long as a call's, and receive it."""
        self._echoes.answer = self._loop.create_future()
        self._transport.write(struct.pack(">I", 150) + b"x" * 150)
        await self._echoes.answer

    async def close(self) -> None:
        self._transport.close()
        await self._child.wait()


async def woken(bare: Bare, guest: GuestCalls, invocation: Invocation, kind: str, count: int) -> tuple[float, float]:
    """Median seconds of an echo, and of a call in process that follows it."""
    capability, function, arguments = CALLS[kind]
    echoes, calls = [], []
    for _ in range(count):
        began = time.perf_counter()
        await bare.echo()
        between = time.perf_counter()
        await guest(invocation, capability, function, [*arguments])
        echoes.append(between - began)
        calls.append(time.perf_counter() - between)
    return statistics.median(echoes), statistics.median(calls)


async def from_the_app(
    runtime: NativeRuntime, program: Program, invocation: Invocation, kind: str, count: int
) -> float:
    """Seconds per call of the app, by its own clock."""
    told = await runtime.call(program, invocation, "calls", json.dumps({"kind": kind, "count": count}))
    return float(json.loads(told.output))


async def main() -> int:
    """Measure, print, and compare with the bound."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    print("confinement:", ", ".join(confinement().mechanisms) or confinement().missing)
    grant = StoragePermission(capability="storage", reason=LocalisedText(en="bench"))
    app = InstalledApp("acme/calls", "1.0.0", "one", {"storage": grant}, frozenset({"storage"}))
    held = True
    with tempfile.TemporaryDirectory(prefix="llmasos-bench-") as name:
        root = Path(name)
        ensure_schema(f"sqlite:///{root / 'llmasos.db'}", root)
        with Database(f"sqlite:///{root / 'llmasos.db'}") as database:
            capabilities = [LogCapability(), StorageCapability(database), ConfigCapability()]
            async with small_host(database, *capabilities) as host:
                runtime = NativeRuntime(root / "environments", host.guest)
                program = await installed(root, runtime, SOURCE, MANIFEST, frozenset({"storage"}))
                async with host.invocations.open(Principal(), app, "calls", INVOCATION) as invocation:
                    await runtime.call(program, invocation, "put", "{}")
                    bare = Bare()
                    await bare.start()
                    heads = ("in process", "woken", "bare echo", "native app", "added", "to woken", "bound")
                    print(f"{'µs a call':<14}" + "".join(f"{head:>12}" for head in heads))
                    for kind in CALLS:
                        with awake():
                            rounds = [
                                (
                                    await in_process(host.guest, invocation, kind, count),
                                    *await woken(bare, host.guest, invocation, kind, count),
                                    await from_the_app(runtime, program, invocation, kind, count),
                                )
                                for _ in range(ROUNDS)
                            ]
                        loop, echo, after_wake, outside = (
                            statistics.median(each) * 1e6 for each in zip(*rounds, strict=True)
                        )
                        added = statistics.median(each[3] - each[0] for each in rounds) * 1e6
                        to_woken = statistics.median(each[3] - each[2] for each in rounds) * 1e6
                        held = held and added <= BOUND_US
                        figures = (loop, after_wake, echo, outside, added, to_woken, BOUND_US)
                        verdict = "" if added <= BOUND_US else "  PAST ITS BOUND"
                        print(f"{kind:<14}" + "".join(f"{figure:>12.0f}" for figure in figures) + verdict)
                    await bare.close()
                await runtime.close()
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
