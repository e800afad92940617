"""The command `llmasos`: finds a command, runs it, and reports errors.

Typer itself is told not to use Rich for help and tracebacks: importing it would cost half of the fifth of a second
that `llmasos --help` may take.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from llmasos.errors import Invalid, LlmasosError
from llmasos.home import server_url_and_token
from llmasos.i18n import Message, _, render
from llmasos.i18n.catalogs import SOURCE
from llmasos.printable import json_safe
from llmasos_server.cli import registry
from llmasos_server.cli.coercion import spare_pydantic
from llmasos_server.cli.output import (
    accept_every_text,
    fresh_options,
    locale,
    message_of,
    note,
    note_error,
    options,
    problem_of,
    set_options,
    tr,
)

if TYPE_CHECKING:
    from typing_extensions import override
else:  # importing it takes 20 ms of a command's 200
    Function = TypeVar("Function")

    def override(function: Function) -> Function:
        """Leave it as it is."""
        return function


PACKAGE = "llmasos_server.cli"
PROGRAM = "llmasos"
# Set by the script that completes commands in a shell.
COMPLETE_VARIABLE = "_LLMASOS_COMPLETE"


def _take_json(value: bool) -> bool:
    if value:
        set_options(json=True)
    return value


def _take_debug(value: bool) -> bool:
    if value:
        from llmasos_server.host_log import show_everything

        set_options(debug=True)
        show_everything()
    return value


def _shared(
    json: Annotated[
        bool,
        typer.Option(
            "--json",
            help=tr("Answer in JSON."),
            expose_value=False,
            is_eager=True,
            callback=_take_json,
        ),
    ] = False,
    debug: Annotated[
        bool,
        typer.Option(
            "--debug",
            help=tr("Show tracebacks and the host's log."),
            expose_value=False,
            is_eager=True,
            callback=_take_debug,
        ),
    ] = False,
) -> None:
    """Carry the options of every command."""


def is_installed(entry: registry.CommandEntry) -> bool:
    """Whether the command's module is there, without importing it."""
    return importlib.util.find_spec(f"{PACKAGE}.{entry.module}") is not None


def finish_restore() -> None:
    """Finish a restore of the home that was committed and then interrupted."""
    from llmasos.database.schema import PENDING_RESTORE
    from llmasos.home import state_home_and_database_url

    try:
        home, url = state_home_and_database_url()
    except LlmasosError:
        return  # a command that needs the home says what is wrong with it
    if (home / PENDING_RESTORE).is_dir():
        from llmasos.backup.restore import finish_restore as finish

        finish(home, url)


def load(entry: registry.CommandEntry) -> TyperCommand | TyperGroup:
    """Import a command, and give it the shared options."""
    finish_restore()
    found: object = getattr(importlib.import_module(f"{PACKAGE}.{entry.module}"), entry.attribute)
    command = make_command(entry.name, found)
    check_place(command, entry.name)
    if locale() != SOURCE:
        command.help = render(entry.help, locale())
        for part in getattr(command, "commands", {}).values():
            # A part's docstring is its help; each paragraph is in the catalogs, on one line.
            paragraphs = [" ".join(each.split()) for each in (part.help or "").split("\n\n")]
            part.help = "\n\n".join(render(Message(each), locale()) for each in paragraphs)
    return command


def check_place(command: Any, words: str) -> None:
    """Let a command, and each of its parts, first look whether it may work while `LLMASOS_URL` names a server."""
    parts = getattr(command, "commands", {})
    for name, part in parts.items():
        check_place(part, f"{words} {name}")
    work = command.callback
    if work is None or (parts and not command.invoke_without_command):
        return

    @functools.wraps(work)
    def checked(*arguments: Any, **options_: Any) -> Any:
        place = registry.PLACES[words]
        named = server_url_and_token() if place != "server" else None
        if named is not None and place == "home":
            raise Invalid(
                _(
                    "`llmasos {command}` works on the home of this machine, and LLMASOS_URL names the server {url}: "
                    "unset LLMASOS_URL, or run it on that server's machine.",
                    command=words,
                    url=named[0],
                )
            )
        if named is not None and not options().json:
            note(tr("`llmasos {command}` works on this machine, not on the server {url}.", command=words, url=named[0]))
        return work(*arguments, **options_)

    command.callback = checked


