"""The command `llmasos`.

`registry.py` says which commands there are and where; `shell.py` finds, runs and bounds them; `output.py` is how they
speak. The others are the commands.
"""

from __future__ import annotations


def main() -> None:
    """Run the command line of this process."""
    import gc
    import sys

    # Importing makes a few hundred thousand objects that stay. The collector would look through them a hundred times,
    # which took a sixth of a run's start.
    # `serve` sets it back.
    gc.set_threshold(100_000)
    if sys.dont_write_bytecode:
        _keep_bytecode()
    from llmasos_server.cli.shell import app

    app()


def _keep_bytecode() -> None:
    from contextlib import suppress

    from llmasos.bytecode import keep_in
    from llmasos.errors import LlmasosError
    from llmasos.home import default_home

    with suppress(LlmasosError, OSError):  # a command that needs a home says what is wrong with it
        home = default_home()
        if any(home.iterdir()):  # what only reads leaves nothing in an empty one
            keep_in(home)
