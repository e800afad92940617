"""A native app that reaches its own runner's connection, and sends what the runner would not."""

from __future__ import annotations

import json

import pytest
from tests.platform.native.native_apps import HEAD

from llmasos.errors import AppFailed, LlmasosError, ResourceLimit, RunnerDied
from llmasos.runtimes.confinement import confinement
from llmasos_runner.protocol import FUEL_PER_CPU_SECOND

pytestmark = pytest.mark.skipif(not confinement().is_available, reason=str(confinement().missing))
FORGING = (
    HEAD
    + """
import gc, json, os, struct, time

def connection():
    return next(each._connection for each in gc.get_objects() if type(each).__name__ == "HostConnection")

def send(**message):
    frame = json.dumps(message).encode()
    connection().sendall(struct.pack(">I", len(frame)) + frame)

def done(id, **fields):
    send(**{"t": "done", "id": id, "fuel": 1, "memory_bytes": 1, "log": "", "output": "1", **fields})
    time.sleep(30)

@app.action
def negative(ctx: Context, id: str) -> str:
    done(id, fuel=-1)

@app.action
def no_json(ctx: Context, id: str) -> str:
    done(id, output="{no json")

@app.action
def deep(ctx: Context, id: str) -> str:
    done(id, output="[" * 400_000 + "]" * 400_000)

@app.action
def large(ctx: Context, id: str) -> str:
    done(id, output=json.dumps("x" * 2_000_000))

@app.action
def boasting(ctx: Context, id: str) -> str:
    done(id, memory_bytes=2**62, fuel=2**62, log="x" * 1_000_000)

@app.action
def storm(ctx: Context, id: str) -> str:
    for seq in range(1000, 1_000_000):
        send(t="syscall", id=id, seq=seq, capability="output", function="progress", arguments=[0.5, "x" * 1000])

@app.action
def silent(ctx: Context, id: str) -> str:
    os.close(connection().fileno())
    time.sleep(30)

@app.action
def plain(ctx: Context, id: str) -> str:
    return "alive"
"""
)


@pytest.mark.parametrize(
    ("action", "error", "said"),
    [
        ("negative", RunnerDied, "what is no message"),
        ("no_json", AppFailed, "is not JSON"),
        ("deep", AppFailed, "is not JSON"),
        ("large", ResourceLimit, "returned 2000002 bytes"),
        ("storm", RunnerDied, "more calls at once than an app can"),
        ("silent", RunnerDied, "exit code"),
    ],
)
async def test_an_app_that_forges_frames_ends_its_own_run_alone(
    host, action: str, error: type[LlmasosError], said: str
) -> None:
    """11-S3, 11-S4, 11-S11, SECURITY C6: the next run of the same app works."""
    program = await host.install(FORGING)
    invocation = host.invocation()
    with pytest.raises(error, match=said):
        await host.run(program, action, invocation, id=invocation.id)
    # Of a million: as many as were replied to before two came in one piece.
    assert len(host.calls) < 1000
    assert await host.run(program, "plain", id="") == "alive"


async def test_what_an_app_forges_about_its_own_use_is_bounded(host) -> None:
    """11-S11, SECURITY C7: compute is the host's own measure, and no claim is above what is possible."""
    program = await host.install(FORGING)
    invocation = host.invocation(memory_mib=64)
    outcome = await host.runtime.call(program, invocation, "boasting", json.dumps({"id": invocation.id}))
    assert outcome.fuel < FUEL_PER_CPU_SECOND
    assert outcome.memory_bytes < 1 << 30
    invocation.measured(outcome.fuel, outcome.memory_bytes, outcome.log)
    assert len(invocation.log) < invocation.limits.log_bytes + 100
