"""Shows a person what an app may do, in the terminal, and asks."""

from __future__ import annotations

import json
import sys
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console, Group
from rich.markup import escape
from rich.panel import Panel
from rich.text import Text

from llmasos.errors import ConsentNeeded, Invalid
from llmasos.installs.consent import ConsentScreen, PermissionLine
from llmasos.installs.plan import Plan
from llmasos.installs.service import Answers
from llmasos_server.cli.output import is_interactive, locale, note, options, tr

_STYLES = {"danger": "bold red", "warning": "yellow", "info": "dim"}


def console() -> Console:
    """Where people are talked to: stderr, so that stdout holds the answer alone."""
    return Console(stderr=True, highlight=False)


def show_screen(screen: ConsentScreen) -> None:
    """Print what an app asks for: in words, with why, and what it adds up to."""
    parts: list[Text] = [Text(screen.summary), Text()]
    if screen.from_version is None:
        parts.append(Text(tr("It may:", "它可以："), style="bold"))
    else:
        parts.append(
            Text(
                tr(f"Compared with {screen.from_version}, it may:", f"与 {screen.from_version} 相比，它可以："),
                style="bold",
            )
        )
    parts += [_line(line) for line in screen.lines] or [Text(tr("  do nothing outside itself", "  不访问外部"))]
    parts += [Text(tr(f"  no longer: {what}", f"  不再：{what}"), style="dim") for what in screen.no_longer]
    parts += [Text(), Text(tr("Within: ", "限制：") + ", ".join(screen.limits), style="dim")]
    if screen.raised_limits:
        raised = ", ".join(screen.raised_limits)
        parts.append(Text(tr(f"These limits rise: {raised}", f"以下限制提高：{raised}"), style="yellow"))
    for risk in screen.risks:
        mark = {"danger": tr("DANGER", "危险"), "warning": tr("Careful", "注意"), "info": tr("Note", "提示")}[
            risk.level
        ]
        parts.append(Text(f"{mark}: {risk.text(locale())}", style=_STYLES[risk.level]))
    title = f"[bold]{escape(screen.name)}[/bold]  {escape(screen.app_id)} {escape(screen.version)}"
    style = {"danger": "red", "warning": "yellow"}.get(screen.level or "", "blue")
    console().print(Panel(Group(*parts), title=title, title_align="left", border_style=style))


def _line(line: PermissionLine) -> Text:
    mark = {"new": tr("[new] ", "[新增] "), "wider": tr("[more] ", "[扩大] ")}.get(line.change, "")
    optional = tr(" (optional)", "（可选）") if line.optional else ""
    text = Text(f"  • {mark}{line.what}{optional}", style="yellow" if mark else "")
    return text.append(f"\n      {line.why}", style="dim")


def ask(question: str, *, default: bool = False) -> bool:
    """Ask yes or no on the terminal. Ctrl-C and the end of input say no to everything, by ending the command."""
    hint = "[Y/n]" if default else "[y/N]"
    while True:
        sys.stderr.write(f"{question} {hint} ")
        sys.stderr.flush()
        line = sys.stdin.readline()
        if not line:
            raise KeyboardInterrupt
        word = line.strip().lower()
        if not word:
            return default
        if word in ("y", "yes", "是"):
            return True
        if word in ("n", "no", "否"):
            return False


def decide(plan: Plan, *, yes: bool, decline: Sequence[str], config: Mapping[str, Any]) -> Answers | None:
    """Show every screen of a plan and ask about it; None where the person said no.

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
            f"{plan.app_id} does not ask for {', '.join(sorted(unknown))}: leave out --decline.",
            zh=f"{plan.app_id} 没有请求 {'、'.join(sorted(unknown))}：请去掉 --decline。",
        )
    answers = Answers(agreed=True, declined=declined, config={plan.app_id: dict(config)} if config else {})
    if not options().json:
        for screen in plan.screens(locale()):
            if screen.asks_for_more:
                show_screen(screen)
    if yes or not plan.needs_consent:
        return answers
    if not is_interactive():
        raise ConsentNeeded(
            f"{plan.app_id} asks for permissions and there is no terminal to ask on: read them with "
            f"`llmasos show {plan.app_id}` and pass --yes.",
            zh=f"{plan.app_id} 请求权限，但没有终端可供询问：用 llmasos show {plan.app_id} 查看后加上 --yes。",
        )
    if not ask(tr("Do you agree?", "是否同意？")):
        return None
    for step in plan.steps:
        optional = [line for line in step.screen(locale()).lines if line.optional and line.change != "same"]
        for line in optional:
            if line.capability not in declined[step.app_id] and not ask(
                tr(f"{line.what}: allow it too?", f"{line.what}：也允许吗？"), default=True
            ):
                declined[step.app_id] |= {line.capability}
    return answers


def parse_config(pairs: Sequence[str]) -> dict[str, Any]:
    """`key=value` pairs; a value is JSON where it can be read so, and a text otherwise.

    Raises:
        Invalid: There is no `=`.
    """
    values: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise Invalid(f"{pair!r} is not key=value.", zh=f"{pair!r} 不是 key=value 的形式。")
        try:
            values[key] = json.loads(value)
        except ValueError:
            values[key] = value
    return values


@contextmanager
def working(en: str, zh: str) -> Generator[None]:
    """Say that something takes its time: a moving line on a terminal, one plain line elsewhere."""
    if options().json:
        yield
    elif not is_interactive():
        note(tr(en, zh))
        yield
    else:
        with console().status(tr(en, zh)):
            yield
