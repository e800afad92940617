"""Try the walls on this very process and print which stood: what `doctor` runs in a process of its own."""

import json
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    from llmasos_runner.confinement import CannotConfine, apply

    walls: list[str] = []
    missing: str | None = None
    try:
        walls = apply({"profile": "native", "identity": "trial"})
    except (CannotConfine, OSError) as error:
        missing = str(error)
    print(json.dumps({"walls": walls, "missing": missing}))  # noqa: T201 - the answer is the output
