"""`policy`: who may install what, what waits for an administrator's approval, and what upgrades by itself."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmasos.errors import Invalid
from llmasos.home import WORKSPACE
from llmasos.i18n import _
from llmasos.validation import misfit
from llmasos_server.cli.home_database import opened_database
from llmasos_server.cli.output import emit_json, local_time, locale, options, say, say_table, tr
from llmasos_server.cli.remote import named_server, segment

if TYPE_CHECKING:
    from llmasos.installs.policy import Policy

policy = typer.Typer(no_args_is_help=True, help=tr("Choose who may install what, and approve what waits."))

Request = Annotated[str, typer.Argument(metavar="ID", help=tr("As `policy requests` shows it."))]
_NONE = "none"


@policy.command("show")
def show() -> None:
    """Show the policy of the workspace."""
    with named_server() as server:
        _print(server.get("/api/v1/policy") if server else _chosen().model_dump(mode="json"))


@policy.command("set")
def set_(
    who_installs: Annotated[str | None, typer.Option(help=tr("members or administrators."))] = None,
    approve_capability: Annotated[
        list[str] | None,
        typer.Option(help=tr("A capability that an administrator must approve; may be given again; none: no one.")),
    ] = None,
    approve_source: Annotated[
        list[str] | None,
        typer.Option(help=tr("A source that an administrator must approve, such as local; none: no one.")),
    ] = None,
    approve_risk: Annotated[
        str | None,
        typer.Option(help=tr("The lowest risk that an administrator must approve: info, warning, danger or none.")),
    ] = None,
    upgrades: Annotated[
        str | None,
        typer.Option(help=tr("What upgrades by itself, if it asks for nothing new: nothing, patches or all.")),
    ] = None,
) -> None:
    """Change the policy of the workspace; what is left out stays. What is installed stays, too."""
    given: dict[str, Any] = {
        "who_installs": who_installs,
        "approve_capabilities": _listed(approve_capability),
        "approve_sources": _listed(approve_source),
        "approve_risk": approve_risk,
        "upgrades": upgrades,
    }
    changed = {field: value for field, value in given.items() if value is not None}
    if approve_risk == _NONE:
        changed["approve_risk"] = None
    with named_server() as server:
        if server:
            _print(server.send("PUT", "/api/v1/policy", **{**server.get("/api/v1/policy"), **changed}))
        else:
            _print(_choose(changed))


@policy.command("requests")
def requests_() -> None:
    """List the installs that wait for an administrator's approval."""
    with named_server() as server:
        found = server.items("/api/v1/installation-requests") if server else _waiting()
    if options().json:
        emit_json({"requests": found})
    elif not found:
        say(tr("No install waits for approval."))
    else:
        rows: list[tuple[str, ...]] = [
            (
                each["id"],
                f"{each['app']} {each['version']}",
                each["user"],
                local_time(each["requested_at"]),
                each["reason"],
            )
            for each in found
        ]
        say_table(rows, (tr("id"), tr("app"), tr("user"), tr("when"), tr("why")))


@policy.command("approve")
def approve(request: Request) -> None:
    """Install what a request asks for, exactly as its user agreed to it."""
    with named_server() as server:
        path = f"/api/v1/installation-requests/{segment(request)}/approval"
        items = server.send("POST", path)["items"] if server else _approved(request)
    if options().json:
        emit_json({"items": items})
        return
    for each in items:
        say(
            tr(
                "{app} {version} is approved: {outcome}.",
                app=each["app"],
                version=each["version"],
                outcome=each["outcome"],
            )
        )


@policy.command("refuse")
def refuse(request: Request) -> None:
    """Refuse a request; nothing is installed."""
    with named_server() as server:
        if server:
            server.delete(f"/api/v1/installation-requests/{segment(request)}")
        else:
            _refuse(request)
    if options().json:
        emit_json({"id": request})
    else:
        say(tr("The request is refused."))


def _listed(given: list[str] | None) -> list[str] | None:
    return [] if given == [_NONE] else given


def _print(chosen: dict[str, Any]) -> None:
    if options().json:
        emit_json(chosen)
        return
    everyone = chosen["who_installs"] == "members"
    say(tr("Members may install apps.") if everyone else tr("Only administrators may install apps."))
    needed = [*chosen["approve_capabilities"], *chosen["approve_sources"]]
    if chosen["approve_risk"]:
        needed.append(tr("risks from {level}", level=chosen["approve_risk"]))
    if needed:
        say(tr("An administrator must approve: {needed}.", needed=", ".join(needed)))
    else:
        say(tr("Nothing needs an administrator's approval."))
    said = {
        "nothing": tr("Nothing upgrades by itself."),
        "patches": tr("Patches that ask for nothing new upgrade by themselves."),
        "all": tr("Releases that ask for nothing new upgrade by themselves."),
    }
    say(said[chosen["upgrades"]])


def _chosen() -> Policy:
    from llmasos.installs.policy import policy_of

    with opened_database() as database, database.read() as session:
        return policy_of(session, WORKSPACE)


def _choose(changed: dict[str, Any]) -> dict[str, Any]:
    from pydantic import ValidationError

    from llmasos.installs.policy import Policy, policy_of, set_policy
    from llmasos.kernel.invocation import Principal

    with opened_database() as database, database.write() as session:
        try:
            wanted = Policy.model_validate({**policy_of(session, WORKSPACE).model_dump(mode="json"), **changed})
        except ValidationError as error:
            fault = error.errors()[0]
            raise Invalid(_("{where}: {what}", where=str(fault["loc"][0]), what=misfit(fault))) from error
        set_policy(session, Principal(), wanted)
    return wanted.model_dump(mode="json")


def _waiting() -> list[dict[str, Any]]:
    from llmasos.i18n import from_text, render
    from llmasos.installs import requests

    with opened_database() as database, database.read() as session:
        return [
            {
                "id": row.id,
                "app": row.app_id,
                "version": row.version,
                "upgrade": row.upgrade,
                "user": row.user_id,
                "reason": render(from_text(row.reason), locale()),
                "requested_at": row.requested_at.isoformat(),
            }
            for row in requests.waiting(session, WORKSPACE)
        ]


def _approved(request: str) -> list[dict[str, Any]]:
    from llmasos_server.local import open_local

    with open_local() as local:

        async def carry_out() -> list[dict[str, Any]]:
            async with local.running():
                results = await local.installer.approve(local.principal, request)
            return [{"app": it.app_id, "version": it.version, "outcome": it.outcome} for it in results]

        return asyncio.run(carry_out())


def _refuse(request: str) -> None:
    from llmasos_server.local import open_local

    with open_local() as local:
        local.installer.refuse(local.principal, request)
