"""What the kernel adds to one model call: `python tests/benchmarks/bench_kernel.py [calls]`.

Bare `litellm.acompletion` on a provider that does nothing, against the same call through `Kernel.call`: authorise,
reserve in four quotas, execute, settle, audit, on SQLite. Short rounds of both alternate; compared are their medians,
and their fastest tenth, which other load disturbed least.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import litellm
from litellm import CustomLLM, ModelResponse
from sqlmodel import SQLModel

from llmasos import tables  # noqa: F401
from llmasos.bundles.manifest import LocalisedText, ModelPermission
from llmasos.database.engine import Database
from llmasos.kernel.capability import Operation, OperationResult, PreparedCall
from llmasos.kernel.invocation import InstalledApp, Invocation, InvocationLimits, Principal
from llmasos.quotas import service
from llmasos.quotas.meters import Demand, Meter, Scope, Shrink, Used, Window
from llmasos.quotas.service import QuotaName
from llmasos.testing import small_host

ROUNDS = 40
MESSAGES = [{"role": "user", "content": "hello"}]
DEMAND = Demand({Meter.TOKENS: 100, Meter.COST: 10}, shrink=Shrink(90, 16), model="noop/x")
USED = Used(prompt_tokens=5, completion_tokens=5, cost_micro_usd=1, model="noop/x")


class Nothing(CustomLLM):
    """A provider that responds immediately."""

    async def acompletion(self, *_args: Any, **kwargs: Any) -> ModelResponse:
        response: ModelResponse = kwargs["model_response"]
        response.model = "noop/x"
        response.choices[0].message.content = "hi"  # type: ignore[union-attr]
        response.usage = litellm.Usage(prompt_tokens=5, completion_tokens=5, total_tokens=10)  # type: ignore[attr-defined]
        return response


async def bare() -> object:
    return await litellm.acompletion(model="noop/x", messages=MESSAGES)


class Generate(Operation[str]):
    """The same call as an operation."""

    capability, function = "model", "generate"


class Model:
    """The smallest capability that makes it."""

    name, contract, audited = "model", {}, True

    def prepare(self, _invocation: Invocation, _operation: Operation[Any]) -> PreparedCall[str]:
        return PreparedCall(self.execute, DEMAND, {"task": "chat"})

    async def execute(self, _granted: Demand) -> OperationResult[str]:
        await bare()
        return OperationResult("hi", USED)


async def timed(call: Callable[[], Awaitable[object]], calls: int, at_once: int) -> float:
    """Seconds per call, with `at_once` concurrent calls."""
    began = time.perf_counter()

    async def some() -> None:
        for _ in range(calls // at_once):
            await call()

    await asyncio.gather(*(some() for _ in range(at_once)))
    return (time.perf_counter() - began) / (calls // at_once * at_once)


async def main() -> None:
    calls = int(sys.argv[1]) if len(sys.argv) > 1 else 96
    litellm.custom_provider_map = [{"provider": "noop", "custom_handler": Nothing()}]
    grant = ModelPermission(capability="model", tiers=("fast",), reason=LocalisedText(en="bench"))
    app = InstalledApp("a/b", "1", "i", {"model": grant}, frozenset({"model"}))
    with tempfile.TemporaryDirectory() as folder, Database(f"sqlite:///{Path(folder) / 'b.db'}") as database:
        SQLModel.metadata.create_all(database.engine)
        with database.write() as session:
            for scope, scope_id in (("workspace", "w"), ("user", "u"), ("app", "a/b"), ("model", "noop/x")):
                name = QuotaName("w", Scope(scope), scope_id, Meter.TOKENS, Window.MONTH)
                service.set_quota(session, lambda event, detail: None, name, 1 << 50)
        print(f"{'at once':>8}  {'':<16}{'bare ms':>8}{'kernel ms':>11}{'added ms':>10}{'added':>8}")
        async with small_host(database, Model()) as host:
            for at_once in (1, 32):
                async with host.invocations.open(
                    Principal("w", "u"), app, "act", InvocationLimits(wall_seconds=600)
                ) as invocation:

                    async def through(invocation: Invocation = invocation) -> object:
                        return await host.kernel.call(invocation, Generate())

                    await timed(bare, 32, at_once)
                    await timed(through, 32, at_once)
                    rounds = [
                        (await timed(bare, calls, at_once), await timed(through, calls, at_once)) for _ in range(ROUNDS)
                    ]
                for share, name in ((0.5, "median"), (0.1, "quickest tenth")):
                    show(at_once, name, *(percentile(column, share) * 1000 for column in zip(*rounds, strict=True)))


def percentile(values: Iterable[float], share: float) -> float:
    return sorted(values)[int(ROUNDS * share)]


def show(at_once: int, name: str, alone: float, through: float) -> None:
    added = through - alone
    print(f"{at_once:>8}  {name:<16}{alone:>8.2f}{through:>11.2f}{added:>10.2f}{added / alone:>8.0%}")


if __name__ == "__main__":
    asyncio.run(main())
