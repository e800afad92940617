"""The end of a native app's runner, and what ends with it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest
from tests.platform.native.native_apps import ACTIONS, HEAD
from waiting import until

from llmasos.errors import RunnerDied
from llmasos.runtimes import native as native_module
from llmasos.runtimes.confinement import Confinement, confinement
from llmasos.runtimes.native import NativeRuntime
from llmasos.runtimes.runtime import Program

pytestmark = pytest.mark.skipif(not confinement().is_available, reason=str(confinement().missing))


async def test_an_idle_runner_ends_and_the_next_call_starts_another(host):
    host.runtime = NativeRuntime(host.environments, host.handler, idle_seconds=0.3)
    program = await host.install(ACTIONS)
    await host.run(program, "shout", text="a")
    await until(lambda: host.runtime.confinement("one") == ())
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


async def test_past_the_most_the_runner_that_rested_longest_ends(host):
    host.runtime = NativeRuntime(host.environments, host.handler, most_runners=2)
    program = await host.install(ACTIONS)
    for name in ("a", "b", "c"):
        await host.run(Program("python", program.digest, program.capabilities, name), "shout", text="x")
    assert host.runtime.confinement("a") == ()
    assert host.runtime.confinement("c")


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
    """Whether a process exists and is not a zombie."""
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
