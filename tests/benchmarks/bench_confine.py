"""The cost of confinement and of native runners: `python tests/benchmarks/bench_confine.py`.

Prints one table of figures and their bounds; exits with 1 if one exceeds its bound. Ratios are measured within one
run, both sides alternately, so that load slows both.
"""

from __future__ import annotations

import asyncio
import shutil
import socket
import statistics
import struct
import sys
import tempfile
import time
from pathlib import Path

from awake import awake

from llmasos.authoring.native import build_native
from llmasos.bundles.manifest import parse_manifest
from llmasos.bundles.reader import code_digest
from llmasos.kernel.invocation import Invocation, InvocationLimits, Principal
from llmasos.runtimes import native
from llmasos.runtimes.building import base_python
from llmasos.runtimes.confinement import confinement
from llmasos.runtimes.native import NativeRuntime
from llmasos.runtimes.runner import Runner
from llmasos.runtimes.runtime import Program

SOURCE = """
from llmasos_sdk import App, Context

app = App()


@app.action
def echo(ctx: Context, text: str) -> str:
    return text
"""
MANIFEST = """
schema = 1
id = "acme/echo"
version = "1.0.0"
license = "Apache-2.0"
name.en = "Echo"
summary.en = "Answers what it was asked."
[runtime]
kind = "python"
source = "app.py"
"""
STARTS, PAIRS, CALLS, RUNNERS = 20, 7, 500, 50

ECHO = """
import socket, sys
connection = socket.socket(fileno=int(sys.argv[1]))
stream = connection.makefile("rb")
while header := stream.read(4):
    connection.sendall(header + stream.read(int.from_bytes(header, "big")))
"""


async def no_host(_invocation: Invocation, _capability: str, _function: str, _arguments: list) -> None:
    """Refuse every host call: the app makes none."""


async def installed(
    root: Path, runtime: NativeRuntime, source: str, manifest: str, capabilities: frozenset[str] = frozenset()
) -> Program:
    """An app in its environment."""
    (root / "project").mkdir()
    (root / "project" / "app.py").write_text(source)
    built = build_native(root / "project", parse_manifest(manifest))
    files = {built.wheel_name: built.wheel, "requirements.txt": built.lock.encode()}
    (root / "code").mkdir()
    for name, content in files.items():
        (root / "code" / name).write_bytes(content)
    program = Program("python", code_digest(files), capabilities, "one")
    await runtime.prepare(program, root / "code")
    return program


def message(program: Program, number: int) -> dict:
    """One call of the app."""
    return native._call(str(number), program, "echo", '{"text": "hi"}', InvocationLimits(wall_seconds=60))


async def first_answer(runtime: NativeRuntime, program: Program, *, confined: bool) -> float:
    """Seconds from the start of a runner to its first answer."""
    environment = runtime._environments.find(program.digest)
    profile = await runtime._profile("acme/echo", program, environment, 64 << 20) if confined else {}
    began = time.perf_counter()
    script = environment.runner / "llmasos_runner" / "main.py"
    runner = await Runner.start(native._start(environment, profile), script=script)
    await runner.call(message(program, 1), native._no_host)
    seconds = time.perf_counter() - began
    await runner.close()
    return seconds


class Echoes(asyncio.Protocol):
    """The host's end of the bare echo: frames out, frames back."""

    def __init__(self) -> None:
        self.buffer = bytearray()
        self.answer: asyncio.Future[bytes] | None = None

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        if len(self.buffer) >= 4:
            length = struct.unpack_from(">I", self.buffer)[0]
            if len(self.buffer) >= 4 + length:
                body = bytes(self.buffer[4 : 4 + length])
                del self.buffer[: 4 + length]
                self.answer.set_result(body)


async def warm_calls(runtime: NativeRuntime, program: Program) -> tuple[float, float]:
    """Median seconds of a bare echo of the same bytes, and of a call of the app, in turn."""
    ours, theirs = socket.socketpair()
    child = await asyncio.create_subprocess_exec(
        base_python(), "-I", "-S", "-c", ECHO, str(theirs.fileno()), pass_fds=[theirs.fileno()]
    )
    theirs.close()
    loop = asyncio.get_running_loop()
    transport, echoes = await loop.create_connection(Echoes, sock=ours)
    environment = runtime._environments.find(program.digest)
    profile = await runtime._profile("acme/echo", program, environment, 64 << 20)
    script = environment.runner / "llmasos_runner" / "main.py"
    runner = await Runner.start(native._start(environment, profile), script=script)
    bare, calls = [], []
    for number in range(CALLS):
        frame = b"x" * 330  # as long as the call's own frame
        began = time.perf_counter()
        echoes.answer = loop.create_future()
        transport.write(struct.pack(">I", len(frame)) + frame)
        await echoes.answer
        bare.append(time.perf_counter() - began)
        asked = message(program, number)
        began = time.perf_counter()
        await runner.call(asked, native._no_host)
        calls.append(time.perf_counter() - began)
    transport.close()
    await child.wait()
    await runner.close()
    return statistics.median(bare[100:]), statistics.median(calls[100:])


