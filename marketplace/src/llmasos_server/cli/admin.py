"""`migrate` and `doctor`: the state of the home, and what to do about it."""

from __future__ import annotations

import typer

from llmasos.database.schema import ensure_schema, newest_revision
from llmasos.home import state_home_and_database_url
from llmasos.i18n import ngettext, render
from llmasos_server.cli.output import GREEN, RED, emit_json, locale, options, say, say_marked, tr


def migrate() -> None:
    """Bring the database up to date. It is created if it is missing; other commands do this at first use."""
    home, url = state_home_and_database_url()
    changed = ensure_schema(url, home)
    if options().json:
        emit_json({"schema": newest_revision(), "changed": changed})
    elif changed:
        say(tr("The database has schema {newest_revision} now.", newest_revision=newest_revision()))
    else:
        say(tr("The database is up to date ({newest_revision}).", newest_revision=newest_revision()))


def doctor() -> None:
    """Check every part of the home and of this system, and say what to do. The exit code is 1 if something is wrong."""
    import asyncio

    from llmasos_server.doctor import examine
    from llmasos_server.doctor_machine import Finding

    home, url = state_home_and_database_url()
    found: list[Finding] = []

    async def look() -> None:
        async for finding in examine(home, url):
            found.append(finding)
            if not options().json:
                mark, style = {"ok": ("✓", GREEN), "note": ("·", ""), "problem": ("✗", RED)}[finding.status]
                say_marked(mark, style, f"{finding.part}: {render(finding.message, locale())}")

    asyncio.run(look())
    problems = [finding for finding in found if finding.status == "problem"]
    if options().json:
        checks = [{"part": each.part, "status": each.status, "detail": each.message} for each in found]
        emit_json({"healthy": not problems, "checks": checks})
    elif problems:
        said = ngettext("{count} thing needs you.", "{count} things need you.", count=len(problems))
        say(render(said, locale()))
    else:
        say(tr("All is well."))
    if problems:
        raise typer.Exit(1)
