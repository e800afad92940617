"""`quota`, `usage` and `audit`: what may be used, what was used, and what was done."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmasos.errors import Conflict, Invalid
from llmasos.home import WORKSPACE
from llmasos.i18n import _
from llmasos.printable import one_line
from llmasos.quotas.meters import Meter, Scope, Window
from llmasos_server.cli.output import emit_json, options, say, tr

if TYPE_CHECKING:
    from llmasos.database.engine import Database, WriteSession
    from llmasos.quotas.service import QuotaName, Recorder

# The commands act for the person at this machine, in the workspace that an installation starts with.
USER = "local"

quota = typer.Typer(help=tr("Set, list and remove quotas."), no_args_is_help=True)
audit = typer.Typer(help=tr("Read and verify the audit log."), invoke_without_command=True)

App = Annotated[
    str | None,
    typer.Option("--app", help=tr("For one app, such as acme/translator.")),
]
User = Annotated[str | None, typer.Option("--user", help=tr("For one user."))]
Model = Annotated[str | None, typer.Option("--model", help=tr("For one model, by its name."))]
MeterOption = Annotated[Meter, typer.Option("--meter", help=tr("What is counted."))]
WindowOption = Annotated[
    Window,
    typer.Option("--window", help=tr("Over what; calendar windows are in UTC.")),
]


@quota.command("set")
def set_(
    *,
    limit: Annotated[int, typer.Option("--limit", help=tr("How much of it, at most."))],
    meter: MeterOption = Meter.TOKENS,
    window: WindowOption = Window.DAY,
    app: App = None,
    user: User = None,
    model: Model = None,
) -> None:
    """Set a quota; without --app, --user or --model, for the whole workspace."""
    from llmasos.quotas import service

    name = _name(app, user, model, meter, window)
    if model is not None:
        _check_model(model)
    with _writing() as (session, record):
        service.check_subject(session, name)
        service.set_quota(session, record, name, limit)
    if options().json:
        emit_json({**name.detail, "limit": limit})
    else:
        say(tr("{words}: at most {limit:,}.", words=_words(name), limit=limit))


def _check_model(name: str) -> None:
    """Refuse a quota for a model that is not configured: it would limit nothing."""
    from llmasos.gateway.registry import ModelRegistry
    from llmasos.home import state_home_and_database_url

    with _database() as database:
        ModelRegistry(state_home_and_database_url()[0], database).get(name)


@quota.command("remove")
def remove(
    meter: MeterOption = Meter.TOKENS,
    window: WindowOption = Window.DAY,
    app: App = None,
    user: User = None,
    model: Model = None,
) -> None:
    """Remove a quota, and what was counted for it."""
    from llmasos.quotas import service

    name = _name(app, user, model, meter, window)
    with _writing() as (session, record):
        service.remove_quota(session, record, name)
    if options().json:
        emit_json(name.detail)
    else:
        say(tr("{words}: removed.", words=_words(name)))


@quota.command("list")
def list_() -> None:
    """Show every quota, and what is used of it now."""
    from llmasos.quotas import service

    with _database() as database, database.read() as session:
        found = service.list_quotas(session, WORKSPACE)
    if options().json:
        emit_json(
            [
                {
                    **each.name.detail,
                    "limit": each.limit,
                    "used": each.used,
                    "reserved": each.reserved,
                    "overrun": each.overrun,
                    "left": each.left,
                    "resets_at": each.resets_at.isoformat() if each.resets_at else None,
                }
                for each in found
            ]
        )
    elif not found:
        say(tr("No quota is set. Set one: llmasos quota set --meter tokens --window day --limit 100000"))
    else:
        header = (tr("for"), tr("meter"), tr("used"), tr("limit"), tr("set by"), tr("resets"))
        rows = [
            (
                f"{each.name.scope} {each.name.scope_id}",
                f"{each.name.meter}/{each.name.window}",
                f"{each.used + each.overrun:,}",
                f"{each.limit:,}",
                tr("you") if each.name.source == service.OPERATOR else tr("the app"),
                each.resets_at.strftime("%Y-%m-%d %H:%M UTC") if each.resets_at else tr("with the run"),
            )
            for each in found
        ]
        _table(header, rows)
        if any(each.name.source != service.OPERATOR for each in found):
            say(tr("An app sets the limit that it asked for when it is installed; of two limits, the lower one holds."))


def usage(
    days: Annotated[int, typer.Option("--days", help=tr("How many days back, today counted."))] = 30,
    app: App = None,
    user: User = None,
) -> None:
    """Show what was used, by day, app and model."""
    from dataclasses import asdict

    from llmasos.quotas import service

    with _database() as database, database.read() as session:
        found = service.usage(session, WORKSPACE, days, user, app)
    if options().json:
        emit_json([asdict(each) for each in found])
        return
    if not found:
        say(tr("Nothing was used yet."))
        return
    header = (
        *(tr("day"), tr("app"), tr("model"), tr("calls")),
        *(tr("prompt"), tr("answer"), "USD"),
    )
    rows = [
        (
            *(str(each.day), each.app_id or "-", each.model or tr("(runs)"), f"{each.calls:,}"),
            *(f"{each.prompt_tokens:,}", f"{each.completion_tokens:,}"),
            f"{each.cost_micro_usd / 1_000_000:.4f}" + ("+?" if each.unpriced_calls else ""),
        )
        for each in found
    ]
    _table(header, rows)


@audit.callback()
def read_audit(
    context: typer.Context,
    limit: Annotated[int, typer.Option("--limit", min=1, max=10_000, help=tr("How many lines, the newest."))] = 50,
) -> None:
    """Read the audit log's newest lines; `verify` holds the whole of it against its hashes."""
    if context.invoked_subcommand is not None:
        return
    from sqlmodel import col, select

    from llmasos.kernel.tables import AuditEntry

    with _database() as database, database.read() as session:
        own = select(AuditEntry).where(AuditEntry.workspace_id == WORKSPACE)
        newest = own.order_by(col(AuditEntry.seq).desc()).limit(limit)
        rows = list(reversed(session.exec(newest).all()))
        lines = [row.model_dump(mode="json") for row in rows]
    if options().json:
        emit_json(lines)
        return
    for line in lines:
        whom = line["app_id"] or line["user_id"]
        detail = one_line(str(line["detail"]))
        say(f"{line['seq']:>6}  {line['at'][:19]}  {line['event']:<20} {line['outcome']:<14} {whom}  {detail}")