async def pairs_of_warm_calls(runtime: NativeRuntime, program: Program) -> tuple[float, float, list[float]]:
    """The medians in seconds and the ratio of each pair of an echo and a runner, in ascending order.

    A process stays on the processors that it woke on, good or bad, for its lifetime, so one pair says little.
    """
    pairs = [await warm_calls(runtime, program) for _ in range(PAIRS)]
    bare, calls = (statistics.median(column) for column in zip(*pairs, strict=True))
    return bare, calls, sorted(call / echo for echo, call in pairs)


def memory_of(pid: int) -> tuple[float, float]:
    """MiB resident, and MiB of its own share (PSS)."""
    rollup = dict(
        line.split(":") for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:] if ":" in line
    )
    return int(rollup["Rss"].split()[0]) / 1024, int(rollup["Pss"].split()[0]) / 1024


async def many(runtime: NativeRuntime, program: Program) -> tuple[float, list[tuple[float, float]]]:
    """Seconds until RUNNERS runners have all answered, and the memory of each."""

    async def one(number: int) -> None:
        other = Program("python", program.digest, program.capabilities, f"installation-{number}")
        limits = InvocationLimits(wall_seconds=120)
        await runtime.call(other, Invocation(Principal(), None, "echo", limits), "echo", '{"text": "hi"}')

    began = time.perf_counter()
    await asyncio.gather(*(one(number) for number in range(RUNNERS)))
    seconds = time.perf_counter() - began
    runners = [runner for _, runner in runtime._slots.runners]
    assert len(runners) == RUNNERS
    return seconds, [memory_of(runner.process.pid) for runner in runners]


async def main() -> int:
    """Measure, print, and compare with the bounds."""
    print("confinement:", ", ".join(confinement().mechanisms) or confinement().missing)
    root = Path(tempfile.mkdtemp(prefix="llmasos-bench-"))
    try:
        runtime = NativeRuntime(root / "environments", no_host, most_runners=RUNNERS)
        program = await installed(root, runtime, SOURCE, MANIFEST)
        starts: dict[bool, list[float]] = {True: [], False: []}
        for _ in range(STARTS):
            for confined in (False, True):
                starts[confined].append(await first_answer(runtime, program, confined=confined))
        plain, confined_start = (statistics.median(starts[confined]) for confined in (False, True))
        *_, slept = await pairs_of_warm_calls(runtime, program)
        with awake():
            bare, call, ratios = await pairs_of_warm_calls(runtime, program)
        seconds, memory = await many(runtime, program)
        await runtime.close()
    finally:
        shutil.rmtree(root, ignore_errors=True)
    resident = max(each[0] for each in memory)
    rows = [
        ("start to first answer, unconfined", f"{plain * 1e3:.1f} ms", "", True),
        ("start to first answer, confined", f"{confined_start * 1e3:.1f} ms", "", True),
        ("  ratio", f"{confined_start / plain:.2f}", "1.30", confined_start / plain <= 1.3),
        ("bare echo of a frame", f"{bare * 1e6:.0f} µs", "", True),
        ("warm call of a native app", f"{call * 1e6:.0f} µs", "", True),
        (
            f"  ratio, of {PAIRS} pairs the median",
            f"{statistics.median(ratios):.2f}",
            "3.00",
            statistics.median(ratios) <= 3,
        ),
        ("    from the least to the most", f"{ratios[0]:.2f} - {ratios[-1]:.2f}", "", True),
        ("  ratio where idle processors halt", f"{statistics.median(slept):.2f}", "", True),
        ("    from the least to the most", f"{slept[0]:.2f} - {slept[-1]:.2f}", "", True),
        ("idle runner, resident", f"{resident:.1f} MiB", "20", resident < 20),
        (f"{RUNNERS} warm runners, all together", f"{sum(each[1] for each in memory):.0f} MiB", "", True),
        (f"{RUNNERS} runners started and answered", f"{seconds:.1f} s", "", True),
    ]
    for what, figure, bound, held in rows:
        print(f"{what:<40}{figure:>12}{('  bound ' + bound) if bound else '':<14}{'' if held else '  PAST ITS BOUND'}")
    return 0 if all(held for *_, held in rows) else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
