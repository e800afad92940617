"""Real components for the tests of runners: one of Python's, built once a session, and small ones from WAT."""

import asyncio
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import llmasos_sdk
from llmasos.kernel.invocation import Invocation, InvocationLimits, Principal
from llmasos.runtimes.component import ComponentRuntime
from llmasos.runtimes.runtime import Program
from llmasos.settings import Settings

HERE = Path(__file__).parent
WIT = Path(llmasos_sdk.__file__).parent / "wit" / "llmasos.wit"
WORLD = """
world tested {
  import output; import log; import config; import model; import storage;
  export handler;
}
"""
CAPABILITIES = frozenset({"model", "storage"})


@pytest.fixture(scope="session")
def python_component(stock) -> Path:
    """The guest of `guest_app.py`."""
    source = HERE / "guest_app.py"
    folder = stock.folder(source.read_bytes(), WIT.read_bytes(), WORLD.encode())
    built = folder / "guest.wasm"
    if not built.exists():
        with tempfile.TemporaryDirectory() as name:
            work = Path(name)
            (work / "wit").mkdir()
            (work / "wit" / "llmasos.wit").write_text(WIT.read_text() + WORLD)
            shutil.copy(source, work / "guest_app.py")
            componentize = Path(sys.executable).with_name("componentize-py")
            command = [componentize, "-d", "wit", "-w", "tested", "componentize", "guest_app", "-o", "guest.wasm"]
            subprocess.run(command, cwd=work, check=True, capture_output=True)
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(work / "guest.wasm", folder / f".{os.getpid()}")
            (folder / f".{os.getpid()}").replace(built)
    return built


@pytest.fixture(scope="session")
def compiled_home(python_component: Path) -> Path:
    """A home with the compiled Python guest, kept beside the guest."""
    home = python_component.parent / "home"

    async def prepare() -> None:
        runtime = ComponentRuntime(Settings(home=home), no_host)
        await runtime.prepare(program_of(python_component), python_component)
        await runtime.close()

    asyncio.run(prepare())
    return home


async def no_host(*_call):
    raise AssertionError("nothing calls the host here")


def program_of(component: Path, capabilities=CAPABILITIES, installation="tested") -> Program:
    digest = hashlib.sha256(component.read_bytes()).hexdigest()
    return Program("wasm", digest, frozenset(capabilities), installation)


def invocation(**limits) -> Invocation:
    return Invocation(Principal(), None, "tested", limits=InvocationLimits(**limits))


class Host:
    """A runtime, and a handler of host calls whose answers a test writes."""

    def __init__(self, home: Path, component: Path, **settings) -> None:
        self.calls: list[tuple[str, str, list]] = []
        self.answers: dict[str, object] = {}
        self.runtime = ComponentRuntime(Settings(home=home, **settings), self._handle)
        self.program = program_of(component)

    async def _handle(self, _invocation, capability, function, arguments):
        self.calls.append((capability, function, arguments))
        answer = self.answers.get(f"{capability}.{function}")
        return await answer(*arguments) if callable(answer) else answer

    async def called(self, times: int) -> None:
        """Wait until the host was called this many times."""
        while len(self.calls) < times:  # noqa: ASYNC110 -- a test's own wait
            await asyncio.sleep(0.02)

    async def outcome(self, action: str, text: str = "", **limits):
        return await self.runtime.call(self.program, invocation(**limits), action, text)

    async def run(self, action: str, text: str = "", **limits):
        outcome = await self.outcome(action, text, **limits)
        outcome.output_or_raise()
        return outcome

    async def fails(self, error: type[Exception], words: str, action: str, text: str = "", **limits):
        """Run what must fail, and return its outcome."""
        outcome = await self.outcome(action, text, **limits)
        assert isinstance(outcome.error, error), outcome
        assert re.search(words, outcome.error.message), outcome.error.message
        return outcome


@pytest.fixture
async def host(compiled_home: Path, python_component: Path):
    host = Host(compiled_home, python_component, runners=1)
    yield host
    await host.runtime.close()
