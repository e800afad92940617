"""`invocations show`, `delete` and `keep`: what apps were given and what they returned, as far as that is kept."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from llmasos.errors import NotFound
from llmasos.home import WORKSPACE
from llmasos.i18n import _
from llmasos_server.cli.answers import save_answer, say_answer
from llmasos_server.cli.home_database import opened_database
from llmasos_server.cli.invocations import described, headline, invocations, opened_history
from llmasos_server.cli.output import emit_json, note, options, say, tr
from llmasos_server.cli.remote import named_server

__all__ = ["invocations"]

Id = Annotated[str, typer.Argument(metavar="ID", help=tr("An invocation, by the start of its id."))]


@invocations.command("show")
def show(
    id_: Id,
    out: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help=tr("Save the output, or the picture or file in it.")),
    ] = None,
) -> None:
    """Show what an invocation was given and what it returned."""
    with opened_history() as history:
        run = history.find(id_)
        content = history.content(run)
    if out is not None:
        answer = content.output if run.status == "succeeded" else content.shown
        if not content.kept or (run.status != "succeeded" and not content.shown):
            raise NotFound(_("No output of {id} is kept.", id=run.id[:12]))
        save_answer(answer, out)
        note(tr("Saved to {path}.", path=str(out)))
    if options().json:
        emit_json({**described(run, log=True), **asdict(content)})
    if options().json or out is not None:
        return
    say(headline(run))
    if not content.kept:
        say(tr("Its input and output are not kept."))
    else:
        say(tr("Input:"))
        say_answer(content.input)
        if run.status == "succeeded":
            say(tr("Output:"))
            say_answer(content.output)
        elif content.shown:
            say(tr("It had shown:"))
            say_answer(content.shown)
    if run.code:
        say(tr("Error ({code}): {message}", code=run.code, message=run.message))


@invocations.command("delete")
def delete(id_: Id) -> None:
    """Delete what an invocation was given, returned and logged; that it ran, and what it used, stays."""
    with opened_history() as history:
        run = history.find(id_)
        history.delete(run)
    if options().json:
        emit_json({"id": run.id})
    else:
        say(tr("{id}: what it was given, returned and logged is deleted.", id=run.id[:12]))


@invocations.command("keep")
def keep(
    days: Annotated[
        int | None,
        typer.Argument(metavar="[DAYS]", help=tr("For how many days; 0 keeps nothing and deletes what there is.")),
    ] = None,
) -> None:
    """Show how long inputs and outputs are kept, or choose it."""
    from llmasos.invocations import content
    from llmasos.kernel.invocation import Principal

    with named_server() as server:
        if server:
            path = "/api/v1/retention"
            kept = (server.get(path) if days is None else server.send("PUT", path, days=days))["days"]
        else:
            with opened_database() as database:
                if days is not None:
                    with database.write() as session:
                        content.set_retention_days(session, Principal(WORKSPACE), days)
                with database.read() as session:
                    kept = content.retention_days(session, WORKSPACE)
    if options().json:
        emit_json({"days": kept})
    elif kept:
        say(tr("Inputs and outputs are kept for {days} days.", days=kept))
    else:
        say(tr("Inputs and outputs are not kept."))
