"""`migrate` and `doctor`: the state of the home, and what to do about it."""

from __future__ import annotations

from llmasos.home import state_home_and_database_url
from llmasos.schema import ensure_schema, newest_revision
from llmasos_marketplace.cli.output import emit_json, options, say, tr


def migrate() -> None:
    """Bring the database up to date. It is made where it is missing; other commands do this at first use."""
    home, url = state_home_and_database_url()
    changed = ensure_schema(url, home)
    if options().json:
        emit_json({"schema": newest_revision(), "changed": changed})
    elif changed:
        say(tr(f"The database has schema {newest_revision()} now.", f"数据库结构已升级到 {newest_revision()}。"))
    else:
        say(tr(f"The database is up to date ({newest_revision()}).", f"数据库已是最新（{newest_revision()}）。"))
