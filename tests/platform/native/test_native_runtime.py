"""Native apps, built, installed into environments of their own, and run in confined runners."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from llmasos.authoring.native import build_native
from llmasos.bundles.manifest import parse_manifest
from llmasos.bundles.reader import code_digest
from llmasos.errors import (
    AppFailed,
    CannotConfine,
    Invalid,
    ResourceLimit,
    RunnerDied,
    TimedOut,
    Unavailable,
)
from llmasos.i18n import render
from llmasos.kernel.invocation import InstalledApp, Invocation, InvocationLimits, Principal
from llmasos.runtimes import native as native_module
from llmasos.runtimes.confinement import Confinement, confinement
from llmasos.runtimes.native import NativeRuntime
from llmasos.runtimes.runtime import Program
from llmasos_runner.protocol import FUEL_PER_CPU_SECOND

pytestmark = pytest.mark.skipif(not confinement().is_available, reason=str(confinement().missing))

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
requirements = [{requirements}]
"""
HEAD = "from llmasos_sdk import App, Context\napp = App()\n"
ACTIONS = (
    HEAD
    + '''
import os, sys, threading, time

counter = {"calls": 0}

@app.action
def shout(ctx: Context, text: str) -> str:
    """Shout a text."""
    counter["calls"] += 1
    print("shouting", text)
    return text.upper()

@app.action
def calls(ctx: Context) -> int:
    return counter["calls"]

@app.action
def count(ctx: Context, upto: int):
    for number in range(upto):
        yield str(number)

@app.action
def ask(ctx: Context, question: str) -> str:
    return ctx.model.generate(question).text

@app.action
def spin(ctx: Context) -> str:
    while True:
        try:
            while True:
                pass
        except Exception:
            pass

@app.action
def nap(ctx: Context, seconds: float) -> str:
    time.sleep(seconds)
    return "rested"

@app.action
def crash(ctx: Context) -> str:
    import ctypes
    return str(ctypes.string_at(0))

@app.action
def leave(ctx: Context) -> str:
    os._exit(3)

@app.action
def exit(ctx: Context) -> str:
    sys.exit("bye")

@app.action
def fail(ctx: Context) -> str:
    raise ValueError("the form is empty")

@app.action
def hoard(ctx: Context) -> int:
    return len(bytearray(1 << 30))

@app.action
def flood(ctx: Context) -> str:
    for _ in range(20000):
        print("x" * 100)
    os.write(1, b"y" * 1_000_000)
    return "flooded"

@app.action
def long(ctx: Context) -> str:
    return "x" * (2 << 20)

@app.action
def environment(ctx: Context) -> list[str]:
    return [*os.environ]

@app.action
def process(ctx: Context) -> str:
    import subprocess
    return subprocess.check_output(["/bin/true"]).decode()

@app.action
def pool(ctx: Context) -> str:
    import multiprocessing
    multiprocessing.Process(target=print).start()
    return "started"

@app.action
def temporary(ctx: Context) -> str:
    import tempfile
    return tempfile.NamedTemporaryFile().name

@app.action
def network(ctx: Context) -> str:
    import socket
    socket.create_connection(("127.0.0.1", 80))
    return "connected"

@app.action
def write(ctx: Context) -> str:
    open("/etc/motd", "w")
    return "written"

@app.action
def libraries(ctx: Context) -> list[str]:
    import asyncio, sqlite3, ssl, zoneinfo, datetime
    seen = [ssl.OPENSSL_VERSION.split()[0]]
    ssl.create_default_context
    database = sqlite3.connect(":memory:")
    database.execute("create table t (x)")
    database.execute("insert into t values (1)")
    seen.append(str(database.execute("select x from t").fetchone()))
    async def add(a, b):
        await asyncio.sleep(0.001)
        return a + b
    seen.append(str(asyncio.run(add(1, 2))))
    seen.append(str(datetime.datetime(2026, 7, 1, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin")).utcoffset()))
    results = []
    threads = [threading.Thread(target=results.append, args=(n,)) for n in range(4)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    seen.append(str(sorted(results)))
    return seen
'''
)


