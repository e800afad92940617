"""Native apps that evade their limits, and a system that cannot confine them."""

from __future__ import annotations

import asyncio
import re

import pytest
from tests.platform.native.native_apps import ACTIONS, HEAD

from llmasos.errors import CannotConfine, ResourceLimit, Unavailable
from llmasos.i18n import render
from llmasos.kernel.invocation import Invocation, InvocationLimits, Principal
from llmasos.runtimes import native as native_module
from llmasos.runtimes.confinement import Confinement, confinement
from llmasos.runtimes.native import NativeRuntime
from llmasos_runner.protocol import FUEL_PER_CPU_SECOND

pytestmark = pytest.mark.skipif(not confinement().is_available, reason=str(confinement().missing))
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
