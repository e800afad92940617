"""`install`, `upgrade`, `rollback`, `uninstall`, `grants`: commands that change installations."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import nullcontext
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmasos.errors import ConsentNeeded, Invalid, LlmasosError
from llmasos.i18n import _, ngettext, render
from llmasos_server.cli.completion import catalog_apps, installed_apps
from llmasos_server.cli.output import (
    emit_json,
    is_interactive,
    locale,
    message_of,
    note,
    options,
    problem_of,
    say,
    tr,
)

if TYPE_CHECKING:
    from llmasos.installs.plan import InstallPlan
    from llmasos.installs.service import ConsentAnswers, InstallResult
    from llmasos_server.local import Local

App = Annotated[str, typer.Argument(autocompletion=installed_apps, help=tr("publisher/name."))]
AnyApp = Annotated[
    str | None, typer.Argument(autocompletion=installed_apps, help=tr("publisher/name; none: every app."))
]
Yes = Annotated[
    bool,
    typer.Option("--yes", "-y", help=tr("Agree to what it asks for, without being asked.")),
]
Config = Annotated[
    list[str] | None,
    typer.Option(
        "--config",
        "-c",
        help=tr("key=value of the app's form; may be given several times."),
    ),
]
Decline = Annotated[
    list[str] | None,
    typer.Option(
        "--decline",
        help=tr("An optional capability to leave out; may be given several times."),
    ),
]

DryRun = Annotated[bool, typer.Option("--dry-run", help=tr("Show what would be done and asked for; change nothing."))]


def install(
    app: Annotated[
        str,
        typer.Argument(
            autocompletion=catalog_apps, help=tr("publisher/name, with @1.2.0 or a specifier such as '>=1,<2'.")
        ),
    ],
    yes: Yes = False,
    config: Config = None,
    decline: Decline = None,
    dry_run: DryRun = False,
) -> None:
    """Install an app, with what it depends on, after you agreed to what it may do; or set an installed one by -c."""
    from llmasos.installs.resolve import parse_requirement
    from llmasos_server.cli.asking import parse_config
    from llmasos_server.local import open_local

    values = parse_config(config or [])
    with open_local() as local:
        wanted = parse_requirement(app)
        local.catalog.app(wanted.app_id)
        plan = local.installer.plan_install(local.principal.workspace, wanted)
        if dry_run:
            _show_plans([plan])
            return
        results = _carry_out(local, plan, yes=yes, decline=decline or [], config=values)
        if values and results[-1].outcome in ("already", "restored", "granted"):
            me = local.principal
            results[-1] = local.installer.configure(me.workspace, wanted.app_id, values, me.user)
        _report(results)
        _ask_for_secrets(local, results)


def upgrade(
    app: Annotated[
        str | None, typer.Argument(autocompletion=installed_apps, help=tr("publisher/name; none: every app."))
    ] = None,
    yes: Yes = False,
    config: Config = None,
    decline: Decline = None,
    dry_run: DryRun = False,
) -> None:
    """Upgrade an app. A release that asks for more waits for your consent, and the old one keeps running."""
    from llmasos.installs import repository
    from llmasos.installs.resolve import Requirement, parse_requirement
    from llmasos_server.cli.asking import parse_config
    from llmasos_server.local import open_local

    values = parse_config(config or [])
    if app is None and (values or decline):
        raise Invalid(_("-c and --decline are for one app: name it."))
    with open_local() as local:
        with local.database.read() as session:
            installed = [found.app_id for found, __ in repository.all_current(session, local.principal.workspace)]
        results: list[InstallResult] = []
        plans: list[InstallPlan] = []
        failures: dict[str, LlmasosError] = {}
        for wanted in [parse_requirement(app)] if app else map(Requirement, installed):
            try:
                plan = local.installer.plan_upgrade(local.principal.workspace, wanted)
                plans.append(plan)
                if dry_run:
                    continue
                results += _carry_out(local, plan, yes=yes, decline=decline or [], config=values)
            except LlmasosError as error:
                if app is not None:
                    raise
                failures[wanted.app_id] = error  # the others are upgraded all the same
        if dry_run:
            _show_plans(plans, failures)
            return
        if app is None:
            results = [each for each in results if each.outcome != "already"]
        _report(results, failures, nothing=_nothing_to_upgrade(installed))
        _ask_for_secrets(local, [each for each in results if each.outcome != "waiting"])
    if failures:
        raise typer.Exit(next(iter(failures.values())).exit_code)
    if any(each.outcome == "waiting" for each in results):
        raise typer.Exit(ConsentNeeded.exit_code)


def _show_plans(plans: list[InstallPlan], failures: Mapping[str, LlmasosError] = MappingProxyType({})) -> None:
    """Print what plans would do and ask for."""
    from llmasos.installs.schemas import plan_document
    from llmasos_server.cli.asking import show_request

    if options().json:
        items = [step for plan in plans for step in plan_document(plan, locale())]
        failed = [{"app": app, "change": "failed", "problem": problem_of(error)} for app, error in failures.items()]
        emit_json({"items": [*items, *failed]})
        return
    steps = [step for plan in plans for step in plan.steps]
    for step in steps:
        version = step.bundle.manifest.version
        say(f"{step.kind} {step.app_id} {version}")
        if step.request.is_needed:
            show_request(step.request)
    for app, error in failures.items():
        note(tr("{app} was not upgraded: {message_of}", app=app, message_of=message_of(error)))
    if not steps:
        say(tr("Nothing would change."))


def _nothing_to_upgrade(installed: list[str]) -> str:
    if not installed:
        return tr("Nothing is installed.")
    return tr("Every app is the newest release that fits.")


def _ask_for_secrets(local: Local, results: list[InstallResult]) -> None:
    from llmasos_server.cli.app_secrets import ask_for_secrets

    for each in results:
        ask_for_secrets(local, each.app_id)


def _carry_out(
    local: Local, plan: InstallPlan, *, yes: bool, decline: list[str], config: dict[str, Any]
) -> list[InstallResult]:
    from llmasos.installs.service import ConsentAnswers
    from llmasos_server.cli.asking import decide, working

    answers: ConsentAnswers | None
    try:
        answers = decide(plan, yes=yes, decline=decline, config=config)
    except ConsentNeeded:
        if not any(step.kind == "upgrade" for step in plan.steps):
            raise
        # Nobody can be asked: the new release waits beside the one that runs.
        answers = ConsentAnswers(agreed=False)
    if answers is None:
        raise ConsentNeeded(_("{app} was not changed: you did not agree.", app=plan.app_id))
    agreed = answers

    async def carry_out() -> list[InstallResult]:
        async with local.running():
            return await local.installer.carry_out(plan, agreed, local.principal.user)

    said = working(_("Preparing {app} {version} …", app=plan.app_id, version=plan.version))
    with said if plan.steps else nullcontext():
        return asyncio.run(carry_out())


def _report(
    results: list[InstallResult], failures: Mapping[str, LlmasosError] = MappingProxyType({}), nothing: str = ""
) -> None:
    for each in results:
        note_failure(each)
        note_reset(each)
    if options().json:
        items = [_item(each) for each in results]
        failed = [{"app": app, "outcome": "failed", "problem": problem_of(error)} for app, error in failures.items()]
        emit_json({"items": [*items, *failed]})
        return
    for each in results:
        said = {
            "installed": tr("is installed"),
            "upgraded": tr("is the current release now"),
            "waiting": tr("asks for more and waits for your consent: llmasos upgrade {app}", app=each.app_id),
            "granted": tr("has its permissions again"),
            "configured": tr("has your settings"),
            "restored": tr("is ready to run again"),
            "already": tr("was installed already"),
            "rolled-back": tr("is the current release again"),
            "revoked": tr("may do less"),
            "uninstalled": tr("is uninstalled"),
        }[each.outcome]
        say(f"{each.app_id} {each.version} {said}")
    for app, error in failures.items():
        note(tr("{app} was not upgraded: {message_of}", app=app, message_of=message_of(error)))
    if not results and not failures:
        say(nothing)


def _item(result: InstallResult) -> dict[str, object]:
    item: dict[str, object] = {"app": result.app_id, "version": result.version, "outcome": result.outcome}
    if result.reset_settings:
        item["reset_settings"] = list(result.reset_settings)
    return item | _problem(result)


def note_reset(result: InstallResult) -> None:
    """Say which settings the new release does not take as they were chosen."""
    if result.reset_settings and not options().json:
        names = ", ".join(result.reset_settings)
        note(
            tr(
                "{app} {version} does not take your choice of {names}, which has its default now: set it "
                "with llmasos install {app} -c {reset_settings}=…",
                app=result.app_id,
                version=result.version,
                names=names,
                reset_settings=result.reset_settings[0],
            )
        )


def note_failure(result: InstallResult) -> None:
    """Say how the app's own hook failed, if it did; what was done stands."""
    if result.failure is not None and not options().json:
        note(message_of(result.failure))


