import asyncio
import json
import os
import signal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from waiting import until

from llmasos.errors import (
    AppFailed,
    Invalid,
    PermissionNotGranted,
    ResourceLimit,
    RunnerDied,
    TimedOut,
)
from llmasos.i18n import render
from llmasos_runner.protocol import MAX_FRAME_BYTES


async def never(*_arguments):
    await asyncio.Event().wait()


async def test_an_action_returns_its_output_and_what_it_used(host):
    result = await host.run("echo", '{"text": "é 中文"}')
    assert json.loads(result.output) == {"text": "é 中文"}
    assert result.fuel > 10_000
    assert 4096 <= result.memory_bytes < 16 << 20


async def test_every_invocation_is_a_fresh_instance(host):
    assert [(await host.run("count")).output for _ in range(3)] == ["1", "1", "1"]


async def test_what_a_guest_prints_is_its_log(host):
    result = await host.run("say", '"hello"')
    assert result.log == "hello\nto stderr\n"


async def test_a_flood_of_lines_keeps_only_the_last(host):
    result = await host.run("flood", "20000", log_bytes=1000)
    assert len(result.log) < 1100
    assert "bytes of log dropped" in result.log.splitlines()[0]
    assert "line 19999" in result.log


async def test_every_host_function_crosses_with_its_types(host):
    parts = ["one", "two"]

    async def read(_number):
        return parts.pop(0) if parts else None

    host.answers = {
        "model.open": 7, "model.read": read, "storage.get": None, "storage.put": 2**63, "storage.compare-and-set": 3,
        "storage.delete": True, "storage.keys": ["a", "é"], "model.count-tokens": 4, "model.embed": "{}",
    }  # fmt: skip
    result = await host.run("every_function")
    assert json.loads(result.output) == [["one", "two"], None, 2**63, 3, True, ["a", "é"], 4, "{}"]
    assert ("output", "progress", [0.5, "half"]) in host.calls
    assert ("log", "write", ["info", "é"]) in host.calls
    assert ("model", "read", [7]) in host.calls
    assert ("storage", "compare-and-set", ["k", None, "w", True]) in host.calls
    assert ("storage", "keys", ["", "a", 10]) in host.calls


@given(st.lists(st.none() | st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=20))
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_any_text_crosses_both_ways_and_back(host, texts):
    async def get(key):
        return texts[int(key)]

    host.answers["storage.get"] = get
    for number, text in enumerate(texts):
        # The answer of an action is JSON; what passes through unchanged may as well be a JSON string.
        texts[number] = None if text is None else json.dumps(text, ensure_ascii=False)
        assert (await host.run("round_trip", str(number))).output == (texts[number] or "null")


async def test_a_refusal_of_the_host_reaches_the_guest_as_its_case(host):
    async def refuse(_request):
        raise PermissionNotGranted("not granted: model")

    host.answers["model.generate"] = refuse
    result = await host.run("huge_argument", "1")
    assert json.loads(result.output) == ["Error_Denied", "not granted: model"]


async def test_a_host_that_answers_with_another_type_fails_that_call_alone(host):
    host.answers["model.generate"] = 5
    result = await host.run("huge_argument", "1")
    assert json.loads(result.output)[0] == "Error_Unavailable"


@pytest.mark.parametrize("length", [5_000_000, 8_000_000])
async def test_an_argument_larger_than_a_frame_is_refused_to_the_guest(host, length):
    result = await host.run("huge_argument", str(length))
    assert json.loads(result.output)[0] == "Error_Invalid"
    assert host.calls == []


async def test_a_number_that_json_cannot_say_is_refused_to_the_guest(host):
    assert "not JSON" in (await host.run("nan")).output


async def test_a_guest_finds_no_files_environment_arguments_or_input(host):
    seen = json.loads((await host.run("probe")).output)
    assert seen["env"] == {}
    assert seen["argv"] == []
    assert seen["stdin"] == ""
    assert "worked" not in (seen["open"], seen["list"], seen["write"])
    assert seen["time"]
    assert seen["random"]


@pytest.mark.parametrize("tag", ["not-found", "conflict", "quota"])
async def test_an_error_of_the_app_never_passes_for_one_of_the_hosts(host, tag):
    await host.fails(AppFailed, "so it is", "refuse", tag)


async def test_an_endless_loop_ends_at_its_deadline(host):
    await host.run("echo", "1")
    outcome = await host.fails(TimedOut, "longer than 0.3 seconds", "spin", wall_seconds=0.3)
    assert render(outcome.error.message, "zh") == "用时超过 0.3 秒。"
    assert outcome.fuel > 1_000_000


