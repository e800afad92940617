"""Apps of both kinds behind bubblewrap, for the user who starts this: prints what was seen, as JSON.

python bubblewrapped.py <a folder to write in> <a component that answers> <a component that never does>
"""

import asyncio
import hashlib
import json
import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

from llmasos.authoring.native import build_native
from llmasos.bundles.manifest import parse_manifest
from llmasos.bundles.reader import code_digest
from llmasos.errors import LlmasosError
from llmasos.kernel.invocation import InstalledApp, Invocation, InvocationLimits, Principal
from llmasos.runtimes.component import ComponentRuntime
from llmasos.runtimes.compute import process_clock
from llmasos.runtimes.confinement import confinement
from llmasos.runtimes.native import NativeRuntime
from llmasos.runtimes.pool import held_bytes
from llmasos.runtimes.runtime import Program, RuntimeContext
from llmasos.settings import Settings
from llmasos_runner.protocol import FUEL_PER_CPU_SECOND

MANIFEST = """
schema = 1
id = "acme/native"
version = "1.0.0"
license = "Apache-2.0"
name.en = "Native"
summary.en = "A native app."
[runtime]
kind = "python"
source = "app.py"
"""
APP = '''
import ctypes, os, threading
from llmasos_sdk import App, Context
app = App()

@app.action
def shout(ctx: Context, text: str) -> str:
    """Shout a text."""
    return text.upper()

@app.action
def outside(ctx: Context) -> list[str]:
    return [path for path in ("/etc/passwd", "/proc/1/environ", "/var", "/bin/sh") if os.path.exists(path)]

@app.action
def leave(ctx: Context) -> str:
    os._exit(3)

@app.action
def crash(ctx: Context) -> str:
    return str(ctypes.string_at(0))

@app.action
def burn(ctx: Context) -> str:
    def spin():
        while True:
            pass
    threading.Thread(target=spin, daemon=True).start()
    threading.Event().wait(60)
    return "never"
'''


async def no_host(*_call):
    raise AssertionError("nothing calls the host here")


def children(pid: int) -> list[int]:
    with suppress(OSError):
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def line(pid: int) -> list[int]:
    return [pid, *(below for child in children(pid) for below in line(child))]


def name(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return ""


def is_alive(pid: int) -> bool:
    # The system's first process reaps one whose parent was killed, sooner or later.
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


async def left_of(pids: list[int]) -> list[int]:
    """The processes that still run after a short wait."""
    until = time.monotonic() + 2
    while (alive := [pid for pid in pids if is_alive(pid)]) and time.monotonic() < until:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    return alive


def invocation(fuel: int = 60 * FUEL_PER_CPU_SECOND) -> Invocation:
    app = InstalledApp("acme/native", "1.0.0", "one", {}, frozenset())
    return Invocation(Principal(), app, "x", InvocationLimits(wall_seconds=30, memory_bytes=64 << 20, fuel=fuel))


async def said(call) -> str:
    outcome = await call
    if isinstance(outcome.error, LlmasosError):
        return f"{type(outcome.error).__name__}: {outcome.error.message}"
    return outcome.output_or_raise()


async def busy_runner(runtime: ComponentRuntime):
    """The one runner, once it runs something."""
    while True:
        for runner in runtime._pool.pids.values():
            if runner.load:
                await asyncio.sleep(0.1)
                return runner
        await asyncio.sleep(0.02)


def measured(runner) -> dict:
    """The host's measurements of a runner, and of the `bwrap` around it."""
    status = Path(f"/proc/{runner.process.pid}/status").read_text()
    return {
        "confinement": runner.confinement,
        "names": [name(pid) for pid in line(runner.process.child.pid)],
        "last": line(runner.process.child.pid)[-1] == runner.process.pid,
        "namespace_pids": len(next(row for row in status.splitlines() if row.startswith("NSpid")).split()) - 1,
        "held": [held_bytes([pid]) for pid in (runner.process.pid, runner.process.child.pid)],
        "computed": [process_clock(pid)() for pid in (runner.process.pid, runner.process.child.pid)],
        "loses_first": Path(f"/proc/{runner.process.pid}/oom_score_adj").read_text().strip(),
    }


async def compiled_by(compiling: asyncio.Task) -> list[str]:
    """The last name of each process that this one started during the compilation: before `exec` it has this one's."""
    seen: dict[int, str] = {}
    while not compiling.done():
        seen |= {pid: known for pid in children(os.getpid()) if (known := name(pid))}
        await asyncio.sleep(0.002)
    await compiling
    return sorted(set(seen.values()))


async def components(home: Path, answers: Path, hangs: Path) -> dict:
    runtime = ComponentRuntime(Settings(home=home, bubblewrap="on", runners=1), no_host)
    echo, spin = (
        Program("wasm", hashlib.sha256(path.read_bytes()).hexdigest(), frozenset(), "tested")
        for path in (answers, hangs)
    )
    seen = {"compiled_by": await compiled_by(asyncio.create_task(runtime.prepare(echo, answers)))}
    await runtime.prepare(spin, hangs)
    seen["answer"] = await said(runtime.call(echo, invocation(), "x", '"hello"'))
    (runner,) = runtime._pool.pids.values()
    seen["runner"] = measured(runner)
    for target in ("runner", "bwrap"):
        call = asyncio.create_task(said(runtime.call(spin, invocation(), "x", "")))
        runner = await busy_runner(runtime)
        pids = line(runner.process.child.pid)
        os.kill(runner.process.pid if target == "runner" else runner.process.child.pid, signal.SIGKILL)
        seen[f"killed {target}"] = [len(pids), await call, await left_of(pids)]
    seen["afterwards"] = await said(runtime.call(echo, invocation(), "x", '"again"'))
    (runner,) = runtime._pool.pids.values()
    pids = line(runner.process.child.pid)
    await runtime.close()
    seen["closed"] = [len(pids), await left_of(pids)]
    return seen


async def native(home: Path) -> dict:
    source, code = home / "source", home / "code"
    source.mkdir(parents=True)
    code.mkdir()
    (source / "app.py").write_text(APP)
    built = build_native(source, parse_manifest(MANIFEST))
    files = {built.wheel_name: built.wheel, "requirements.txt": built.lock.encode()}
    for each, content in files.items():
        (code / each).write_bytes(content)
    runtime = NativeRuntime.from_context(RuntimeContext(Settings(home=home, bubblewrap="on"), no_host))
    program = Program("python", code_digest(files), frozenset(), "one")
    await runtime.prepare(program, code)
    seen = {"answer": await said(runtime.call(program, invocation(), "shout", '{"text": "hello"}'))}
    (slot,) = runtime._slots.occupied
    seen["runner"] = measured(slot.runner)
    seen["outside"] = await said(runtime.call(program, invocation(), "outside", "{}"))
    for action in ("leave", "crash"):
        seen[action] = await said(runtime.call(program, invocation(), action, "{}"))
    seen["burn"] = await said(runtime.call(program, invocation(FUEL_PER_CPU_SECOND // 2), "burn", "{}"))
    await runtime.close()
    return seen


async def main() -> None:
    folder, answers, hangs = (Path(argument) for argument in sys.argv[1:4])
    seen = {
        "trial": confinement(bubblewrap=True).mechanisms,
        "components": await components(folder / "components", answers, hangs),
        "native": await native(folder / "native"),
    }
    print(json.dumps(seen))


asyncio.run(main())
