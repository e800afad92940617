"""What a host call of a native app costs: `python tests/benchmarks/bench_native.py [calls]`.

The same calls (`log.write`, which only passes the kernel, and `storage.get`, which reads the database; neither meets
the ledger) are made by a native app in its confined runner, through its socket, and by code in the host's process at
`Kernel.syscall`. Rounds of both alternate in one run, so that a busy machine slows both. The bound is issue 3's: a
call from a native app within 100 µs of the same from in-process code.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

from llmasos.authoring.native import build_native
from llmasos.bundles.manifest import StoragePermission, Text, parse_manifest
from llmasos.bundles.reader import code_digest
from llmasos.capabilities.baseline import ConfigCapability, LogCapability
from llmasos.capabilities.storage import StorageCapability
from llmasos.db import Database
from llmasos.kernel.invocation import InstalledApp, Invocation, Principal, RunLimits
from llmasos.kernel.syscall import Kernel
from llmasos.quotas.ledger import Ledger
from llmasos.runtimes.confinement import confinement
from llmasos.runtimes.native import NativeRuntime
from llmasos.runtimes.runtime import Program
from llmasos.schema import ensure_schema

# The app times itself: what is compared is a call as the app feels it. A first call of each is not counted.
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
INVOCATION = RunLimits(wall_seconds=600, log_bytes=1 << 30)


async def installed(root: Path, kernel: Kernel) -> tuple[NativeRuntime, Program]:
    """The app in its environment."""
    (root / "project").mkdir()
    (root / "project" / "app.py").write_text(SOURCE)
    built = build_native(root / "project", parse_manifest(MANIFEST))
    files = {built.wheel_name: built.wheel, "requirements.txt": built.lock.encode()}
    (root / "code").mkdir()
    for name, content in files.items():
        (root / "code" / name).write_bytes(content)
    runtime = NativeRuntime(root / "environments", kernel.syscall)
    program = Program("python", code_digest(files), frozenset({"storage"}), "one")
    await runtime.prepare(program, root / "code")
    return runtime, program


async def in_process(kernel: Kernel, invocation: Invocation, kind: str, count: int) -> float:
    """Seconds a call of code in the host's process."""
    capability, function, arguments = CALLS[kind]
    began = time.perf_counter()
    for _ in range(count):
        await kernel.syscall(invocation, capability, function, [*arguments])
    return (time.perf_counter() - began) / count


async def from_the_app(
    runtime: NativeRuntime, program: Program, invocation: Invocation, kind: str, count: int
) -> float:
    """Seconds a call of the app, by its own clock."""
    told = await runtime.call(program, invocation, "calls", json.dumps({"kind": kind, "count": count}))
    return float(json.loads(told.output))


async def main() -> int:
    """Measure, print, judge."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    print("walls:", ", ".join(confinement().walls) or confinement().missing)
    grant = StoragePermission(capability="storage", reason=Text(en="bench"))
    app = InstalledApp("acme/calls", "1.0.0", "one", {"storage": grant}, frozenset({"storage"}))
    held = True
    with tempfile.TemporaryDirectory(prefix="llmasos-bench-") as name:
        root = Path(name)
        ensure_schema(f"sqlite:///{root / 'llmasos.db'}", root)
        with Database(f"sqlite:///{root / 'llmasos.db'}") as database:
            capabilities = [LogCapability(), StorageCapability(database), ConfigCapability()]
            async with Kernel(database, Ledger(database), capabilities) as kernel:
                runtime, program = await installed(root, kernel)
                async with kernel.invocation(Principal(), app, "calls", INVOCATION) as invocation:
                    await runtime.call(program, invocation, "put", "{}")
                    print(f"{'call':<14}{'in process µs':>15}{'native app µs':>15}{'added µs':>10}{'bound':>8}")
                    for kind in CALLS:
                        pairs = [
                            (
                                await in_process(kernel, invocation, kind, count),
                                await from_the_app(runtime, program, invocation, kind, count),
                            )
                            for _ in range(ROUNDS)
                        ]
                        inside, outside = (statistics.median(each) * 1e6 for each in zip(*pairs, strict=True))
                        added = statistics.median(there - here for here, there in pairs) * 1e6
                        held = held and added <= BOUND_US
                        verdict = "" if added <= BOUND_US else "  PAST ITS BOUND"
                        print(f"{kind:<14}{inside:>15.0f}{outside:>15.0f}{added:>10.0f}{BOUND_US:>8}{verdict}")
                await runtime.close()
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
