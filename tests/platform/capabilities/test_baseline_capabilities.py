"""Output, log and config: the capabilities of every app."""

import json
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from llmasos.bundles.parts import LocalisedText, StoragePermission
from llmasos.capabilities.baseline import ConfigCapability, LogCapability, OutputCapability
from llmasos.database.engine import Database
from llmasos.errors import Invalid, PermissionNotDeclared, PermissionNotGranted, ResourceLimit
from llmasos.kernel.invocation import Event, InstalledApp, InvocationLimits, Principal
from llmasos.testing import SmallHost, small_host

APP = InstalledApp("acme/one", "1.0", "i1", {}, frozenset({"http"}), {"tone": "formal"})


@pytest.fixture
async def host(database: Database) -> AsyncIterator[SmallHost]:
    async with small_host(database, OutputCapability(), LogCapability(), ConfigCapability()) as host:
        yield host


async def test_output_reaches_the_caller_in_order(host: SmallHost) -> None:
    seen: list[Event] = []

    async def emit(event: Event) -> None:
        seen.append(event)

    async with host.invocations.open(Principal(), APP, "act", emit=emit) as invocation:
        await host.guest(invocation, "output", "chunk", ["Héllo"])
        await host.guest(invocation, "output", "progress", [0.5, "half"])
        await host.guest(invocation, "output", "progress", [1, "done"])
    assert seen == [Event("chunk", "Héllo"), Event("progress", "half", 0.5), Event("progress", "done", 1.0)]


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        ("chunk", []), ("chunk", [1]), ("progress", [2, "x"]), ("progress", [float("nan"), "x"]),
        ("progress", [True, "x"]), ("progress", [0.1]), ("read", [1]), ("other", []),
    ],
)  # fmt: skip
async def test_output_refuses_what_the_contract_does_not_say(host: SmallHost, function: str, arguments: list) -> None:
    async with host.invocations.open(Principal(), APP, "act") as invocation:
        with pytest.raises((Invalid, LookupError, Exception)) as caught:
            await host.guest(invocation, "output", function, arguments)
    assert caught.value.tag in {"invalid", "not-found"}


async def test_output_ends_at_its_limit(host: SmallHost) -> None:
    async with host.invocations.open(Principal(), APP, "act", InvocationLimits(output_bytes=1000)) as invocation:
        for _ in range(9):
            await host.guest(invocation, "output", "chunk", ["x" * 100])
        with pytest.raises(ResourceLimit, match="1,000 bytes"):
            await host.guest(invocation, "output", "chunk", ["x" * 100])
        # Events that say nothing are bounded as well.
        with pytest.raises(ResourceLimit):
            for _ in range(1000):
                await host.guest(invocation, "output", "chunk", [""])


async def test_the_log_is_kept_and_capped_without_failing_the_app(host: SmallHost) -> None:
    async with host.invocations.open(Principal(), APP, "act", InvocationLimits(log_bytes=1000)) as invocation:
        await host.guest(invocation, "log", "write", ["info", "started"])
        for _ in range(1000):
            await host.guest(invocation, "log", "write", ["debug", "x" * 50])
        with pytest.raises(Invalid):
            await host.guest(invocation, "log", "write", ["loud", "x"])
    log = (await host.invocations.find(invocation.id, Principal())).log
    assert log.startswith("INFO started\nDEBUG xxx")
    assert log.endswith("the log is full\n")
    assert len(log.encode()) < 1100


async def test_config_answers_the_installers_values_and_the_callers_language(host: SmallHost) -> None:
    async with host.invocations.open(Principal(locale="zh"), APP, "act") as invocation:
        answer = json.loads(await host.guest(invocation, "config", "read", []))
    assert (answer["values"], answer["locale"]) == ({"tone": "formal"}, "zh")
    assert answer["seed"]
    assert answer["now_ms"] > 1_700_000_000_000
    assert answer["granted"] == sorted(APP.grants)


async def test_an_app_can_ask_what_it_was_granted(host: SmallHost) -> None:
    """11-36: an app could not tell a declined optional permission from a failure."""
    storage = StoragePermission(capability="storage", reason=LocalisedText(en="x"))
    app = replace(APP, grants={"storage": storage}, declared=frozenset({"storage", "model"}))
    async with host.invocations.open(Principal(), app, "act") as invocation:
        assert json.loads(await host.guest(invocation, "config", "read", []))["granted"] == ["storage"]


async def test_the_baseline_needs_no_grant_and_nothing_else_comes_with_it(host: SmallHost) -> None:
    async with host.invocations.open(Principal(), APP, "act") as invocation:
        with pytest.raises(PermissionNotDeclared):
            await host.guest(invocation, "storage", "get", ["k"])
        with pytest.raises(PermissionNotGranted):
            await host.guest(invocation, "http", "request", ["{}"])
        with pytest.raises(PermissionNotDeclared):
            await host.guest(invocation, "output ", "chunk", ["x"])
