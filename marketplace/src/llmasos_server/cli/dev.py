"""`dev`: on every change, check a project, run it in the sandbox, and run its tests."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmasos.errors import Invalid, LlmasosError
from llmasos.i18n import _
from llmasos_server.cli.answers import say_answer
from llmasos_server.cli.inputs import given_inputs, parsed_parameters
from llmasos_server.cli.output import message_of, note, options, say, say_part, tr
from llmasos_server.cli.projects import AllowLoopback, Config, ProjectRuns, project_runs

if TYPE_CHECKING:
    from llmasos.kernel.invocation import Event


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What to run after each change; nothing if `action` is None."""

    action: str | None
    given: dict[str, Any]
    parameters: list[str]


def dev(
    path: Annotated[Path, typer.Argument(help=tr("The app's folder."))] = Path(),
    action: Annotated[str | None, typer.Argument(help=tr("An action to run after each change."))] = None,
    *,
    parameter: Annotated[
        list[str] | None,
        typer.Option("--param", "-p", metavar="KEY=VALUE", help=tr("An input of the action; may be given again.")),
    ] = None,
    input_json: Annotated[
        str | None,
        typer.Option("--input", metavar="JSON", help=tr("All inputs as a JSON object; - reads stdin.")),
    ] = None,
    config: Config = None,
    allow_loopback: AllowLoopback = False,
) -> None:
    """On every change, check a project, run it in the sandbox, and run its tests, until Ctrl-C."""
    from llmasos_server.cli.asking import parse_config

    if options().json:
        raise Invalid(_("`llmasos dev` is for a terminal; a program uses `llmasos check`, `run .` and `test --json`."))
    wanted = _Wanted(action, given_inputs(input_json), parameter or [])
    with_config = parse_config(config or [])
    asyncio.run(_develop(path, wanted, with_config, allow_loopback=allow_loopback))


async def _develop(path: Path, wanted: _Wanted, config: dict[str, Any], *, allow_loopback: bool) -> None:
    from llmasos.authoring.dev import watch
    from llmasos.authoring.project import open_project

    open_project(path)  # a folder without a manifest is no project to wait for
    async with project_runs(path, config=config, allow_loopback=allow_loopback) as runs:

        async def step(changed: list[Path]) -> None:
            if changed:
                say(tr("Changed: {names}", names=", ".join(each.name for each in changed[:3])))
            await _take(runs, path, wanted)
            note(tr("Waiting for the next change."))

        def complain(error: LlmasosError) -> None:
            note(tr("Error: ") + message_of(error))
            note(tr("Waiting for the next change."))

        await watch(path, step, complain=complain)


async def _take(runs: ProjectRuns, path: Path, wanted: _Wanted) -> None:
    """Check the project as it is now, run it, and run its tests; at the first fault, stop."""
    from llmasos.authoring.check import check as findings_of
    from llmasos.authoring.check import has_errors
    from llmasos.authoring.javascript_names import undefined_names
    from llmasos.authoring.project import open_project
    from llmasos_server.cli.author import say_findings

    started = time.monotonic()
    findings = await asyncio.to_thread(findings_of, path)
    if not has_errors(findings):
        findings += await undefined_names(open_project(path))
    if findings:
        say_findings(findings)
    if has_errors(findings):
        return
    app = await runs.load()
    if wanted.action is not None:
        await _run(runs, app, wanted.action, wanted)
    actions = ", ".join(runs.app.runnable.actions)
    said = tr("Runs in the sandbox ({seconds:.1f} s): {actions}", seconds=time.monotonic() - started, actions=actions)
    note(said)
    await _test(path)


async def _run(runs: ProjectRuns, app: str, action: str, wanted: _Wanted) -> None:
    schema = await runs.connection.input_schema(app, action)
    streamed = False

    async def show(event: Event) -> None:
        nonlocal streamed
        if event.kind == "chunk":
            streamed = True
            say_part(event.text)

    value = {**wanted.given, **parsed_parameters(schema, wanted.parameters)}
    result = await runs.connection.run(app, action, value, show)
    if streamed:
        say()
    else:
        say_answer(result.output)


async def _test(path: Path) -> None:
    from llmasos.authoring.project import open_project
    from llmasos.authoring.testing import environment
    from llmasos_server.cli.author import test_command

    project = open_project(path)
    env = await environment(project)
    process = await asyncio.create_subprocess_exec(*test_command(project), cwd=project.root, env=env)
    try:
        await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
