"""The host's side of runners.

`component` is the runtime that the host composes. Below it: `compiled` (the store of compiled components), `pool`
(warm runners), `admission` (who may run now), `runner` (one process and its calls), `process` (starting it), `frames`
(decoding what it says).
"""

from llmasos_runner.protocol import FUEL_PER_CPU_SECOND

__all__ = ["FUEL_PER_CPU_SECOND"]
