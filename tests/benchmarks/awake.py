"""Keeps the processors from halting while something is measured.

An idle processor of a virtual machine halts, and the hypervisor takes 20 to 40 µs to wake it: as long
as what is measured here. A program at idle priority on each processor keeps it awake, and yields to everything else;
it is what benchmarks mean by "sleep states disabled".
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_SPIN = "import os\nos.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))\nwhile True: pass\n"


@contextmanager
def awake() -> Iterator[None]:
    """Keep the processors awake in the block."""
    spinning = [subprocess.Popen([sys.executable, "-I", "-S", "-c", _SPIN]) for _ in os.sched_getaffinity(0)]
    try:
        yield
    finally:
        for each in spinning:
            each.kill()
            each.wait()
