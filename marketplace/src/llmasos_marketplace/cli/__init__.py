"""The command `llmasos`.

`registry.py` says which commands there are and where; `shell.py` finds, runs and bounds them; `output.py` is how they
speak. The others are the commands.
"""

from __future__ import annotations


def main() -> None:
    """Run the command line of this process."""
    from llmasos_marketplace.cli.shell import app

    app()
