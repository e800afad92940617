"""Native apps, built, installed into environments of their own, and run in confined runners."""

from __future__ import annotations

import asyncio
import json

import pytest
from tests.platform.native.native_apps import ACTIONS, HEAD

from llmasos.errors import AppFailed, Invalid, ResourceLimit, RunnerDied, TimedOut
from llmasos.kernel.invocation import Invocation, InvocationLimits, Principal
from llmasos.runtimes.confinement import confinement
from llmasos.runtimes.native import NativeRuntime
from llmasos_runner.protocol import FUEL_PER_CPU_SECOND

pytestmark = pytest.mark.skipif(not confinement().is_available, reason=str(confinement().missing))


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
    all_asked = asyncio.Barrier(10)

    async def together(invocation, capability, function, arguments):
        if capability == "model":
            await all_asked.wait()
        return await host.handler(invocation, capability, function, arguments)

    host.runtime = NativeRuntime(host.environments, together)
    program = await host.install(ACTIONS)
    invocations = [host.invocation() for _ in range(10)]
    answers = await asyncio.gather(*(host.run(program, "ask", each, question="who am I?") for each in invocations))
    assert answers == [f"to {each.id}" for each in invocations]


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
    with pytest.raises(TimedOut):
        await host.run(program, "spin", host.invocation(wall_seconds=1))
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
    with pytest.raises(asyncio.CancelledError):
        await task
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
