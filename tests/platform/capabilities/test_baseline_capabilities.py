"""Output, log and config: what every app has."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlmodel import SQLModel

from llmasos import tables  # noqa: F401
from llmasos.capabilities.baseline import ConfigCapability, LogCapability, OutputCapability
from llmasos.database.engine import Database
from llmasos.errors import Invalid, PermissionNotDeclared, PermissionNotGranted, ResourceLimit
from llmasos.kernel.invocation import Event, InstalledApp, InvocationLimits, Principal
from llmasos.kernel.syscall import Kernel
from llmasos.quotas.ledger import Ledger

APP = InstalledApp("acme/one", "1.0", "i1", {}, frozenset({"http"}), {"tone": "formal"})


@pytest.fixture
async def kernel(tmp_path: Path) -> AsyncIterator[Kernel]:
    with Database(f"sqlite:///{tmp_path}/t.db") as database:
        SQLModel.metadata.create_all(database.engine)
        baseline = [OutputCapability(), LogCapability(), ConfigCapability()]
        async with Kernel(database, Ledger(database), baseline) as kernel:
            yield kernel


async def test_output_reaches_the_caller_in_order(kernel: Kernel) -> None:
    seen: list[Event] = []

    async def emit(event: Event) -> None:
        seen.append(event)

    async with kernel.invocation(Principal(), APP, "act", emit=emit) as invocation:
        await kernel.syscall(invocation, "output", "chunk", ["Héllo"])
        await kernel.syscall(invocation, "output", "progress", [0.5, "half"])
        await kernel.syscall(invocation, "output", "progress", [1, "done"])
    assert seen == [Event("chunk", "Héllo"), Event("progress", "half", 0.5), Event("progress", "done", 1.0)]


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        ("chunk", []), ("chunk", [1]), ("progress", [2, "x"]), ("progress", [float("nan"), "x"]),
        ("progress", [True, "x"]), ("progress", [0.1]), ("read", [1]), ("other", []),
    ],
)  # fmt: skip
async def test_output_refuses_what_the_contract_does_not_say(kernel: Kernel, function: str, arguments: list) -> None:
    async with kernel.invocation(Principal(), APP, "act") as invocation:
        with pytest.raises((Invalid, LookupError, Exception)) as caught:
            await kernel.syscall(invocation, "output", function, arguments)
    assert caught.value.tag in {"invalid", "not-found"}


async def test_output_ends_at_its_limit(kernel: Kernel) -> None:
    async with kernel.invocation(Principal(), APP, "act", InvocationLimits(output_bytes=1000)) as invocation:
        for _ in range(9):
            await kernel.syscall(invocation, "output", "chunk", ["x" * 100])
        with pytest.raises(ResourceLimit, match="1,000 bytes"):
            await kernel.syscall(invocation, "output", "chunk", ["x" * 100])
        # Events that say nothing are bounded as well.
        with pytest.raises(ResourceLimit):
            for _ in range(1000):
                await kernel.syscall(invocation, "output", "chunk", [""])


async def test_the_log_is_kept_and_capped_without_failing_the_app(kernel: Kernel) -> None:
    async with kernel.invocation(Principal(), APP, "act", InvocationLimits(log_bytes=1000)) as invocation:
        await kernel.syscall(invocation, "log", "write", ["info", "started"])
        for _ in range(1000):
            await kernel.syscall(invocation, "log", "write", ["debug", "x" * 50])
        with pytest.raises(Invalid):
            await kernel.syscall(invocation, "log", "write", ["loud", "x"])
    log = (await kernel.find(invocation.id, Principal())).log
    assert log.startswith("INFO started\nDEBUG xxx")
    assert log.endswith("the log is full\n")
    assert len(log.encode()) < 1100


async def test_config_answers_the_installers_values_and_the_callers_language(kernel: Kernel) -> None:
    async with kernel.invocation(Principal(locale="zh"), APP, "act") as invocation:
        answer = json.loads(await kernel.syscall(invocation, "config", "read", []))
    assert (answer["values"], answer["locale"]) == ({"tone": "formal"}, "zh")
    assert answer["seed"]
    assert answer["now_ms"] > 1_700_000_000_000


async def test_the_baseline_needs_no_grant_and_nothing_else_comes_with_it(kernel: Kernel) -> None:
    async with kernel.invocation(Principal(), APP, "act") as invocation:
        with pytest.raises(PermissionNotDeclared):
            await kernel.syscall(invocation, "storage", "get", ["k"])
        with pytest.raises(PermissionNotGranted):
            await kernel.syscall(invocation, "http", "request", ["{}"])
        with pytest.raises(PermissionNotDeclared):
            await kernel.syscall(invocation, "output ", "chunk", ["x"])