class Apps:
    """Apps that were built and installed once for all tests of this module."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._built: dict[tuple[str, tuple[str, ...]], tuple[str, Path]] = {}

    def built(self, source: str, requirements: tuple[str, ...]) -> tuple[str, Path]:
        """The digest of an app, and the folder with its wheel and lock."""
        key = source, requirements
        if key not in self._built:
            folder, code = Path(tempfile.mkdtemp(dir=self.root)), Path(tempfile.mkdtemp(dir=self.root))
            (folder / "app.py").write_text(source)
            listed = ", ".join(f'"{r}"' for r in requirements)
            built = build_native(folder, parse_manifest(MANIFEST.format(requirements=listed)))
            files = {built.wheel_name: built.wheel, "requirements.txt": built.lock.encode()}
            for name, content in files.items():
                (code / name).write_bytes(content)
            self._built[key] = code_digest(files), code
        return self._built[key]


class Host:
    """A runtime, and a handler of host calls that records them."""

    def __init__(self, apps: Apps) -> None:
        self.apps = apps
        self.environments = apps.root / "environments"
        self.calls: list[tuple[str, str, list]] = []
        self.runtime = NativeRuntime(self.environments, self.handler)

    async def handler(self, invocation: Invocation, capability: str, function: str, arguments: list):
        self.calls.append((capability, function, arguments))
        if capability == "config":
            return json.dumps({"values": {}, "locale": "en"})
        if capability == "model":
            return json.dumps({"model": "m", "choices": [{"message": {"content": f"to {invocation.id}"}}], "usage": {}})
        return None

    async def install(
        self, source: str, *requirements: str, installation: str = "one", capabilities=("model",)
    ) -> Program:
        digest, code = await asyncio.to_thread(self.apps.built, source, requirements)
        program = Program("python", digest, frozenset(capabilities), installation)
        await self.runtime.prepare(program, code)
        return program

    def invocation(self, wall_seconds: float = 20.0, memory_mib: int = 64) -> Invocation:
        app = InstalledApp("acme/native", "1.0.0", "one", {}, frozenset({"model"}))
        return Invocation(
            Principal(), app, "x", InvocationLimits(wall_seconds=wall_seconds, memory_bytes=memory_mib << 20)
        )

    async def run(self, program: Program, action: str, invocation: Invocation | None = None, **inputs):
        outcome = await self.runtime.call(program, invocation or self.invocation(), action, json.dumps(inputs))
        return json.loads(outcome.output_or_raise())


@pytest.fixture(scope="module")
def apps() -> Iterator[Apps]:
    root = Path(tempfile.mkdtemp(prefix="llmasos-native-"))
    yield Apps(root)
    _remove(root)


@pytest.fixture
async def host(apps: Apps) -> AsyncIterator[Host]:
    host = Host(apps)
    yield host
    await host.runtime.close()


def _remove(root: Path) -> None:
    for path in root.rglob("*"):
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o700)
    shutil.rmtree(root)


async def test_an_app_describes_itself_and_answers(host):
    program = await host.install(ACTIONS)
    described = json.loads(await host.runtime.describe(program))
    assert described[0]["name"] == "shout"
    result = await host.runtime.call(program, host.invocation(), "shout", '{"text": "hi"}')
    assert json.loads(result.output) == "HI"
    assert result.log == "shouting hi\n"
    assert await host.run(program, "calls") == 1
    assert "seccomp" in host.runtime.confinement("one")


async def test_calls_share_a_warm_runner_at_once_and_each_has_its_own_handler(host):
    program = await host.install(ACTIONS)
    invocations = [host.invocation() for _ in range(10)]
    answers = await asyncio.gather(*(host.run(program, "ask", each, question="who am I?") for each in invocations))
    assert answers == [f"to {each.id}" for each in invocations]
    began = time.monotonic()
    await asyncio.gather(*(host.run(program, "nap", seconds=0.5) for _ in range(8)))
    assert time.monotonic() - began < 2


async def test_a_stream_goes_out_piece_by_piece(host):
    program = await host.install(ACTIONS)
    assert await host.run(program, "count", upto=3) == "012"
    assert [arguments for _, function, arguments in host.calls if function == "chunk"] == [["0"], ["1"], ["2"]]


async def test_an_undeclared_capability_is_absent(host):
    program = await host.install(ACTIONS, capabilities=())
    with pytest.raises(AppFailed, match="does not declare it"):
        await host.run(program, "ask", question="?")
    assert not host.calls


async def test_what_an_app_needs_works_inside(host):
    program = await host.install(ACTIONS)
    assert await host.run(program, "libraries") == ["OpenSSL", "(1,)", "3", "2:00:00", "[0, 1, 2, 3]"]
    seen = await host.run(program, "environment")
    assert not [name for name in seen if name.startswith(("LLMASOS", "UV_", "PIP_", "PATH"))]


@pytest.mark.parametrize(
    ("action", "inputs", "error", "said"),
    [
        ("process", {}, Invalid, "An app cannot start processes: use threads"),
        ("pool", {}, Invalid, "An app cannot start processes"),
        ("temporary", {}, Invalid, "no files of its own: use ctx.storage"),
        ("network", {}, Invalid, "An app has no sockets: use ctx.http"),
        ("write", {}, Invalid, "no files of its own"),
        ("fail", {}, Invalid, "ValueError: the form is empty"),
        ("exit", {}, AppFailed, "The app ended itself instead of answering: SystemExit: bye"),
        ("hoard", {}, ResourceLimit, "more memory than it may use"),
        ("long", {}, ResourceLimit, "returned [0-9]+ bytes; the limit is"),
        ("nothing", {}, AppFailed, "there is no action"),
        ("shout", {"txt": "x"}, Invalid, "text"),
    ],
)
async def test_what_fails_by_design_says_what_to_use_instead(host, action, inputs, error, said):
    program = await host.install(ACTIONS)
    with pytest.raises(error, match=said):
        await host.run(program, action, **inputs)
    assert await host.run(program, "shout", text="still here") == "STILL HERE"


async def test_an_endless_loop_ends_at_its_deadline_and_the_runner_lives_on(host):
    """SECURITY C7."""
    program = await host.install(ACTIONS)
    await host.run(program, "shout", text="a")
    began = time.monotonic()
    with pytest.raises(TimedOut):
        await host.run(program, "spin", host.invocation(wall_seconds=1))
    assert time.monotonic() - began < 3
    assert await host.run(program, "calls") == 1


async def test_an_app_that_computes_too_long_is_ended_long_before_its_deadline(host):
    program = await host.install(ACTIONS)
    await host.run(program, "shout", text="a")
    limits = InvocationLimits(wall_seconds=30, fuel=FUEL_PER_CPU_SECOND // 2)
    app = host.invocation().app
    with pytest.raises(ResourceLimit, match=r"0\.5 s of cpu_seconds: raise cpu_seconds under \[limits\]"):
        await host.run(program, "spin", Invocation(Principal(), app, "spin", limits))
    waiting = Invocation(Principal(), app, "nap", limits)
    assert await host.run(program, "nap", waiting, seconds=0.7) == "rested"
    assert await host.run(program, "calls") == 1


async def test_a_call_is_answered_while_another_computes(host):
    program = await host.install(ACTIONS)
    await host.run(program, "shout", text="a")
    spinning = asyncio.create_task(host.run(program, "spin", host.invocation(wall_seconds=1)))
    await asyncio.sleep(0.1)
    assert await host.run(program, "shout", text="meanwhile") == "MEANWHILE"
    assert not spinning.done()
    with pytest.raises(TimedOut):
        await spinning


async def test_what_does_not_end_is_killed_with_its_runner(host):
    program = await host.install(ACTIONS)
    await host.run(program, "shout", text="a")
    with pytest.raises((TimedOut, RunnerDied)):
        await host.run(program, "nap", host.invocation(wall_seconds=0.5), seconds=60)
    assert await host.run(program, "calls") == 0


async def test_a_cancelled_call_is_interrupted(host):
    program = await host.install(ACTIONS)
    await host.run(program, "shout", text="a")
    task = asyncio.create_task(host.run(program, "spin"))
    await asyncio.sleep(0.3)
    task.cancel()
    began = time.monotonic()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert time.monotonic() - began < 2
    assert await host.run(program, "calls") == 1


@pytest.mark.parametrize("action", ["crash", "leave"])
async def test_a_crash_costs_that_runner_only(host, action):
    crashing, other = await host.install(ACTIONS), await host.install(ACTIONS, installation="two")
    waiting = asyncio.create_task(host.run(other, "nap", seconds=1))
    await asyncio.sleep(0.2)
    with pytest.raises(RunnerDied):
        await host.run(crashing, action)
    assert await waiting == "rested"
    assert await host.run(crashing, "shout", text="again") == "AGAIN"


async def test_a_flood_of_output_is_capped(host):
    program = await host.install(ACTIONS)
    result = await host.runtime.call(program, host.invocation(), "flood", "{}")
    assert json.loads(result.output) == "flooded"
    assert len(result.log) < 70_000


@pytest.mark.parametrize(
    ("source", "error", "said"),
    [
        ("import sys\nsys.exit(2)\n" + HEAD, AppFailed, "cannot be loaded: SystemExit"),
        ("raise RuntimeError('no')\n" + HEAD, AppFailed, "cannot be loaded: RuntimeError: no"),
        ("import nothing_of_that_name\n" + HEAD, AppFailed, "ModuleNotFoundError"),
        ("import os\nos._exit(4)\n" + HEAD, RunnerDied, "exit code 4"),
        ("import ctypes\nctypes.string_at(0)\n" + HEAD, RunnerDied, "SIGSEGV"),
    ],
)
async def test_an_import_that_ends_the_process_is_one_clear_error(host, source, error, said):
    program = await host.install(source)
    with pytest.raises(error, match=said):
        await host.run(program, "shout", text="x")


async def test_two_apps_run_side_by_side_with_two_versions_of_one_package(host):
    source = HEAD + "import importlib.metadata\n@app.action\ndef version(ctx: Context) -> str:\n    import iniconfig\n"
    source += "    return importlib.metadata.version('iniconfig') + iniconfig.__file__\n"
    old = await host.install(source, "iniconfig==2.0.0", installation="old")
    new = await host.install(source, "iniconfig==2.1.0", installation="new")
    answers = await asyncio.gather(host.run(old, "version"), host.run(new, "version"))
    assert answers[0].startswith("2.0.0/")
    assert answers[1].startswith("2.1.0/")


async def test_two_apps_run_side_by_side_on_pydantic_1_and_2(host):
    old = """
