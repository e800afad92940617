"""`publish`, `yank`, `unyank`: commands that change the catalog."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llmasos.errors import Invalid, LlmasosError
from llmasos.i18n import _, from_text, render
from llmasos_server.cli.output import emit_json, locale, note, options, say, tr

if TYPE_CHECKING:
    from llmasos_marketplace.publishing.service import Publication
    from llmasos_server.local import Local


def publish(
    path: Annotated[Path, typer.Argument(help=tr("An app's folder, or a bundle."))] = Path(),
) -> None:
    """Publish an app to the local catalog, after its bundle and its binary were checked."""
    from llmasos.installs.collection import collect
    from llmasos_server.cli.asking import working
    from llmasos_server.local import open_local

    with open_local() as local:

        async def go() -> Publication:
            async with local.running():
                bundle = await _bundle(local, path)
                return await local.publishing.publish(bundle, by=local.principal.user)

        try:
            with working(_("Building and checking …")):
                done = asyncio.run(go())
        finally:
            # Checking prepares a release, which may have been refused: what no installed one needs has a bound.
            with suppress(OSError, LlmasosError):
                collect(local.database, local.settings.home)
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
                "state_reason": render(from_text(done.state_reason), locale()),
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
        say(tr("{app} {version} was there already.", app=done.app_id, version=done.version))
        return
    if done.state == "quarantined":
        note(tr("Quarantined: {reason}", reason=from_text(done.state_reason)))
    for risk in report.risks if report else ():
        if risk.level != "info":
            note(f"{tr('Risk')}: {describe_risk(risk, locale())}")
    say(tr("{app} {version} is published. Install it: llmasos install {app}", app=done.app_id, version=done.version))


Release = Annotated[str, typer.Argument(help=tr("publisher/name@version."))]


def yank(
    release: Release,
    reason: Annotated[str, typer.Option(help=tr("Shown beside the release."))] = "",
) -> None:
    """Keep new installs from a release. It stays if it is installed or locked."""
    _move(release, reason, yanked=True)


def unyank(release: Release) -> None:
    """Offer a yanked release again."""
    _move(release, "", yanked=False)


def _move(release: str, reason: str, *, yanked: bool) -> None:
    from llmasos_server.local import open_local

    app_id, at, version = release.partition("@")
    if not at or not version:
        raise Invalid(
            _("{release!r} names no release: write {app}@1.0.0.", release=release, app=app_id),
        )
    with open_local() as local:
        catalog = local.catalog
        changed = catalog.yank(app_id, version, reason) if yanked else catalog.unyank(app_id, version)
    state = "yanked" if yanked else "available"
    if options().json:
        emit_json({"app": app_id, "version": version, "state": state, "changed": changed})
    else:
        words = tr("is yanked") if yanked else tr("is offered again")
        say(f"{app_id} {version} {words}")