async def test_an_endless_loop_ends_when_its_fuel_does(host):
    assert (await host.fails(ResourceLimit, "compute", "spin", fuel=50_000_000)).fuel == 50_000_000


async def test_a_sleeping_guest_ends_at_its_deadline(host):
    await host.run("echo", "1")
    with pytest.raises(TimedOut):
        await host.run("sleep", "3600", wall_seconds=0.3)
    assert (await host.run("sleep", "0.05")).output == "1"


async def test_a_blocked_host_call_ends_at_the_deadline(host):
    host.answers["model.generate"] = never
    await host.run("echo", "1")
    with pytest.raises(TimedOut):
        await host.run("generate", "{}", wall_seconds=0.3)


@pytest.mark.parametrize("action", ["spin", "sleep", "generate"])
async def test_cancelling_ends_the_guest(host, action):
    closed = asyncio.Event()

    async def wait_until_cancelled(_request):
        try:
            await never()
        finally:
            closed.set()

    host.answers["model.generate"] = wait_until_cancelled
    task = asyncio.create_task(host.run(action, "3600"))
    # A guest that loops or sleeps calls nothing that a test could wait for.
    await (host.called(1) if action == "generate" else asyncio.sleep(0.3))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert closed.is_set() or action != "generate"
    assert (await host.run("echo", "1")).output == "1"


async def test_a_host_call_in_an_endless_loop_ends_at_its_deadline(host):
    host.answers["model.count-tokens"] = 1
    with pytest.raises(TimedOut):
        await host.run("call_for_ever", wall_seconds=2)
    assert len(host.calls) > 1


@pytest.mark.parametrize(
    ("action", "text", "error", "words"),
    [
        ("recurse", "", ResourceLimit, "nest deeper"),
        ("grow", "", ResourceLimit, "more memory than it may use: 64 MiB"),
        ("large", "2000000", ResourceLimit, "result is too large"),
        ("large", "100000000", ResourceLimit, "memory"),
        ("fail", "no such thing", AppFailed, "ValueError: no such thing"),
        ("leave", "3", AppFailed, "exit code"),
        ("not_json", "", AppFailed, "not JSON"),
        ("empty", "", AppFailed, "not JSON"),
    ],
)
async def test_a_guest_that_fails_is_one_clear_error(host, action, text, error, words):
    outcome = await host.fails(error, words, action, text)
    assert "\n" not in outcome.error.message.strip()
    assert outcome.fuel > 0
    assert (await host.run("echo", "1")).output == "1"


async def test_an_input_larger_than_a_frame_is_refused(host):
    with pytest.raises(Invalid, match="over the limit"):
        await host.run("echo", "x" * MAX_FRAME_BYTES)


async def test_a_megabyte_crosses_both_ways(host):
    text = json.dumps("é" * 400_000, ensure_ascii=False)
    assert (await host.run("echo", text)).output == text


async def test_a_description_is_read_without_the_host(host):
    assert json.loads(await host.runtime.describe(host.program)) == [{"name": "echo"}]


async def test_a_runner_that_is_killed_fails_what_ran_there_and_nothing_else(host):
    host.answers["model.generate"] = never
    running = [asyncio.create_task(host.run("generate", "{}")) for _ in range(100)]
    await host.called(100)
    (pid,) = host.runtime.runner_pids
    os.kill(pid, signal.SIGKILL)
    ends = await asyncio.gather(*running, return_exceptions=True)
    assert {type(end) for end in ends} == {RunnerDied}
    assert "SIGKILL" in ends[0].message
    assert (await host.run("echo", "1")).output == "1"
    assert host.runtime.runner_pids != [pid]


async def test_two_hundred_wait_on_the_host_at_once(host):
    gate = asyncio.Event()

    async def answer(_request):
        await gate.wait()
        return '"done"'

    host.answers["model.generate"] = answer
    running = [asyncio.create_task(host.run("generate", "{}")) for _ in range(200)]
    await host.called(200)
    gate.set()
    assert {result.output for result in await asyncio.gather(*running)} == {'"done"'}


async def test_closing_while_guests_run_ends_them_in_order(host):
    spinning = asyncio.create_task(host.run("spin"))
    await until(lambda: host.runtime.runner_pids)
    await asyncio.sleep(0.3)  # a guest that only computes says nothing when it begins
    (pid,) = host.runtime.runner_pids
    await host.runtime.close()
    with pytest.raises(RunnerDied):
        await spinning
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
