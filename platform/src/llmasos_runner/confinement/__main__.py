"""Confine this very process and print by which mechanisms: a trial that the host runs in a process of its own."""

import json
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    from llmasos_runner.confinement import ConfinementMissing, apply

    mechanisms: list[str] = []
    missing: str | None = None
    try:
        mechanisms = apply({"profile": "native", "identity": "trial"})
    except (ConfinementMissing, OSError) as error:
        missing = str(error)
    print(json.dumps({"mechanisms": mechanisms, "missing": missing}))  # noqa: T201 - the result is the output