@audit.command("verify")
def verify_audit() -> None:
    """Hold every line of the audit log against its hash."""
    from llmasos.kernel.audit import verify

    with _database() as database, database.read() as session:
        found = verify(session)
    if options().json:
        emit_json(
            {
                "intact": found.intact,
                "lines": found.lines,
                "heads": dict(found.heads),
                "workspace": found.workspace,
                "seq": found.seq,
                "reason": found.reason,
            }
        )
    if not found.intact:
        raise Conflict(
            _(
                "The audit log was changed: {reason}. The {lines:,} lines before it are as they were written.",
                reason=found.reason,
                lines=found.lines,
            ),
        )
    if not options().json:
        head = found.heads.get(WORKSPACE, "")
        say(
            tr(
                "The audit log is as it was written: {lines:,} lines, ending in {head}.",
                lines=found.lines,
                head=head[:16] or "-",
            )
        )


def _name(app: str | None, user: str | None, model: str | None, meter: Meter, window: Window) -> QuotaName:
    from llmasos.quotas.service import QuotaName

    named = [
        (scope, it) for scope, it in ((Scope.APP, app), (Scope.USER, user), (Scope.MODEL, model)) if it is not None
    ]
    if len(named) > 1:
        raise Invalid(
            _("A quota is for one thing: give one of --app, --user and --model."),
        )
    scope, scope_id = named[0] if named else (Scope.WORKSPACE, WORKSPACE)
    return QuotaName(WORKSPACE, scope, scope_id, meter, window)


def _words(name: QuotaName) -> str:
    return f"{name.scope} {name.scope_id}, {name.meter}/{name.window}"


@contextmanager
def _database() -> Generator[Database]:
    from llmasos.database.engine import Database
    from llmasos.database.schema import ensure_schema
    from llmasos.home import state_home_and_database_url

    home, url = state_home_and_database_url()
    ensure_schema(url, home)
    with Database(url) as database:
        yield database


@contextmanager
def _writing() -> Generator[tuple[WriteSession, Recorder]]:
    from llmasos.kernel.audit import Line, record

    with _database() as database, database.write() as session:

        def write(event: str, detail: Mapping[str, Any]) -> None:
            record(session, Line(WORKSPACE, USER, event, detail=detail))

        yield session, write


def _table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    for row in (header, *rows):
        say("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
