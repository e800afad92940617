"""`quota`, `usage` and `audit`: what may be used, what was used, and what was done."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmasos.errors import Conflict, Invalid
from llmasos.home import WORKSPACE
from llmasos.i18n import _
from llmasos.quotas.meters import Meter, Scope, Window
from llmasos_server.cli.home_database import opened_database
from llmasos_server.cli.output import emit_json, local_time, options, say, say_table, tr
from llmasos_server.cli.remote import Server, named_server

if TYPE_CHECKING:
    from llmasos.database.engine import WriteSession
    from llmasos.quotas.service import QuotaName, Recorder

# The commands act for the person at this machine, in the workspace that an installation starts with.
USER = "local"
# The source of a quota that no app brought; `quotas.service.OPERATOR`, without what that module stands on.
BY_OPERATOR = "operator"

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
    with named_server() as server:
        if server:
            server.send("PUT", "/api/v1/quotas", **_subject(name), limit=limit)
        else:
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

    with opened_database() as database:
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
    with named_server() as server:
        if server:
            server.delete("/api/v1/quotas", **_subject(name))
        else:
            with _writing() as (session, record):
                service.remove_quota(session, record, name)
    if options().json:
        emit_json(name.detail)
    else:
        say(tr("{words}: removed.", words=_words(name)))


@quota.command("list")
def list_() -> None:
    """Show every quota, and what is used of it now."""
    with named_server() as server:
        found = server.items("/api/v1/quotas") if server else _quotas()
    if options().json:
        emit_json(found)
    elif not found:
        say(tr("No quota is set. Set one: llmasos quota set --meter tokens --window day --limit 100000"))
    else:
        header = (tr("for"), tr("meter"), tr("used"), tr("limit"), tr("set by"), tr("resets"))
        rows: list[tuple[str, ...]] = [
            (
                f"{each['scope']} {each['scope_id']}",
                f"{each['meter']}/{each['window']}",
                f"{each['used'] + each['overrun']:,}",
                f"{each['limit']:,}",
                tr("you") if each["source"] == BY_OPERATOR else tr("the app"),
                local_time(each["resets_at"]) if each["resets_at"] else tr("with the run"),
            )
            for each in found
        ]
        say_table(rows, header)
        if any(each["source"] != BY_OPERATOR for each in found):
            say(tr("An app sets the limit that it asked for when it is installed; of two limits, the lower one holds."))


def _quotas() -> list[dict[str, Any]]:
    from llmasos.quotas import service

    with opened_database() as database, database.read() as session:
        return [
            {
                **each.name.detail,
                "limit": each.limit,
                "used": each.used,
                "reserved": each.reserved,
                "overrun": each.overrun,
                "left": each.left,
                "resets_at": each.resets_at.isoformat() if each.resets_at else None,
            }
            for each in service.list_quotas(session, WORKSPACE)
        ]


def usage(
    days: Annotated[int, typer.Option("--days", help=tr("How many days back, today counted."))] = 30,
    app: App = None,
    user: User = None,
) -> None:
    """Show what was used, by day, app and model."""
    with named_server() as server:
        found = _used_on(server, days, app, user) if server else _used(days, app, user)
    if options().json:
        emit_json(found)
        return
    if not found:
        say(tr("Nothing was used yet."))
        return
    header = (
        *(tr("day"), tr("app"), tr("model"), tr("calls")),
        *(tr("prompt"), tr("answer"), "USD"),
    )
    rows: list[tuple[str, ...]] = [
        (
            *(str(each["day"]), each["app_id"] or "-", each["model"] or tr("(runs)"), f"{each['calls']:,}"),
            *(f"{each['prompt_tokens']:,}", f"{each['completion_tokens']:,}"),
            f"{each['cost_micro_usd'] / 1_000_000:.4f}" + ("+?" if each["unpriced_calls"] else ""),
        )
        for each in found
    ]
    say_table(rows, header)


def _used(days: int, app: str | None, user: str | None) -> list[dict[str, Any]]:
    from dataclasses import asdict

    from llmasos.quotas import service

    with opened_database() as database, database.read() as session:
        return [asdict(each) for each in service.usage(session, WORKSPACE, days, user, app)]


def _used_on(server: Server, days: int, app: str | None, user: str | None) -> list[dict[str, Any]]:
    found = server.items("/api/v1/usage", days=days, app=app, user=user)
    return [{"app_id" if field == "app" else field: value for field, value in each.items()} for each in found]


@audit.callback()
def read_audit(
    context: typer.Context,
    limit: Annotated[int, typer.Option("--limit", min=1, max=10_000, help=tr("How many lines, the newest."))] = 50,
) -> None:
    """Read the audit log's newest lines; `verify` holds the whole of it against its hashes."""
    if context.invoked_subcommand is not None:
        return
    with named_server() as server:
        lines = server.items("/api/v1/audit", limit) if server else _audited(limit)
    lines.reverse()
    if options().json:
        emit_json(lines)
    elif not lines:
        say(tr("The audit log is empty."))
    else:
        rows: list[tuple[str, ...]] = [
            (
                *(str(line["seq"]), local_time(line["at"]), line["event"], line["outcome"]),
                *(line["app_id"] or line["user_id"], _detail_text(line["detail"])),
            )
            for line in lines
        ]
        say_table(rows, ("#", tr("when"), tr("event"), tr("outcome"), tr("who"), tr("detail")))


