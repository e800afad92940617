"""`run`: run an action, here or on a running server."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import ExitStack, asynccontextmanager, closing
from dataclasses import asdict, dataclass
from itertools import islice, takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from llmasos.errors import Invalid, LlmasosError, NotFound
from llmasos.i18n import _
from llmasos.printable import one_line
from llmasos_server.cli.answers import open_saved, save_answer, say_answer
from llmasos_server.cli.completion import actions, installed_apps
from llmasos_server.cli.fetching import fetching
from llmasos_server.cli.inputs import ask_for_missing, given_inputs, parsed_parameters
from llmasos_server.cli.output import emit_json, is_interactive, locale, note, options, say, say_part, set_options, tr
from llmasos_server.cli.projects import AllowLoopback, Config, project_of
from llmasos_server.cli.reader import stopping_with_the_reader

if TYPE_CHECKING:
    from llmasos.connection import Connection
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
        typer.Argument(
            autocompletion=installed_apps, help=tr("An installed app, such as acme/translator, or a project's folder.")
        ),
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
    config: Config = None,
    allow_loopback: AllowLoopback = False,
) -> None:
    """Run an action of an installed app, or of a project, and print its answer.

    `llmasos run APP ACTION --help` shows its inputs. `llmasos run . ACTION` runs the project in this folder in the
    sandbox, without publishing or installing it.
    """
    if open_it and out is None:
        raise Invalid(_("--open opens a saved file: name it with -o FILE"))
    project = project_of(app)
    if project is None and (config or allow_loopback):
        raise Invalid(_("--config and --allow-loopback are for a project's folder, such as `llmasos run . ACTION`."))
    given = given_inputs(input_json)
    fetches = _Fetches()
    where = _installed(fetches) if project is None else _of_project(project, config or [], allow_loopback, fetches)
    ran_as = app

    async def work() -> InvocationResult:
        nonlocal ran_as
        async with where as (connection, found):
            ran_as = found or app
            asks = is_interactive() and not options().json and input_json is None
            call = _Call(ran_as, action, given, parameter or [], asks=asks)
            return await _run(connection, call, fetches, stream=stream, out=out)

    try:
        result = asyncio.run(work())
    except LlmasosError as error:
        if options().debug:
            from llmasos_server.cli.invocations import note_log

            note_log(ran_as, action, error)  # the app's own frames, before the host's
        if project is None and isinstance(error, NotFound) and (Path(app) / "llmapp.toml").is_file():
            note(tr("To run the project in that folder: llmasos run ./{path} {action}", path=app, action=action))
        raise
    if open_it and out is not None:
        open_saved(out)
    if options().json:
        usage = asdict(result.usage)
        model = usage.pop("model")
        told = {
            "id": result.id,
            "app": ran_as,
            "action": action,
            "output": result.output,
            "model": model,
            "usage": usage,
        }
        emit_json({**told, "notices": list(result.notices)})


@dataclass(frozen=True, slots=True)
class _Call:
    """What is run, with the inputs that were given."""

    app: str
    action: str
    given: dict[str, Any]
    parameters: list[str]
    asks: bool
    """Whether to ask on the terminal for inputs that are missing."""


@asynccontextmanager
async def _installed(fetches: _Fetches) -> AsyncGenerator[tuple[Connection, None]]:
    """The host of this home, or the server that LLMASOS_URL names."""
    from llmasos.connection import connected
    from llmasos.kernel.invocation import Principal
    from llmasos.settings import Settings

    async with connected(Settings(), Principal(locale=locale()), fetches.told) as connection:
        yield connection, None


@asynccontextmanager
async def _of_project(
    path: Path, config: list[str], allow_loopback: bool, fetches: _Fetches
) -> AsyncGenerator[tuple[Connection, str]]:
    """A host of this home that runs a project, and the id that the project has there."""
    from llmasos.settings import Settings
    from llmasos_server.cli.asking import parse_config
    from llmasos_server.cli.projects import project_runs

    if Settings().url:
        note(tr("A project runs on this computer, though LLMASOS_URL is set."))
    values = parse_config(config)
    async with project_runs(path, config=values, allow_loopback=allow_loopback, on_fetch=fetches.told) as runs:
        yield runs.connection, await runs.load()


async def _run(
    connection: Connection, call: _Call, fetches: _Fetches, *, stream: bool, out: Path | None
) -> InvocationResult:
    schema = await connection.input_schema(call.app, call.action)
    shown = not options().json and (stream or (bool(schema["x-streaming"]) and sys.stdout.isatty()))
    printer = _Printer(shown)
    value = {**call.given, **parsed_parameters(schema, call.parameters)}
    if call.asks:
        value |= ask_for_missing(schema, value)
    with closing(fetches):
        async with stopping_with_the_reader(printer.show) as events:
            result = await connection.run(call.app, call.action, value, events)
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
        """Remove the bar if the fetch did not complete."""
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