def _problem(result: InstallResult) -> dict[str, object]:
    return {"problem": problem_of(result.failure)} if result.failure is not None else {}


def rollback(app: App) -> None:
    """Return to the release that ran before, with the grants that it had."""
    from llmasos_server.cli.asking import working
    from llmasos_server.local import open_local

    with open_local() as local:

        async def back() -> InstallResult:
            async with local.running():
                return await local.installer.rollback(local.principal.workspace, app, local.principal.user)

        with working(_("Rolling {app} back …", app=app)):
            result = asyncio.run(back())
        _report([result])


def uninstall(
    app: App,
    delete_data: Annotated[
        bool | None,
        typer.Option(
            "--delete-data/--keep-data",
            help=tr("What becomes of what it stored for you."),
        ),
    ] = None,
) -> None:
    """Remove an app. You decide whether what it stored is kept or deleted."""
    from llmasos.installs import repository
    from llmasos_server.cli.asking import ask, working
    from llmasos_server.local import open_local

    with open_local() as local:
        workspace = local.principal.workspace
        with local.database.read() as session:
            repository.require_current(session, workspace, app)
            stored = repository.count_stored_values(session, workspace, app)
        if delete_data is None and stored:
            if not is_interactive():
                raise Invalid(
                    ngettext(
                        "{app} stored {count} value: say --keep-data or --delete-data.",
                        "{app} stored {count} values: say --keep-data or --delete-data.",
                        app=app,
                        count=stored,
                    ),
                )
            delete_data = ask(
                render(
                    ngettext(
                        "Delete the {count} value that {app} stored, too?",
                        "Delete the {count} values that {app} stored, too?",
                        app=app,
                        count=stored,
                    ),
                    locale(),
                )
            )

        async def remove() -> InstallResult:
            async with local.running():
                return await local.installer.uninstall(
                    workspace, app, local.principal.user, delete_data=bool(delete_data)
                )

        with working(_("Uninstalling {app} …", app=app)):
            result = asyncio.run(remove())
        _report([result])


