"""Shows a person what an app may do, in the terminal, and asks."""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console, Group
from rich.panel import Panel
from rich.text import Text

from llmasos.errors import ConsentNeeded, Invalid
from llmasos.i18n import Message, _, render
from llmasos.installs.consent import ConsentRequest, RequestedPermission
from llmasos.installs.plan import InstallPlan
from llmasos.installs.service import ConsentAnswers
from llmasos.installs.wording import describe, describe_limits, describe_risk
from llmasos.printable import one_line
from llmasos_server.cli.output import is_interactive, locale, note, options, prompt, tr

_STYLES = {"danger": "bold red", "warning": "yellow", "info": "dim"}


def console() -> Console:
    """The console for questions: stderr, so that stdout has only the result."""
    return Console(stderr=True, highlight=False)


def show_request(request: ConsentRequest) -> None:
    """Print what an app asks for: in words, with why, and what it adds up to."""
    manifest = request.manifest
    parts = [_text(manifest.summary.in_locale(locale())), Text(), Text(_heading(request), style="bold")]
    parts += [_line(each) for each in request.permissions] or [Text(tr("  do nothing outside itself"))]
    for permission in request.dropped:
        what = describe(permission, locale())
        parts.append(_text(tr("  no longer: {what}", what=what), style="dim"))
    limits = ", ".join(describe_limits(manifest.limits, locale()))
    parts += [Text(), Text(tr("Within: ") + limits, style="dim")]
    if request.raised_limits:
        raised = ", ".join(request.raised_limits)
        parts.append(Text(tr("These limits rise: {raised}", raised=raised), style="yellow"))
    for risk in request.risks:
        mark = {"danger": tr("DANGER"), "warning": tr("Careful"), "info": tr("Note")}[risk.level]
        parts.append(_text(f"{mark}: {describe_risk(risk, locale())}", style=_STYLES[risk.level]))
    title = _text(manifest.name.in_locale(locale()), style="bold")
    title.append(f"  {manifest.id} {manifest.version}", "not bold")
    style = {"danger": "red", "warning": "yellow"}.get(request.level or "", "blue")
    console().print(Panel(Group(*parts), title=title, title_align="left", border_style=style))


def _heading(request: ConsentRequest) -> str:
    before = request.from_version
    if before is None:
        return tr("It may:")
    if before == request.manifest.version:
        return tr("It asks again for what it was not granted:")
    return tr("Compared with {before}, it may:", before=before)


def _line(requested: RequestedPermission) -> Text:
    permission = requested.permission
    mark = {"new": tr("[new] "), "wider": tr("[more] ")}.get(requested.status, "")
    optional = tr(" (optional)") if permission.optional else ""
    text = _text(f"  • {mark}{describe(permission, locale())}{optional}", style="yellow" if mark else "")
    return text.append("\n      ").append_text(_text(permission.reason.in_locale(locale()), style="dim"))


def _text(foreign: str, style: str = "") -> Text:
    """A text of the app's as one line: its controls, its line feeds and its markup do nothing."""
    return Text(one_line(foreign), style=style)


def ask(question: str, *, default: bool = False) -> bool:
    """Ask yes or no on the terminal. Ctrl-C and the end of input say no to everything, by ending the command."""
    hint = "[Y/n]" if default else "[y/N]"
    while True:
        word = prompt(f"{question} {hint} ").lower()
        if not word:
            return default
        if word in ("y", "yes", tr("yes")):
            return True
        if word in ("n", "no", tr("no")):
            return False


def decide(plan: InstallPlan, *, yes: bool, decline: Sequence[str], config: Mapping[str, Any]) -> ConsentAnswers | None:
    """Show what every step of a plan asks for, and ask for consent; None if the person declines.

    Args:
        plan: What would be done.
        yes: Agree without asking, as somebody who read it elsewhere.
        decline: Optional capabilities to leave out.
        config: Values of the form of the app that was asked for.

    Raises:
        ConsentNeeded: Somebody must be asked, and there is no terminal.
    """
    declined = {step.app_id: frozenset(decline) & step.bundle.manifest.capabilities for step in plan.steps}
    unknown = set(decline) - {name for names in declined.values() for name in names}
    if unknown:
        raise Invalid(
            _("{app} does not ask for {unknown}: leave out --decline.", app=plan.app_id, unknown=sorted(unknown)),
        )
    answers = ConsentAnswers(agreed=True, declined=declined, config={plan.app_id: dict(config)} if config else {})
    if not options().json:
        for step in plan.steps:
            if step.request.is_needed:
                show_request(step.request)
    if yes or not plan.needs_consent:
        return answers
    if not is_interactive():
        raise ConsentNeeded(
            _(
                "{app} asks for permissions and there is no terminal to ask on: read them with `llmasos install "
                "{app} --dry-run` and pass --yes.",
                app=plan.app_id,
            ),
        )
    if not ask(tr("Do you agree?")):
        return None
    for step in plan.steps:
        for each in step.request.optional:
            what = describe(each.permission, locale())
            question = tr("{what}: allow it too?", what=what)
            if each.capability not in declined[step.app_id] and not ask(question, default=True):
                declined[step.app_id] |= {each.capability}
    return answers


def parse_config(pairs: Sequence[str]) -> dict[str, Any]:
    """Parse `key=value` pairs. A value is JSON if it parses as JSON, and a text otherwise.

    Raises:
        Invalid: There is no `=`.
    """
    values: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise Invalid(_("{pair!r} is not key=value.", pair=pair))
        try:
            values[key] = json.loads(value)
        except ValueError:
            values[key] = value
    return values


@contextmanager
def working(said: Message) -> Generator[None]:
    """Say that something takes its time: a moving line on a terminal, one plain line elsewhere."""
    if options().json:
        yield
    elif not is_interactive():
        note(render(said, locale()))
        yield
    else:
        with console().status(Text(render(said, locale()))):
            yield