@app.action
def parse(ctx: Context, count: str) -> list[str]:
    import pydantic
    class Order(pydantic.BaseModel):
        count: int
        class Config:
            extra = "forbid"
    return [pydantic.VERSION, Order.parse_obj({"count": count}).json()]
"""
    new = """
@app.action
def parse(ctx: Context, count: str) -> list[str]:
    import pydantic
    class Order(pydantic.BaseModel):
        model_config = pydantic.ConfigDict(extra="forbid")
        count: int
    return [pydantic.VERSION, Order.model_validate({"count": count}).model_dump_json()]
"""
    first = await host.install(HEAD + old, "pydantic<2", installation="old")
    second = await host.install(HEAD + new, "pydantic>=2", installation="new")
    answers = await asyncio.gather(*(host.run(each, "parse", count="3") for each in (first, second) * 3))
    assert answers[0][0].startswith("1.10.")
    assert answers[1][0].startswith("2.")
    assert [answer[1] for answer in answers] == ['{"count": 3}', '{"count":3}'] * 3
    assert answers[0] == answers[2]


async def test_scientific_wheels_work_inside(host):
    source = (
        HEAD
        + """
@app.action
def compute(ctx: Context) -> list[str]:
    import jinja2, numpy, pydantic
    class Point(pydantic.BaseModel):
        x: int
    matrix = numpy.arange(250_000, dtype=float).reshape(500, 500)
    return [str((matrix @ matrix).shape), jinja2.Template("hi {{ n }}").render(n="you"), Point(x="3").model_dump_json()]
