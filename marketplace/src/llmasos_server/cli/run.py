"""`run`: run an action, here or on a running server."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import asdict
from itertools import islice, takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from llmasos.errors import Invalid, LlmasosError
from llmasos.i18n import _
from llmasos.printable import one_line
from llmasos_server.cli.answers import open_saved, save_answer, say_answer
from llmasos_server.cli.completion import actions, installed_apps
from llmasos_server.cli.fetching import fetching
from llmasos_server.cli.inputs import ask_for_missing, given_inputs, parsed_parameters
from llmasos_server.cli.output import emit_json, is_interactive, locale, note, options, say, say_part, set_options, tr
from llmasos_server.cli.reader import stopping_with_the_reader

if TYPE_CHECKING:
    from llmasos.invocations.result import InvocationResult
    from llmasos.kernel.invocation import Event


class RunCommand(TyperCommand):
    """`run`, whose help shows the actions of an app and the inputs of an action once they are named."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Take `--help` behind an app, and behind an app and an action, before anything is required."""
        words = list(islice(takewhile(lambda word: not word.startswith("-"), args), 2))
        if words and "--help" in args:
            from llmasos_server.cli.action_help import say_actions

            if "--json" in args:
                set_options(json=True)
            say_actions(*words)
            ctx.exit()
        return list(super().parse_args(ctx, args))


command = typer.Typer()


@command.command("run", cls=RunCommand)
def run(
    app: Annotated[
        str,
        typer.Argument(autocompletion=installed_apps, help=tr("An installed app, such as acme/translator.")),
    ],
    action: Annotated[str, typer.Argument(autocompletion=actions, help=tr("One of its actions."))],
    *,
    parameter: Annotated[
        list[str] | None,
        typer.Option(
            "--param",
            "-p",
            metavar="KEY=VALUE",
            help=tr("An input; may be given again. KEY=@FILE takes it from a file; KEY=@@TEXT is a text with one @."),
        ),
    ] = None,
    input_json: Annotated[
        str | None,
        typer.Option(
            "--input",
            metavar="JSON",
            help=tr("All inputs as a JSON object; - reads stdin."),
        ),
    ] = None,
    stream: Annotated[bool, typer.Option("--stream", help=tr("Print the answer as it comes."))] = False,
    out: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help=tr("Save the answer, or the picture or file in it.")),
    ] = None,
    open_it: Annotated[
        bool,
        typer.Option("--open", help=tr("Open what -o saved with the desktop's program.")),
    ] = False,
) -> None:
    """Run an action of an installed app and print its answer. `llmasos run APP ACTION --help` shows its inputs."""
    if open_it and out is None:
        raise Invalid(_("--open opens a saved file: name it with -o FILE"))
    try:
        result = asyncio.run(_run(app, action, parameter or [], input_json, stream=stream, out=out))
    except LlmasosError as error:
        if options().debug:
            from llmasos_server.cli.invocations import note_log

            note_log(app, action, error)  # the app's own frames, before the host's
        raise
    if open_it and out is not None:
        open_saved(out)
    if options().json:
        usage = asdict(result.usage)
        model = usage.pop("model")
        told = {"id": result.id, "app": app, "action": action, "output": result.output, "model": model, "usage": usage}
        emit_json({**told, "notices": list(result.notices)})


async def _run(
    app: str, action: str, parameters: list[str], input_json: str | None, *, stream: bool, out: Path | None
) -> InvocationResult:
    from llmasos.connection import connected
    from llmasos.kernel.invocation import Principal
    from llmasos.settings import Settings

    given = given_inputs(input_json)
    fetches = _Fetches()
    async with connected(Settings(), Principal(locale=locale()), fetches.told) as connection:
        schema = await connection.input_schema(app, action)
        shown = not options().json and (stream or (bool(schema["x-streaming"]) and sys.stdout.isatty()))
        printer = _Printer(shown)
        value = {**given, **parsed_parameters(schema, parameters)} if parameters else given
        if is_interactive() and not options().json and input_json is None:
            value |= ask_for_missing(schema, value)
        with closing(fetches):
            async with stopping_with_the_reader(printer.show) as events:
                result = await connection.run(app, action, value, events)
    if out is not None:
        save_answer(result.output, out)
        note(tr("Saved to {path}.", path=str(out)))
    elif not options().json:
        printer.finish(result.output)
    return result


class _Fetches:
    """Shows that a model is fetched at its first use: a bar on a terminal, one line elsewhere."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._tell: dict[str, Callable[[int, int], None]] = {}

    def told(self, name: str, done: int, total: int) -> None:
        """Called from the thread that fetches."""
        if name not in self._tell:
            size = f"{total >> 20} MiB"
            shown = fetching(tr("Fetching {name} ({size}, once)", name=name, size=size))
            self._tell[name] = self._stack.enter_context(shown)
        self._tell[name](done, total)
        if done >= total:
            self._stack.close()

    def close(self) -> None:
        """Take the bar away, where the fetch did not come to its end."""
        self._stack.close()


class _Printer:
    """Prints an answer as it comes, or whole at its end."""

    def __init__(self, streams: bool) -> None:
        self._streams = streams
        self._streamed = False

    def show(self, event: Event) -> None:
        match event.kind:
            case "chunk" if self._streams:
                self._streamed = True
                say_part(event.text)
            case "progress" if sys.stderr.isatty():
                note(f"{event.fraction:4.0%} {one_line(event.text)}")
            case "notice":
                note(one_line(event.text))
            case _:
                pass

    def finish(self, output: Any) -> None:
        if self._streamed:
            say()
        else:
            say_answer(output)
