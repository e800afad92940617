"""Native apps for tests, and a runtime that runs them."""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
from pathlib import Path

from llmasos.authoring.native import build_native
from llmasos.bundles.manifest import parse_manifest
from llmasos.bundles.reader import code_digest
from llmasos.kernel.invocation import InstalledApp, Invocation, InvocationLimits, Principal
from llmasos.runtimes.native import NativeRuntime
from llmasos.runtimes.runtime import Program

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


def remove(root: Path) -> None:
    for path in root.rglob("*"):
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o700)
    shutil.rmtree(root)