"""
    )
    program = await host.install(source, "numpy", "pydantic", "jinja2")
    answer = await host.run(program, "compute", host.invocation(wall_seconds=60))
    assert answer == ["(500, 500)", "hi you", '{"x":3}']


async def test_an_idle_runner_ends_and_the_next_call_starts_another(host):
    host.runtime = NativeRuntime(host.environments, host.handler, idle_seconds=0.3)
    program = await host.install(ACTIONS)
    await host.run(program, "shout", text="a")
    await asyncio.sleep(1)
    assert host.runtime.confinement("one") == ()
    assert await host.run(program, "calls") == 0


async def test_an_upgrade_ends_the_runner_of_the_release_before(host):
    before = await host.install(ACTIONS)
    await host.run(before, "shout", text="a")
    slow = asyncio.create_task(host.run(before, "nap", seconds=0.5))
    await asyncio.sleep(0.1)
    old = next(iter(host.runtime._slots.occupied)).runner
    after = await host.install(ACTIONS + "\n# the next release\n")
    assert await host.run(after, "calls") == 0
    assert await slow == "rested", "what ran is not cut off"
    assert not old.is_alive
    assert [key[1] for key, _ in host.runtime._slots.runners] == [after.digest]


async def test_an_uninstall_ends_the_runner_at_once_or_after_its_last_call(host):
    program = await host.install(ACTIONS)
    await host.run(program, "shout", text="a")
    runner = next(iter(host.runtime._slots.occupied)).runner
    slow = asyncio.create_task(host.run(program, "nap", seconds=0.5))
    await asyncio.sleep(0.1)
    await host.runtime.retire("another")
    await host.runtime.retire("one")
    assert host.runtime.confinement("one") == ()
    assert runner.is_alive, "what runs is not cut off"
    assert await slow == "rested"
    assert not runner.is_alive
    await host.runtime._slots.ended()
    assert runner.process.child.returncode is not None
    await host.run(program, "shout", text="a")
    await host.runtime.retire("one")
    assert host.runtime._slots.occupied == []


async def test_a_runner_ends_soon_after_another_process_uninstalled_its_app(host):
    there = {"one", "two"}
    host.runtime = NativeRuntime(host.environments, host.handler, installed=lambda asked: asked & there)
    program = await host.install(ACTIONS)
    other = Program("python", program.digest, program.capabilities, "two")
    await asyncio.gather(host.run(program, "shout", text="a"), host.run(other, "shout", text="a"))
    runner = dict(host.runtime._slots.runners)["one", program.digest, 64 << 20]
    there.remove("one")
    async with asyncio.timeout(5):
        while runner.process.child.returncode is None:  # noqa: ASYNC110 - the process sets no event
            await asyncio.sleep(0.05)
    assert host.runtime.confinement("one") == ()
    assert host.runtime.confinement("two")


HOSTILE = (
    HEAD
    + """