def _audited(limit: int) -> list[dict[str, Any]]:
    """The newest lines, the newest first."""
    from sqlmodel import col, select

    from llmasos.kernel.tables import AuditEntry

    with opened_database() as database, database.read() as session:
        own = select(AuditEntry).where(AuditEntry.workspace_id == WORKSPACE)
        newest = own.order_by(col(AuditEntry.seq).desc()).limit(limit)
        return [row.model_dump(mode="json") for row in session.exec(newest)]


def _detail_text(detail: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}: {value}" for name, value in detail.items())


@audit.command("verify")
def verify_audit() -> None:
    """Hold every line of the audit log against its hash."""
    with named_server() as server:
        found = server.get("/api/v1/audit/verification") if server else _verified()
    if options().json:
        emit_json(found)
    if not found["intact"]:
        raise Conflict(
            _(
                "The audit log was changed: {reason}. The {lines:,} lines before it are as they were written.",
                reason=found["reason"],
                lines=found["lines"],
            ),
        )
    if not options().json:
        head = str(found["heads"].get(WORKSPACE, ""))
        say(
            tr(
                "The audit log is as it was written: {lines:,} lines, ending in {head}.",
                lines=found["lines"],
                head=head[:16] or "-",
            )
        )


def _verified() -> dict[str, Any]:
    from llmasos.kernel.audit import verify

    with opened_database() as database, database.read() as session:
        found = verify(session)
    return {
        "intact": found.intact,
        "lines": found.lines,
        "heads": dict(found.heads),
        "workspace": found.workspace,
        "seq": found.seq,
        "reason": found.reason,
    }


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


def _subject(name: QuotaName) -> dict[str, str | None]:
    """A quota's name as a server takes it, whose token says which workspace is meant."""
    fields: dict[str, str | None] = {"scope": name.scope.value, "meter": name.meter.value, "window": name.window.value}
    return fields | {"scope_id": None if name.scope is Scope.WORKSPACE else name.scope_id}


def _words(name: QuotaName) -> str:
    return f"{name.scope} {name.scope_id}, {name.meter}/{name.window}"


@contextmanager
def _writing() -> Generator[tuple[WriteSession, Recorder]]:
    from llmasos.kernel.audit import Line, record

    with opened_database() as database, database.write() as session:

        def write(event: str, detail: Mapping[str, Any]) -> None:
            record(session, Line(WORKSPACE, USER, event, detail=detail))

        yield session, write
