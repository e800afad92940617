"""Calls of one runner whose ends interleave: no call's end costs another call, and no clean-up is interrupted."""

import asyncio
import json
import struct
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.platform.runtimes.test_hostile_runner import call

from llmasos.errors import RunnerDied
from llmasos.runtimes import runner as runners
from llmasos.runtimes.runner import Runner

CALLS = 3
STEPS = st.tuples(st.sampled_from(["call", "nest", "cancel", "answer", "done", "pause"]), st.integers(0, CALLS - 1))


class Process:
    """A process that only records that it was killed."""

    pid = 0

    def __init__(self):
        self.killed = False

    def kill(self):
        self.killed = True

    async def ended(self, within_seconds):
        return "exit code 0"

    async def close(self):
        pass


class Guest(asyncio.Transport):
    """An honest runner at the other end: it ends a call once, when told to or soon after its cancellation."""

    def __init__(self):
        super().__init__()
        self.runner = Runner(Process())
        self.runner.connection_made(self)
        self.running = {}
        self.replies = Counter()

    def write(self, data):
        message = json.loads(data[4:])
        match message["t"]:
            case "call":
                self.running[message["id"]] = 0
            case "reply":
                self.replies[message["id"]] += 1
            case "cancel":
                asyncio.get_running_loop().call_later(0.001, self.done, message["id"])

    def is_closing(self):
        return False

    def abort(self):
        self.runner.connection_lost(None)

    def send(self, **message):
        body = json.dumps(message).encode()
        self.runner.data_received(struct.pack(">I", len(body)) + body)

    def syscall(self, identifier):
        self.running[identifier] += 1
        message = {"seq": self.running[identifier], "capability": "apps", "function": "call", "arguments": []}
        self.send(t="syscall", id=identifier, **message)

    def waits_for_nothing(self, identifier):
        """Whether each of a call's host calls has its reply: only then does an honest guest make another."""
        return self.replies[identifier] == self.running[identifier]

    def done(self, identifier):
        if self.running.pop(identifier, None) is not None:
            self.send(t="done", id=identifier, fuel=1, memory_bytes=1, log="", output="1")


class Interleaving:
    """Calls 0 to 2 of one runner. The handler of a call that nests runs the next call, as an app calls an app."""

    def __init__(self):
        self.guest = Guest()
        self.tasks = {}
        self.cancelled = set()
        self.gates = [asyncio.Event() for _ in range(CALLS)]
        self.serving = set()
        self.interrupted = []

    async def run(self, number):
        return await self.guest.runner.call(call("any", str(number)), lambda *_: self.handle(number))

    async def handle(self, number):
        self.serving.add(number)
        try:
            following = number + 1
            if following < CALLS and following not in self.tasks:
                self.tasks[following] = asyncio.current_task()
                end = await self.run(following)
                if isinstance(end.error, asyncio.CancelledError):
                    if number in self.cancelled:
                        raise end.error
                    asyncio.current_task().uncancel()  # only the callee was cancelled: the kernel makes that an error
                    return "cancelled"
            await self.gates[number].wait()
            return "answered"
        except asyncio.CancelledError:
            try:
                await asyncio.sleep(0.003)
            except asyncio.CancelledError:
                self.interrupted.append(number)
            raise
        finally:
            self.serving.discard(number)

    def step(self, what, number):
        started = str(number) in self.guest.running
        match what:
            case "call" if number not in self.tasks:
                self.tasks[number] = asyncio.create_task(self.run(number))
            case "nest" if started and self.guest.waits_for_nothing(str(number)) and number not in self.cancelled:
                self.guest.syscall(str(number))
            case "cancel" if started:  # the kernel cancels the task of an invocation only while that runs
                self.tasks[number].cancel()
                self.cancelled.add(number)
            case "answer":
                self.gates[number].set()
            case "done" if started and number not in self.serving:
                self.guest.done(str(number))


async def interleaved(steps):
    state = Interleaving()
    for what, number in steps:
        state.step(what, number)
        await asyncio.sleep(0.0005 if what == "pause" else 0)
    for gate in state.gates:
        gate.set()
    for _ in range(200):
        for identifier in list(state.guest.running):
            if int(identifier) not in state.serving:
                state.guest.done(identifier)
        if all(task.done() for task in state.tasks.values()):
            break
        await asyncio.sleep(0.001)
    own = [task for task in dict.fromkeys(state.tasks.values()) if task.get_coro().__name__ == "run"]
    ends = await asyncio.wait_for(asyncio.gather(*own, return_exceptions=True), 5)
    return state, ends


@given(st.lists(STEPS, min_size=5, max_size=40))
@settings(max_examples=120, deadline=None)
def test_no_interleaving_of_ends_costs_a_runner_or_interrupts_a_clean_up(steps):
    """10-1: a second cancellation interrupted the callee's own, and its honest `done` killed the shared runner."""
    state, ends = asyncio.run(interleaved(steps))
    assert state.guest.runner.is_alive, (steps, state.guest.runner._cause)
    assert not state.guest.runner.process.killed
    assert not [end for end in ends if isinstance(end, RunnerDied)]
    assert state.interrupted == []
    assert state.guest.runner.load == 0


async def test_a_cancelled_caller_does_not_cost_the_callees_runner_and_its_bystanders():
    """10-1."""
    state = Interleaving()
    caller = state.tasks[0] = asyncio.create_task(state.run(0))
    bystander = state.tasks[2] = asyncio.create_task(state.run(2))
    await asyncio.sleep(0)
    state.guest.syscall("0")  # it calls app 1
    await asyncio.sleep(0.001)
    assert "1" in state.guest.running
    caller.cancel()
    await asyncio.sleep(0)
    caller.cancel()  # a closed connection, beside the DELETE
    end = await asyncio.wait_for(caller, 2)
    assert isinstance(end.error, asyncio.CancelledError)
    assert end.report is not None, "what the guest used is known though it was cancelled"
    assert "1" not in state.guest.running
    assert state.guest.runner.is_alive
    assert not bystander.done()
    state.guest.done("2")
    assert (await bystander).report.output == "1"


async def test_a_call_waits_for_its_host_call_to_clean_up_but_not_for_ever(monkeypatch):
    monkeypatch.setattr(runners, "GRACE_SECONDS", 0.05)
    guest = Guest()

    async def stubborn(*_call):
        while True:
            try:
                await asyncio.sleep(0.3)
                return
            except asyncio.CancelledError:
                pass

    task = asyncio.create_task(guest.runner.call(call("any", "0"), stubborn))
    await asyncio.sleep(0)
    guest.syscall("0")
    await asyncio.sleep(0.01)
    task.cancel()
    end = await asyncio.wait_for(task, 2)
    assert end.report is not None
    assert guest.runner.is_alive


@pytest.mark.parametrize("after", [0, 0.003])
async def test_a_guest_that_ends_with_a_host_call_open_has_that_call_cancelled_once(after):
    guest, cancelled = Guest(), []

    async def slow(*_call):
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            cancelled.append(1)
            await asyncio.sleep(0.01)
            cancelled.append("cleaned up")
            raise

    task = asyncio.create_task(guest.runner.call(call("any", "0"), slow))
    await asyncio.sleep(0)
    guest.syscall("0")
    await asyncio.sleep(0.001)
    guest.done("0")
    await asyncio.sleep(after)
    task.cancel()
    assert (await task).report is not None
    assert cancelled == [1, "cleaned up"]
