"""`quickstart`: from nothing to two apps that ran on real input. The second time it only runs them."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import typer

from llmasos.errors import Unavailable
from llmasos.home import make_private_folder
from llmasos.i18n import _, listing
from llmasos.printable import one_line
from llmasos_server.cli.fetching import fetching
from llmasos_server.cli.output import emit_json, is_interactive, note, options, say, say_part, tr
from llmasos_server.cli.reader import stopping_with_the_reader

if TYPE_CHECKING:
    from llmasos.host import Host
    from llmasos.invocations.result import InvocationResult
    from llmasos.kernel.invocation import Event
    from llmasos.settings import Settings
    from llmasos_marketplace.publishing.first_party import FirstPartyApp
    from llmasos_marketplace.publishing.seeding import Seeded
    from llmasos_server.local import Local

INSTALLED: Final = ("llmasos/triage", "llmasos/storyteller")


@dataclass(frozen=True, slots=True)
class Try:
    """One run that shows what an app does."""

    app: str
    action: str
    value: dict[str, str]
    streamed: bool = False


TRIES: Final = (
    Try(
        "llmasos/triage",
        "classify",
        {"message": "My card was charged twice and I need the money back today"},
    ),
    Try(
        "llmasos/storyteller", "tell", {"premise": "a lighthouse keeper who finds a message in a bottle"}, streamed=True
    ),
)
# Stories of 45 words: with the embedded model on one core, that is two seconds.
CONFIG: Final = {"llmasos/storyteller": {"words": 45}}
_THIS: Final = {
    "run": _("a run"),
    "minute": _("this minute"),
    "hour": _("this hour"),
    "day": _("today"),
    "month": _("this month"),
}


def quickstart() -> None:
    """Set up the home, install two apps with what they may do shown, run them on real text, and say what to try."""
    from llmasos.bytecode import keep_in
    from llmasos.home import default_home

    # First, so that what is imported for this run is at hand for the next. Whoever needs the home says what is wrong.
    home = default_home()
    with suppress(OSError):
        make_private_folder(home)
    keep_in(home)
    from llmasos.database.schema import ensure_schema
    from llmasos.settings import Settings

    settings = Settings()
    ensure_schema(settings.resolved_database_url, settings.home)
    _fetch_model(settings)
    runs = asyncio.run(_prepare_and_run(settings))
    if options().json:
        emit_json({"installed": list(INSTALLED), "runs": runs, "home": str(settings.home)})
    else:
        _say_next(settings.home)
        _offer_pages()


def _fetch_model(settings: Settings) -> None:
    from llmasos.gateway.embedded.weights import SMOLLM2_WEIGHTS, fetch

    models = settings.home / "models"
    if SMOLLM2_WEIGHTS.is_present(models):
        return
    with fetching(tr("Fetching the embedded model")) as told:
        fetch(SMOLLM2_WEIGHTS, models, told)


async def _prepare(local: Local) -> None:
    """Seed the catalog, and install what is not installed."""
    from llmasos_marketplace.publishing.first_party import first_party_apps, first_party_folder

    apps = await asyncio.to_thread(first_party_apps, first_party_folder())
    await _seed(local, apps)
    for app_id in INSTALLED:
        await _install(local, app_id)


async def _seed(local: Local, apps: list[FirstPartyApp]) -> None:
    from llmasos.authoring.build import build
    from llmasos_marketplace.publishing.seeding import Seeding

    async def make(app: Path, out: Path) -> Path:
        return await build(app, out, describe=local.describe)

    def done(seeded: Seeded) -> None:
        if options().json or seeded.outcome == "unchanged":
            return
        if seeded.outcome == "skipped":
            note(tr("  skipped {app}: {detail}", app=seeded.app_id, detail=seeded.detail))
        else:
            note(tr("  published {app}", app=seeded.app_id))

    seeding = Seeding(local.settings.home, local.catalog, local.publishing, make)
    if not options().json and not seeding.is_done(apps):
        note(tr("Publishing the apps that come with LLMasOS to your catalog …"))
    results = await seeding.seed(apps, done)
    for seeded in results:
        if seeded.app_id in INSTALLED and not local.catalog.releases(seeded.app_id):
            raise Unavailable(
                _("{app} could not be built: {detail}", app=seeded.app_id, detail=seeded.detail),
            )


async def _install(local: Local, app_id: str) -> None:
    from llmasos.installs.resolve import Requirement
    from llmasos.installs.service import ConsentAnswers
    from llmasos_server.cli.asking import show_request
    from llmasos_server.cli.store import note_failure

    plan = local.installer.plan_install(local.principal.workspace, Requirement(app_id))
    if plan.steps and not options().json:
        for step in plan.steps:
            show_request(step.request)
        note(tr("Installing it for you; take rights back with: llmasos grants revoke {app} …", app=app_id))
    answers = ConsentAnswers(agreed=True, config={app_id: CONFIG[app_id]} if app_id in CONFIG and plan.steps else {})
    for result in await local.installer.carry_out(plan, answers, local.principal.user):
        note_failure(result)


async def _prepare_and_run(settings: Settings) -> list[dict[str, Any]]:
    from llmasos.host import Host

    runs: list[dict[str, Any]] = []
    async with Host.open(settings) as host:
        # The model's engine loads, and litellm is imported, while the rest is made ready.
        host.warm()
        from llmasos_server.local import Local, confinement_of

        await _prepare(Local.of(host))
        for each in TRIES:
            runs.append(await _try(host, each))
        if not options().json:
            await asyncio.to_thread(_say_quota, host)
            _say_confinement(confinement_of(host))
    return runs


async def _try(host: Host, each: Try) -> dict[str, Any]:
    from llmasos.kernel.invocation import Principal
    from llmasos_server.cli.output import locale

    quiet = options().json
    if not quiet:
        words = " ".join(f"-p {key}={value!r}" for key, value in each.value.items())
        say(f"\n$ llmasos run {each.app} {each.action} {words}")

    def show(event: Event) -> None:
        if not quiet and event.kind == "chunk":
            say_part(event.text)

    async with stopping_with_the_reader(show) as events:
        result = await host.actions.run(Principal(locale=locale()), each.app, each.action, each.value, events)
    if not quiet:
        _say_result(result, streamed=each.streamed)
    usage = result.usage
    return {
        "app": each.app,
        "action": each.action,
        "output": result.output,
        "model": result.model,
        "usage": {"prompt_tokens": usage.prompt_tokens, "completion_tokens": usage.completion_tokens},
        "duration_ms": usage.duration_ms,
        "fuel": usage.fuel,
        "memory_bytes": usage.memory_bytes,
    }


def _say_result(result: InvocationResult, *, streamed: bool) -> None:
    import json

    say("" if streamed else json.dumps(result.output, ensure_ascii=False, indent=2))
    usage = result.usage
    tokens = usage.prompt_tokens + usage.completion_tokens
    mebibytes = usage.memory_bytes / (1 << 20)
    say(
        tr(
            "[{model}: {tokens} tokens, {duration_ms:.1f} s, {mebibytes:.0f} MiB in the sandbox]",
            model=result.model,
            tokens=tokens,
            duration_ms=usage.duration_ms / 1000,
            mebibytes=mebibytes,
        )
    )
    for text in result.notices:
        note(one_line(text))


def _say_quota(host: Host) -> None:
    from sqlmodel import select

    from llmasos.quotas.tables import LedgerWindow, Quota

    say()
    with host.database.read() as session:
        rows = session.exec(select(Quota, LedgerWindow).where(Quota.id == LedgerWindow.quota_id)).all()
        newest = {quota.id: (quota, window) for quota, window in sorted(rows, key=lambda row: row[1].starts_at)}
        for quota, window in newest.values():
            if quota.scope_id in INSTALLED:
                say(
                    tr(
                        "{app}: {used:,} of {limit:,} {meter} {when}",
                        app=quota.scope_id,
                        used=window.used,
                        limit=window.limit,
                        meter=quota.meter,
                        when=_THIS[quota.window],
                    )
                )


# What each mechanism that confines a runner means to a person who runs an app, by the beginning of its name.
_MECHANISMS: Final = (
    (("landlock", "private root", "mount"), _("it can open none of your files")),
    (("net",), _("it reaches no network")),
    (("seccomp",), _("it can ask little of the system")),
    (("limits",), _("its memory and computing time are capped")),
    (("no_new_privs", "no capabilities", "own user"), _("it has no rights beyond these")),
)


def _say_confinement(mechanisms: tuple[str, ...]) -> None:
    say()
    say(
        tr(
            "How these apps were isolated: each ran in its own sandbox (WebAssembly), in which there are no "
            "files, no network and no settings of yours. It reached only what you allowed it."
        )
    )
    told = [said for names, said in _MECHANISMS if any(each.startswith(names) for each in mechanisms)]
    if told:
        names = listing(mechanisms)
        say(
            tr(
                "If one escaped from its sandbox, the system would still confine it: {told} ({names}).",
                told=listing(told, "; "),
                names=names,
            )
        )
    else:
        say(tr("This system adds no confinement of its own; `llmasos doctor` says what is missing."))


def _say_next(home: Path) -> None:
    say()
    say(tr("Everything is in {home}. Try next:", home=home))
    for line in (
        "llmasos serve",
        "llmasos run llmasos/storyteller tell -p premise='a dragon who is afraid of heights'",
        "llmasos search",
        "llmasos show llmasos/tutor",
        "llmasos usage",
        "llmasos quota set --app llmasos/triage --meter tokens --window day --limit 5000",
        "llmasos new hello",
    ):
        say(f"  {line}")


def _offer_pages() -> None:
    """Go on in the browser, if there is one and somebody says yes."""
    from llmasos_server.cli.browsers import has_browser
    from llmasos_server.cli.serve import serve

    if is_interactive() and has_browser() and typer.confirm(tr("Open the pages in your browser now?"), err=True):
        serve(browser=True)