def load_plugin_command(name: str) -> TyperCommand | TyperGroup | None:
    """The command of an operator's plugin, by the hook `register_commands`; None if no plugin has it.

    Asked only for a name that is no command of ours: plugins can add commands, and cannot stand in for one.
    """
    from importlib import metadata

    from llmasos.home import plugins_are_on

    if not plugins_are_on() or not metadata.entry_points(group="llmasos.plugins"):
        return None  # without importing what plugins stand on, which takes a second
    from llmasos.plugins import Plugins

    target = Plugins.load().commands().get(name)
    if target is None:
        return None
    module, _, attribute = target.partition(":")
    return make_command(name, getattr(importlib.import_module(module), attribute))


def make_command(name: str, found: object) -> TyperCommand | TyperGroup:
    """A command of a function or a `typer.Typer`, with the shared options."""
    if isinstance(found, typer.Typer):
        target = found
    else:
        target = typer.Typer()
        target.command(name)(found)  # type: ignore[type-var]  # pyright: ignore[reportArgumentType, reportUnknownVariableType]
    # Typer reads these when it makes the command: no Rich in help or errors.
    target.rich_markup_mode = None
    command: Any = get_command(target)
    command.name = name
    _add_shared_options(command)
    return command  # type: ignore[no-any-return]


def _add_shared_options(command: Any) -> None:
    # Typer offers to install its completion with every command that it makes.
    command.params = [each for each in command.params if each.name not in ("install_completion", "show_completion")]
    shared = typer.Typer(add_completion=False)
    shared.command()(_shared)
    known = {name for parameter in command.params for name in parameter.opts}
    for parameter in get_command(shared).params:
        if not known.intersection(parameter.opts) and parameter.name != "help":
            command.params.append(parameter)
    for part in getattr(command, "commands", {}).values():
        _add_shared_options(part)


class LazyGroup(TyperGroup):
    """The commands of the registry, each imported when it is called, behind one error boundary."""

    @override
    def list_commands(self, ctx: Any) -> list[str]:
        """The names of the commands that are installed."""
        return [entry.name for entry in registry.ENTRIES if is_installed(entry)]

    @override
    def get_command(self, ctx: Any, cmd_name: str) -> TyperCommand | TyperGroup | None:
        """Import a command; None if there is none."""
        entry = registry.BY_NAME.get(cmd_name)
        if entry is None:
            return load_plugin_command(cmd_name)
        return load(entry) if is_installed(entry) else None

    @override
    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command that is called, or name the nearest."""
        # Typer suggests near names from `commands`, which are not loaded here.
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            from difflib import get_close_matches

            near = get_close_matches(args[0], self.list_commands(ctx), n=1)
            hint = tr("Did you mean {near}?", near=near[0]) if near else ""
            ctx.fail(tr("There is no command {args!r}.", args=args[0]) + (f" {hint}" if hint else ""))
        return super().resolve_command(ctx, args)

    @override
    def shell_complete(self, ctx: Any, incomplete: str) -> list[Any]:
        """The commands that start like this, without importing them."""
        completion: Any = importlib.import_module("typer.completion")
        return [
            completion.shell_completion.CompletionItem(entry.name, help=render(entry.help, locale()))
            for entry in registry.ENTRIES
            if entry.name.startswith(incomplete) and is_installed(entry)
        ]

    @override
    def format_help_text(self, ctx: Any, formatter: Any) -> None:
        """What LLMasOS is, in the user's language."""
        formatter.write_paragraph()
        with formatter.indentation():
            formatter.write_text(tr("An operating system for LLM apps. Begin with: llmasos quickstart."))

    @override
    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """The commands by section, from the registry alone."""
        for section, title in registry.SECTION_TITLES.items():
            rows = [
                (entry.name, render(entry.help, locale()))
                for entry in registry.ENTRIES
                if entry.section == section and is_installed(entry)
            ]
            if rows:
                with formatter.section(render(title, locale())):
                    formatter.write_dl(rows)

    @override
    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Run a command line; exits with DESIGN's codes unless `standalone_mode` is off."""
        words = list(sys.argv[1:] if args is None else args)
        if COMPLETE_VARIABLE in os.environ:
            completion: Any = importlib.import_module("typer.completion")  # which does not export it
            completion.completion_init()
        accept_every_text()
        from llmasos.home import state_home_and_database_url
        from llmasos_server.host_log import logging_to_home

        with fresh_options(), logging_to_home(lambda: state_home_and_database_url()[0], lambda: options().debug):
            code = _bounded(lambda: super(LazyGroup, self).main(words, PROGRAM, standalone_mode=False, **extra), words)
        if standalone_mode:
            sys.exit(code)
        return code