import threading, time

def burn():
    while True:
        pass

def take_the_watch_apart():
    import sys
    native = sys.modules["llmasos_runner.native"]
    native._hold_to_its_compute = lambda thread, run: None
    native._interrupt = lambda thread, error: None
    native.NativeRunner.watch = lambda self: None

@app.action
def many(ctx: Context) -> str:
    take_the_watch_apart()
    for _ in range(4):
        threading.Thread(target=burn, daemon=True).start()
    time.sleep(60)
    return "never"

@app.action
def leave_behind(ctx: Context) -> str:
    threading.Thread(target=burn, daemon=True).start()
    return "innocent"

@app.action
def lie(ctx: Context) -> str:
    began = time.thread_time()
    while time.thread_time() - began < 0.3:
        pass
    time.thread_time = lambda: began
    return "it cost nothing"

@app.action
def rest(ctx: Context, seconds: float) -> str:
    time.sleep(seconds)
    return "rested"
"""
)


async def test_compute_in_threads_that_evades_the_runners_watch_is_ended_by_the_host(host):
    program = await host.install(HOSTILE)
    await host.run(program, "rest", seconds=0)
    limits = InvocationLimits(wall_seconds=30, fuel=FUEL_PER_CPU_SECOND // 2)
    many = Invocation(Principal(), host.invocation().app, "many", limits)
    outcome = await host.runtime.call(program, many, "many", "{}")
    assert isinstance(outcome.error, ResourceLimit)
    assert re.search(r"longer than the 0\.5 s of cpu_seconds, .*raise cpu_seconds", outcome.error.message)
    assert "cpu_seconds" in render(outcome.error.message, "zh")
    assert outcome.fuel == limits.fuel, "what was computed is charged, though the runner told nothing"
    assert await host.run(program, "rest", seconds=0) == "rested"


async def test_an_app_that_was_uninstalled_meanwhile_is_held_to_its_compute_too(host):
    program = await host.install(HOSTILE)
    await host.run(program, "rest", seconds=0)
    limits = InvocationLimits(wall_seconds=30, fuel=FUEL_PER_CPU_SECOND // 2)
    app = host.invocation().app
    resting = asyncio.create_task(host.run(program, "rest", Invocation(Principal(), app, "rest", limits), seconds=20))
    burning = asyncio.create_task(host.run(program, "many", Invocation(Principal(), app, "many", limits)))
    await asyncio.sleep(0.2)
    await host.runtime.retire("one")
    for task in (resting, burning):
        with pytest.raises(ResourceLimit, match=r"the 1 s of cpu_seconds that its running calls have together"):
            await task


async def test_an_app_that_computes_without_a_call_is_ended_too(host):
    program = await host.install(HOSTILE)
    assert await host.run(program, "leave_behind") == "innocent"
    runner = next(iter(host.runtime._slots.occupied)).runner
    async with asyncio.timeout(15):
        await runner.process.child.wait()
    assert await host.run(program, "rest", seconds=0) == "rested"


async def test_a_runner_that_lies_about_its_compute_is_charged_all_the_same(host):
    """SECURITY C7."""
    program = await host.install(HOSTILE)
    result = await host.runtime.call(program, host.invocation(), "lie", "{}")
    assert result.fuel >= 0.3 * FUEL_PER_CPU_SECOND


async def test_waiting_costs_no_compute_worth_ending_an_app_for(host):
    program = await host.install(ACTIONS)
    await host.run(program, "shout", text="a")
    app, limits = host.invocation().app, InvocationLimits(wall_seconds=30, fuel=FUEL_PER_CPU_SECOND // 100)
    waiting = [Invocation(Principal(), app, "nap", limits) for _ in range(8)]
    assert await asyncio.gather(*(host.run(program, "nap", each, seconds=3) for each in waiting)) == ["rested"] * 8


async def test_past_the_most_the_runner_that_rested_longest_ends(host):
    host.runtime = NativeRuntime(host.environments, host.handler, most_runners=2)
    program = await host.install(ACTIONS)
    for name in ("a", "b", "c"):
        await host.run(Program("python", program.digest, program.capabilities, name), "shout", text="x")
    assert host.runtime.confinement("a") == ()
    assert host.runtime.confinement("c")


async def test_where_bubblewrap_is_asked_for_and_missing_no_native_app_starts_not_even_a_trusted_one(host, monkeypatch):
    program = await host.install(ACTIONS)
    monkeypatch.setenv("PATH", str(host.environments))
    host.runtime = NativeRuntime(host.environments, host.handler, trusted=frozenset({"acme/native"}), bubblewrap=True)
    with pytest.raises(CannotConfine, match=r"`bwrap` is not found.*Install bubblewrap"):
        await host.run(program, "shout", text="x")
    assert host.runtime.confinement("one") == ()


async def test_where_the_system_cannot_confine_a_native_app_is_refused_unless_trusted(host, monkeypatch):
    """SECURITY C4."""
    monkeypatch.setattr(native_module, "confinement", lambda **_: Confinement((), "Landlock ABI 0; 2 is needed"))
    program = await host.install(ACTIONS)
    with pytest.raises(Unavailable, match=r"cannot confine it: Landlock ABI 0.*WASM build.*trusted_apps"):
        await host.run(program, "shout", text="x")
    await host.runtime.close()
    host.runtime = NativeRuntime(host.environments, host.handler, trusted=frozenset({"acme/native"}))
    assert await host.run(program, "shout", text="x") == "X"
    assert host.runtime.confinement("one") == ()


async def test_one_crash_with_many_calls_in_flight_does_not_keep_the_app_from_starting(host):
    """10-8: a native crash with five calls in flight opened the breaker for 15 s."""
    program = await host.install(ACTIONS)
    await host.run(program, "shout", text="a")
    resting = [asyncio.create_task(host.run(program, "nap", seconds=30)) for _ in range(6)]
    await asyncio.sleep(0.3)
    with pytest.raises(RunnerDied):
        await host.run(program, "leave")
    ends = await asyncio.gather(*resting, return_exceptions=True)
    assert {type(end) for end in ends} == {RunnerDied}
    assert await host.run(program, "shout", text="again") == "AGAIN"


CLINGING = (
    HEAD
    + """
