"""`backup` and `restore`: everything that a home is, in one file, and back."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from llmasos.errors import NotFound
from llmasos.home import state_home_and_database_url
from llmasos.i18n import _
from llmasos_server.cli.output import emit_json, note, options, say, tr

PASSPHRASE_VARIABLE = "LLMASOS_BACKUP_PASSPHRASE"  # noqa: S105 (a variable's name)


def backup(
    file: Annotated[Path, typer.Argument(help=tr("The file to write."))],
) -> None:
    """Back up the home into one file, while it is in use."""
    from llmasos.backup.make import make_backup, needs_passphrase

    home, url = state_home_and_database_url()
    passphrase = _passphrase(confirm=True) if needs_passphrase(home) else None
    made = make_backup(home, url, file, passphrase)
    sealed = made.manifest.secrets_key is not None
    if options().json:
        emit_json(
            {
                "path": str(made.path),
                "size_bytes": made.size_bytes,
                "schema": made.manifest.schema,
                "secrets": sealed,
                "rows": {name: table.rows for name, table in made.manifest.tables.items()},
            }
        )
        return
    size = f"{made.size_bytes / (1 << 20):,.1f}"
    rows = f"{sum(table.rows for table in made.manifest.tables.values()):,}"
    say(tr("Wrote {file}: {size} MiB, {rows} rows.", file=file, size=size, rows=rows))
    if sealed:
        say(tr("Keep the passphrase: without it the secrets in this file cannot be read, and it cannot be restored."))


def restore(
    file: Annotated[Path, typer.Argument(help=tr("A file that backup wrote."))],
    replace: Annotated[
        bool,
        typer.Option("--replace", help=tr("Delete what this home holds.")),
    ] = False,
) -> None:
    """Restore a home from a backup. Its database may be of either kind."""
    from llmasos.backup.restore import read_backup, restore_backup

    if not file.is_file():
        raise NotFound(_("There is no file {file}.", file=file))
    home, url = state_home_and_database_url()
    passphrase = _passphrase(confirm=False) if read_backup(file).secrets_key is not None else None
    manifest = restore_backup(file, home, url, passphrase, replace=replace)
    if options().json:
        emit_json({"home": str(home), "made_at": manifest.made_at, "schema": manifest.schema})
        return
    say(tr("Restored {home} as it was at {made_at}.", home=home, made_at=manifest.made_at))
    note(
        tr("Apps are compiled again when they next run, and models are fetched again. llmasos doctor checks the rest.")
    )


def _passphrase(*, confirm: bool) -> str | None:
    """The passphrase from the environment, or asked for on a terminal; None without either."""
    named = os.environ.get(PASSPHRASE_VARIABLE)
    if named is not None or not sys.stdin.isatty():
        return named
    asked = typer.prompt(tr("Passphrase for the secrets"), hide_input=True, confirmation_prompt=confirm, err=True)
    return str(asked)