def _bounded(run: Callable[[], object], words: list[str]) -> int:
    """Run, and return an exit code however the run ends."""
    try:
        answer = run()
        sys.stdout.flush()
        return answer if isinstance(answer, int) else 0
    except (KeyboardInterrupt, typer.Abort):
        sys.stderr.write("\n")
        return 130
    except BrokenPipeError:
        return _quiet_pipe()
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 1
    except Exception as error:
        if options().debug:
            import traceback

            note(traceback.format_exc())
        return _answer(error, words)


def _answer(error: Exception, words: list[str]) -> int:
    """Say what failed on one line, or as a problem document, and give the exit code."""
    from llmasos.machine import known

    error = known(error)
    if isinstance(error, LlmasosError):
        _complain(message_of(error), problem_of(error), words)
        return error.exit_code
    text = " ".join(str(error).split())
    if isinstance(error, typer.TyperException):
        code, kind, status = error.exit_code, "usage", 400
        if error.format_message().startswith("Usage:"):  # a group named without a part shows its help
            note(error.format_message())
            return code
        from llmasos_server.cli.usage import explain

        text = render(explain(error), locale())
        context = getattr(error, "ctx", None)
        path = context.command_path if context is not None else "llmasos"
        hint = tr("See: {path} --help", path=path)
    else:
        code, kind, status = 1, "internal", 500
        text = f"{type(error).__name__}: {text}"
        hint = tr("Run it again with --debug to see where it failed.")
    problem: dict[str, object] = {
        "type": "about:blank",
        "title": kind.capitalize(),
        "status": status,
        "code": kind,
        "detail": text,
    }
    _complain(f"{text} {hint}", problem, words)
    return code


def _quiet_pipe() -> int:
    # Whoever read our output has gone; Python would complain once more while it closes stdout.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1


def _complain(line: str, problem: dict[str, object], words: list[str]) -> None:
    # An error of usage comes before options are taken, so the words themselves are asked too.
    if options().json or "--json" in words:
        sys.stderr.write(json_safe(json.dumps(problem, ensure_ascii=False)) + "\n")
    else:
        note_error(line)


spare_pydantic()
app = typer.Typer(name="llmasos", cls=LazyGroup, add_completion=False, rich_markup_mode=None, no_args_is_help=True)


def _print_version(value: bool) -> None:
    if value:
        from importlib.metadata import version

        sys.stdout.write(f"llmasos {version('llmasos')}\n")
        raise typer.Exit


@app.callback()
def llmasos(
    version: Annotated[
        bool,
        typer.Option("--version", help=tr("Show the version."), is_eager=True, callback=_print_version),
    ] = False,
    json: Annotated[bool, typer.Option("--json", help=tr("Answer in JSON."), callback=_take_json)] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help=tr("Show tracebacks and the host's log."), callback=_take_debug)
    ] = False,
) -> None:
    """An operating system for LLM apps. Begin with: llmasos quickstart."""
