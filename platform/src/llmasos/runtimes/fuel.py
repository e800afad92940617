"""What a second of compute is in fuel."""

from typing import Final

# Fuel counts instructions of the guest, so what a second comes to depends on them: interpreters in a component (the
# usual app) burn a few thousand million a second, a tight loop that is compiled as far as it goes 27 thousand million
# (wasmtime 50 on a 2-core x86-64). Taken at the interpreters' rate, `cpu_seconds` is about right for them and comes
# early for tight loops; the wall deadline bounds both. Native runners report their thread's time at the same rate.
FUEL_PER_CPU_SECOND: Final = 4_000_000_000
