"""What the gateway and the model capability add to one model call, over bare `litellm.acompletion`.

Run: `uv run python tests/benchmarks/bench_gateway.py`. The provider answers at once, through the real litellm. Bare and
ours alternate in rounds, so that load slows both; the ratio of medians is what counts.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from llmasos.bundles.manifest import LocalisedText, ModelPermission
from llmasos.capabilities.model import ModelCapability
from llmasos.gateway.engine import load_litellm
from llmasos.gateway.request import GenerateRequest
from llmasos.gateway.testing import SCRIPTED, ScriptedProvider, scripted_gateway
from llmasos.kernel.invocation import InstalledApp, Invocation, Principal

ROUNDS, CALLS = 12, 64
MESSAGES: list[dict[str, Any]] = [
    {"role": "system", "content": "You are brief."},
    {"role": "user", "content": "Sum this up: " + "the sea is wide and the day is long. " * 20},
]


async def timed(call: Callable[[], Awaitable[object]], concurrent: int) -> float:
    """Milliseconds per call, of CALLS calls with this concurrency."""
    started = time.perf_counter()
    for _ in range(CALLS // concurrent):
        await asyncio.gather(*(call() for _ in range(concurrent)))
    return (time.perf_counter() - started) * 1000 / CALLS


async def measure() -> None:
    """Print the table."""
    provider = ScriptedProvider()
    gateway = scripted_gateway(Path(tempfile.mkdtemp()), provider)
    capability = ModelCapability(gateway)
    permission = ModelPermission(capability="model", tiers=("fast",), reason=LocalisedText(en="x"))
    app = InstalledApp("acme/app", "1.0.0", "i", {"model": permission}, frozenset({"model"}))
    invocation = Invocation(Principal(), app, "act")
    request = GenerateRequest.model_validate({"messages": MESSAGES, "max_tokens": 100})
    text = json.dumps({"messages": MESSAGES, "max_tokens": 100})
    await gateway.generate(request)
    litellm = load_litellm()

    async def bare() -> None:
        await litellm.acompletion(
            model=f"{SCRIPTED}/scripted", messages=MESSAGES, max_tokens=100, timeout=120, max_retries=0, num_retries=0
        )

    async def through_gateway() -> None:
        await gateway.generate(request)

    async def through_capability() -> None:
        function = capability.contract["generate"]
        call = capability.prepare(invocation, function.decode([text]))
        function.encode((await call.execute(call.demand)).answer)

    roads = {"bare litellm": bare, "gateway": through_gateway, "gateway + capability": through_capability}
    print(f"{'':24}{'at once':>8}{'ms a call':>11}{'added ms':>10}{'ratio':>7}")
    for concurrent in (1, 32):
        times: dict[str, list[float]] = {name: [] for name in roads}
        for _ in range(ROUNDS):
            for name, call in roads.items():
                provider.requests.clear()
                times[name].append(await timed(call, concurrent))
        base = statistics.median(times["bare litellm"])
        for name in roads:
            median = statistics.median(times[name])
            print(f"{name:24}{concurrent:>8}{median:>11.3f}{median - base:>10.3f}{median / base:>7.2f}")


COLD = """
import time; t = time.monotonic()
import sys; from pathlib import Path
from llmasos.gateway.embedded.process import EngineProcess, EngineSpec
e = EngineProcess(EngineSpec('smollm2', 'chat', Path(sys.argv[1])))
t = time.monotonic(); e.start(); print(f'{time.monotonic() - t:.2f}'); e.close()
"""


def cold_starts(weights: Path) -> None:
    """Print how long the first call waits for its parts, each in a fresh process."""
    script = (
        "import time; t = time.monotonic()\n"
        "from llmasos.gateway.engine import load_litellm; load_litellm(); print(f'{time.monotonic() - t:.2f}')"
    )
    litellm = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.strip()
    command = [sys.executable, "-c", COLD, str(weights)]
    engine = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    print(f"cold start: litellm {litellm} s, embedded engine {engine} s (they start side by side)")


if __name__ == "__main__":
    asyncio.run(measure())
    if len(sys.argv) > 1:
        cold_starts(Path(sys.argv[1]))
