"""`install`, `upgrade`, `rollback`, `uninstall`, `grants`, `publish`, `yank`, `unyank`: what changes the store."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmasos.errors import ConsentNeeded, Invalid
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
    from llmasos_marketplace.publishing.service import Publication
    from llmasos_server.local import Local

App = Annotated[str, typer.Argument(help=tr("publisher/name.", "publisher/name。"))]
Yes = Annotated[
    bool,
    typer.Option(
        "--yes", "-y", help=tr("Agree to what it asks for, without being asked.", "不再询问，直接同意其请求的权限。")
    ),
]
Config = Annotated[
    list[str] | None,
    typer.Option(
        "--config",
        "-c",
        help=tr("key=value of the app's form; may be given several times.", "应用配置项 key=value；可多次给出。"),
    ),
]
Decline = Annotated[
    list[str] | None,
    typer.Option(
        "--decline",
        help=tr("An optional capability to leave out; may be given several times.", "不授予的可选能力；可多次给出。"),
    ),
]


def install(
    app: Annotated[
        str,
        typer.Argument(
            help=tr(
                "publisher/name, with @1.2.0 or a specifier such as '>=1,<2'.",
                "publisher/name，可加 @1.2.0 或版本范围，例如 '>=1,<2'。",
            )
        ),
    ],
    yes: Yes = False,
    config: Config = None,
    decline: Decline = None,
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
        results = _carry_out(local, plan, yes=yes, decline=decline or [], config=values)
        if values and results[-1].outcome in ("already", "restored", "granted"):
            me = local.principal
            results[-1] = local.installer.configure(me.workspace, wanted.app_id, values, me.user)
        _report(results)


def upgrade(
    app: Annotated[
        str | None, typer.Argument(help=tr("publisher/name; none: every app.", "publisher/name；不填表示所有应用。"))
    ] = None,
    yes: Yes = False,
    config: Config = None,
    decline: Decline = None,
) -> None:
    """Upgrade an app. One that asks for more waits for your consent, and the old release goes on running."""
    from llmasos.installs import repository
    from llmasos.installs.resolve import parse_requirement
    from llmasos_server.cli.asking import parse_config
    from llmasos_server.local import open_local

    values = parse_config(config or [])
    with open_local() as local:
        apps = [app]
        if app is None:
            with local.database.read() as session:
                apps = [found.app_id for found, _ in repository.all_current(session, local.principal.workspace)]
        results: list[InstallResult] = []
        for each in apps:
            plan = local.installer.plan_upgrade(local.principal.workspace, parse_requirement(each or ""))
            results += _carry_out(local, plan, yes=yes, decline=decline or [], config=values)
        _report(results)


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
        raise ConsentNeeded(
            f"{plan.app_id} was not changed: you did not agree.", zh=f"未更改 {plan.app_id}：你没有同意。"
        )
    agreed = answers

    async def carry_out() -> list[InstallResult]:
        async with local.running():
            return await local.installer.carry_out(plan, agreed, local.principal.user)

    with working(f"Preparing {plan.app_id} {plan.version} …", f"正在准备 {plan.app_id} {plan.version} …"):
        return asyncio.run(carry_out())


def _report(results: list[InstallResult]) -> None:
    for each in results:
        note_failure(each)
    if options().json:
        items = [{"app": each.app_id, "version": each.version, "outcome": each.outcome} for each in results]
        emit_json({"items": [{**item, **_problem(each)} for item, each in zip(items, results, strict=True)]})
        return
    for each in results:
        said = {
            "installed": tr("is installed", "已安装"),
            "upgraded": tr("is the release that runs now", "现为运行版本"),
            "waiting": tr("waits for your consent: llmasos upgrade", "等待你的同意：llmasos upgrade"),
            "granted": tr("has its permissions again", "已重新获得权限"),
            "configured": tr("is set as you said", "已按你的设置更新"),
            "restored": tr("is ready to run again", "已重新准备好，可以运行"),
            "already": tr("was there already", "此前已安装"),
            "rolled-back": tr("runs again", "已恢复运行"),
            "revoked": tr("may do less", "权限已减少"),
            "uninstalled": tr("is uninstalled", "已卸载"),
        }[each.outcome]
        say(f"{each.app_id} {each.version} {said}")
    if not results:
        say(tr("Nothing is installed.", "尚未安装任何应用。"))


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

        with working(f"Rolling {app} back …", f"正在回退 {app} …"):
            result = asyncio.run(back())
        _report([result])


def uninstall(
    app: App,
    delete_data: Annotated[
        bool | None,
        typer.Option(
            "--delete-data/--keep-data",
            help=tr("What becomes of what it stored for you.", "删除或保留应用为你保存的数据。"),
        ),
    ] = None,
) -> None:
    """Remove an app. You decide whether what it stored is kept or deleted."""
    from llmasos.installs import repository
    from llmasos.installs.plan import require_current
    from llmasos_server.cli.asking import ask, working
    from llmasos_server.local import open_local

    with open_local() as local:
        workspace = local.principal.workspace
        with local.database.read() as session:
            require_current(session, workspace, app)
            stored = repository.count_stored_values(session, workspace, app)
        if delete_data is None and stored:
            if not is_interactive():
                raise Invalid(
                    f"{app} stored {stored} values: say --keep-data or --delete-data.",
                    zh=f"{app} 保存了 {stored} 条数据：请指定 --keep-data 或 --delete-data。",
                )
            delete_data = ask(
                tr(f"Delete the {stored} values that {app} stored, too?", f"同时删除 {app} 保存的 {stored} 条数据吗？")
            )

        async def remove() -> InstallResult:
            async with local.running():
                return await local.installer.uninstall(
                    workspace, app, local.principal.user, delete_data=bool(delete_data)
                )

        with working(f"Uninstalling {app} …", f"正在卸载 {app} …"):
            result = asyncio.run(remove())
        _report([result])


grants = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


@grants.callback()
def _grants() -> None:
    """What you allowed your apps."""


@grants.command("show")
def grants_show(
    app: Annotated[
        str | None, typer.Argument(help=tr("publisher/name; none: every app.", "publisher/name；不填表示所有应用。"))
    ] = None,
) -> None:
    """Show what was granted to an app, or to all."""
    from llmasos_server.cli.reading import show_grants

    show_grants(app)


@grants.command("revoke")
def grants_revoke(
    app: App, capability: Annotated[str, typer.Argument(help=tr("Such as http.", "例如 http。"))]
) -> None:
    """Take a capability from an app, at once. `llmasos install` asks for it again."""
    from llmasos_server.local import open_local

    with open_local() as local:

        async def revoke() -> InstallResult:
            async with local.running():
                return await local.installer.revoke(local.principal.workspace, app, capability, local.principal.user)

        result = asyncio.run(revoke())
    note_failure(result)
    if options().json:
        emit_json({"app": app, "capability": capability, "revoked": True, **_problem(result)})
    else:
        say(tr(f"{app} may no longer use {capability}.", f"{app} 不能再使用 {capability}。"))


def publish(
    path: Annotated[
        Path, typer.Argument(help=tr("An app's folder, or a bundle.", "应用所在的目录，或应用包。"))
    ] = Path(),
) -> None:
    """Publish an app to the local catalog, after its bundle and its binary were checked."""
    from llmasos_server.cli.asking import working
    from llmasos_server.local import open_local

    with open_local() as local:

        async def go() -> Publication:
            async with local.running():
                bundle = await _bundle(local, path)
                return await local.publishing.publish(bundle, by=local.principal.user)

        with working("Building and checking …", "正在构建与检查 …"):
            done = asyncio.run(go())
    _say_publication(done)


async def _bundle(local: Local, path: Path) -> Path:
    if path.suffix == ".llmapp":
        return path
    from llmasos.authoring.build import build

    return await build(path, describe=local.describe)


def _say_publication(done: Publication) -> None:
    from llmasos.installs.wording import describe_risk

    report = done.report
    if options().json:
        emit_json(
            {
                "app": done.app_id,
                "version": done.version,
                "digest": done.digest,
                "state": done.state,
                "state_reason": done.state_reason,
                "changed": done.changed,
                "checks": [
                    {"name": check.name, "result": check.result, "detail": check.detail}
                    for check in (report.checks if report else ())
                ],
                "risks": [
                    {"code": risk.code, "level": risk.level, "text": describe_risk(risk, "en")}
                    for risk in (report.risks if report else ())
                ],
            }
        )
        return
    if not done.changed:
        say(tr(f"{done.app_id} {done.version} was there already.", f"{done.app_id} {done.version} 此前已发布。"))
        return
    if done.state == "quarantined":
        reason_zh = report.reason("zh") if report else done.state_reason
        note(tr(f"Quarantined: {done.state_reason}", f"已隔离：{reason_zh}"))
    for risk in report.risks if report else ():
        if risk.level != "info":
            note(f"{tr('Risk', '风险')}: {describe_risk(risk, locale())}")
    say(
        tr(
            f"{done.app_id} {done.version} is published. Install it: llmasos install {done.app_id}",
            f"{done.app_id} {done.version} 已发布。安装：llmasos install {done.app_id}",
        )
    )


Release = Annotated[str, typer.Argument(help=tr("publisher/name@version.", "publisher/name@version。"))]


def yank(
    release: Release,
    reason: Annotated[str, typer.Option(help=tr("Shown beside the release.", "显示在该版本旁的说明。"))] = "",
) -> None:
    """Keep new installs from a release. Where it is installed or locked, it stays."""
    _move(release, reason, yanked=True)


def unyank(release: Release) -> None:
    """Offer a yanked release again."""
    _move(release, "", yanked=False)


def _move(release: str, reason: str, *, yanked: bool) -> None:
    from llmasos_server.local import open_local

    app_id, at, version = release.partition("@")
    if not at or not version:
        raise Invalid(
            f"{release!r} names no release: write {app_id}@1.0.0.",
            zh=f"{release!r} 没有写明版本：请写成 {app_id}@1.0.0。",
        )
    with open_local() as local:
        catalog = local.catalog
        changed = catalog.yank(app_id, version, reason) if yanked else catalog.unyank(app_id, version)
    state = "yanked" if yanked else "available"
    if options().json:
        emit_json({"app": app_id, "version": version, "state": state, "changed": changed})
    else:
        words = tr("is yanked", "已撤下") if yanked else tr("is offered again", "已恢复")
        say(f"{app_id} {version} {words}")