grants = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


@grants.callback()
def _grants() -> None:
    """What you allowed your apps."""


@grants.command("show")
def grants_show(
    app: Annotated[
        str | None, typer.Argument(autocompletion=installed_apps, help=tr("publisher/name; none: every app."))
    ] = None,
) -> None:
    """Show what was granted to an app, or to all."""
    from llmasos_server.cli.reading import show_grants

    show_grants(app)


@grants.command("revoke")
def grants_revoke(
    app: App,
    capability: Annotated[str, typer.Argument(help=tr("Such as http."))],
    host: Annotated[
        str | None, typer.Option(help=tr("Only this host out of a grant of http, as `grants show` writes it."))
    ] = None,
) -> None:
    """Take a capability from an app, at once, or one host. `llmasos install` asks for it again."""
    from llmasos_server.local import open_local

    if host is not None and capability != "http":
        raise Invalid(_("Only a grant of http has hosts."))
    with open_local() as local:

        async def revoke() -> InstallResult:
            workspace, user = local.principal.workspace, local.principal.user
            async with local.running():
                if host is not None:
                    return await local.installer.revoke_host(workspace, app, host, user)
                return await local.installer.revoke(workspace, app, capability, user)

        result = asyncio.run(revoke())
    note_failure(result)
    if options().json:
        of = {"host": host} if host is not None else {}
        emit_json({"app": app, "capability": capability, **of, "revoked": True, **_problem(result)})
    elif host is not None:
        say(tr("{app} may no longer use {host}. To allow it again: llmasos install {app}", app=app, host=host))
    else:
        say(
            tr(
                "{app} may no longer use {capability}. To allow it again: llmasos install {app}",
                app=app,
                capability=capability,
            )
        )