import os, subprocess, sys, time

@app.action
def daemon(ctx: Context) -> int:
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(120)"], start_new_session=True).pid

@app.action
def cling(ctx: Context) -> int:
    # When its connection closes, this process ends by os._exit.
    os._exit = lambda code: time.sleep(120)
    return os.getpid()
"""
)


async def test_a_child_that_holds_the_output_of_a_trusted_app_does_not_hold_up_the_end(host, monkeypatch):
    """10-17: the end of a runner waited until every holder of its output had closed it."""
    monkeypatch.setattr(native_module, "confinement", lambda **_: Confinement((), "nothing"))
    host.runtime = NativeRuntime(host.environments, host.handler, trusted=frozenset({"acme/native"}))
    program = await host.install(CLINGING)
    child = await host.run(program, "daemon")
    try:
        async with asyncio.timeout(10):
            await host.runtime.close()
        os.kill(child, 0)  # it still runs, and still holds the output
    finally:
        os.kill(child, signal.SIGKILL)


async def test_an_app_that_refuses_to_end_is_ended(host):
    """11-S3."""
    program = await host.install(CLINGING)
    runner = await host.run(program, "cling")
    async with asyncio.timeout(10):
        await host.runtime.close()
    with pytest.raises(ProcessLookupError):
        os.kill(runner, 0)


def is_running(pid: int) -> bool:
    """Whether a process is there, and is no zombie."""
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.parametrize("trusted", [False, True])
async def test_a_runner_dies_with_a_host_that_is_killed(host, trusted):
    """11-S3: an app that kept its process from ending outlived the host. SECURITY C6."""
    program = await host.install(CLINGING)
    script = f"""
import asyncio, json
from pathlib import Path
from llmasos.kernel.invocation import InstalledApp, Invocation, Principal
from llmasos.runtimes import native
from llmasos.runtimes.confinement import Confinement
from llmasos.runtimes.runtime import Program

async def main():
    if {trusted}:
        native.confinement = lambda **_: Confinement((), "nothing")
    trusted = frozenset({{"acme/native"}})
    runtime = native.NativeRuntime(Path({str(host.environments)!r}), lambda *_: None, trusted=trusted)
    program = Program("python", {program.digest!r}, frozenset(), "one")
    invocation = Invocation(Principal(), InstalledApp("acme/native", "1.0.0", "one", {{}}, frozenset()), "cling")
    print((await runtime.call(program, invocation, "cling", "{{}}")).output, flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", script, stdout=asyncio.subprocess.PIPE)
    runner = int(await child.stdout.readline())
    child.kill()
    await child.wait()
    async with asyncio.timeout(5):
        while is_running(runner):  # noqa: ASYNC110 -- a process of another sets no event
            await asyncio.sleep(0.02)
