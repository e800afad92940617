"""How long the commands that call no model take to start: `python tests/benchmarks/bench_cli.py`.

The limit is 0.2 s on an idle machine, or 8 times `python -c pass`, whichever is more; the best of many runs counts,
since only a busy machine makes a start longer.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from llmasos.bundles.testing import make_bundle, manifest_text
from llmasos_marketplace.catalog.testing import add_bundle, open_catalog

RUNS = 15
LIMIT_SECONDS = 0.2
LIMIT_RATIO = 8.0
COMMANDS = (["--help"], ["list"], ["search"], ["search", "hello"], ["show", "acme/hello"], ["list", "--json"])


def best(commands: list[list[str]], environment: dict[str, str]) -> list[float]:
    """The shortest of several runs of each, in seconds. They alternate, so that load affects all equally."""
    taken = [float("inf")] * len(commands)
    for _ in range(RUNS):
        for number, command in enumerate(commands):
            started = time.perf_counter()
            subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
            taken[number] = min(taken[number], time.perf_counter() - started)
    return taken


def main() -> int:
    """Print the table; return 1 if a command is over both limits."""
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        catalog = open_catalog(home)
        for number in range(50):
            add_bundle(catalog, make_bundle(home / "made", manifest_text(f"acme{number:03}/hello")))
        add_bundle(catalog, make_bundle(home / "made", manifest_text()))
        catalog.database.close()
        environment = {**os.environ, "LLMASOS_HOME": name}
        script = str(Path(sys.executable).with_name("llmasos"))
        bare, *each = best([[sys.executable, "-c", "pass"], *([script, *words] for words in COMMANDS)], environment)
        over = 0
        print(f"{'command':28} {'best':>8} {'of pass':>8}")
        print(f"{'python -c pass':28} {bare * 1000:6.0f} ms {1:8.1f}")
        for words, seconds in zip(COMMANDS, each, strict=True):
            fails = seconds > LIMIT_SECONDS and seconds > LIMIT_RATIO * bare
            over += fails
            mark = "  OVER" if fails else ""
            print(f"{'llmasos ' + ' '.join(words):28} {seconds * 1000:6.0f} ms {seconds / bare:8.1f}{mark}")
    return 1 if over else 0


if __name__ == "__main__":
    sys.exit(main())
