"""The host's side of runners.

`runtime` is the interface; `component` and `native` implement it, and `kinds` registers them. Below them:
`preparation` (code that is not ready when it is called), `compiled` and `environments` (the prepared code), `pool` and
`slots` (warm runners), `admission` (memory), `compute` (the meter), `runner` (one process and its calls), `process`
(starting it), `frames` (decoding what it sends).
"""

from llmasos_runner.protocol import FUEL_PER_CPU_SECOND

__all__ = ["FUEL_PER_CPU_SECOND"]
