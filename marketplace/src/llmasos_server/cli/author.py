"""The author's commands: new, add, check, dev, test, build, inspect."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from llmasos.errors import LlmasosError, Unavailable
from llmasos.i18n import _, render
from llmasos.printable import one_line
from llmasos_server.cli.output import emit_json, locale, note, options, say, tr

if TYPE_CHECKING:
    from llmasos.authoring.check import ProjectFinding
    from llmasos.authoring.project import Project as AppProject
    from llmasos.bundles.reader import Bundle

Project = Annotated[Path, typer.Argument(help=tr("The app's folder."))]
HERE = Path()


def new(
    name: Annotated[str, typer.Argument(help=tr("NAME, or publisher/NAME."))],
    runtime: Annotated[
        Literal["wasm", "python"],
        typer.Option(help=tr("A component, or a native Python app.")),
    ] = "wasm",
    language: Annotated[
        Literal["python", "javascript", "typescript"], typer.Option(help=tr("Of the source."))
    ] = "python",
) -> None:
    """Start a new app."""
    from llmasos.authoring import scaffold

    folder = scaffold.new(name, Path.cwd(), kind=runtime, language=language)
    identity = scaffold.app_id(name)
    if options().json:
        emit_json({"id": identity, "path": str(folder), "runtime": runtime, "language": language})
        return
    shown = folder.relative_to(Path.cwd())
    say(tr("Made {identity} in {shown}/. Go on with:", identity=identity, shown=shown))
    say(f"  cd {shown} && llmasos test && llmasos build && llmasos publish . && llmasos install {identity}")


def add(
    packages: Annotated[list[str], typer.Argument(help=tr("Such as python-slugify, or numpy>=2; of npm: name@1."))],
    path: Annotated[Path, typer.Option(help=tr("The app's folder."))] = HERE,
) -> None:
    """Add packages to an app, locked by hash."""
    from llmasos.authoring.add import add as add_packages

    added = asyncio.run(add_packages(path, packages))
    if options().json:
        emit_json({"added": added})
        return
    say(tr("Added {added}.", added=", ".join(added)))


def check(path: Project = HERE) -> None:
    """Check an app's manifest and code."""
    from llmasos.authoring.check import check as findings_of
    from llmasos.authoring.check import has_errors

    findings = findings_of(path)
    if not has_errors(findings):
        findings += asyncio.run(_javascript_findings(path))
    failed = has_errors(findings)
    if options().json:
        listed = [{"level": each.level, "where": each.where, "message": each.message} for each in findings]
        emit_json({"ok": not failed, "findings": listed})
    else:
        say_findings(findings)
    if failed:
        raise typer.Exit(1)


async def _javascript_findings(path: Path) -> list[ProjectFinding]:
    """What is wrong with a JavaScript source, found by the pinned tools and by loading it in the sandbox."""
    from llmasos.authoring import javascript
    from llmasos.authoring.check import ProjectFinding
    from llmasos.authoring.javascript_names import undefined_names
    from llmasos.authoring.project import open_project
    from llmasos_server.cli.projects import actions_of

    project = open_project(path)
    source = project.manifest.runtime.source or ""
    if Path(source).suffix not in javascript.SUFFIXES:
        return []
    try:
        if found := await undefined_names(project):
            return found
        await actions_of(path)
    except Unavailable as error:  # no Node.js, or no network for its tools
        return [ProjectFinding("warning", source, _("it was not loaded: {why}", why=error.message))]
    except LlmasosError as error:
        return [ProjectFinding("error", source, error.message)]
    return []


def say_findings(findings: list[ProjectFinding]) -> None:
    """Print what `check` found, a line each."""
    words = {"error": tr("error"), "warning": tr("warning")}
    for finding in findings:
        say(f"{words[finding.level]}: {one_line(render(finding.line, locale()))}")
    if not findings:
        say(tr("No problems found."))


def test(
    path: Project = HERE,
    arguments: Annotated[list[str] | None, typer.Argument(help=tr("For pytest or node --test."))] = None,
    *,
    sandbox: Annotated[
        bool, typer.Option("--sandbox", help=tr("Run the actions that they call in the sandbox."))
    ] = False,
) -> None:
    """Run an app's tests, without a host."""
    output, code = asyncio.run(_test(path, arguments or [], sandbox=sandbox))
    if options().json:
        emit_json({"ok": code == 0, "output": output})
    if code != 0:
        raise typer.Exit(1)


async def _test(path: Path, arguments: list[str], *, sandbox: bool) -> tuple[str, int]:
    """Run the tests; returns what they printed, if it is captured, and the exit code."""
    from contextlib import AsyncExitStack

    from llmasos.authoring.project import open_project
    from llmasos.authoring.sandboxed_calls import SOCKET_VARIABLE, sandboxed_calls
    from llmasos.authoring.testing import environment
    from llmasos.settings import Settings
    from llmasos_server.cli.asking import working

    project = open_project(path)
    captured = options().json
    async with AsyncExitStack() as stack:
        command = [*test_command(project), *arguments]
        env = await environment(project)
        if sandbox:
            with working(_("Building…")):
                socket = await stack.enter_async_context(sandboxed_calls(path, Settings()))
            env[SOCKET_VARIABLE] = str(socket)
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=project.root,
            env=env,
            stdout=asyncio.subprocess.PIPE if captured else None,
            stderr=asyncio.subprocess.STDOUT if captured else None,
        )
        try:
            output, __ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
        return (output or b"").decode(errors="replace"), process.returncode or 0


def test_command(project: AppProject) -> list[str]:
    """The command that runs a project's tests.

    Raises:
        NotFound: It has none.
        Unavailable: What runs them is not installed.
    """
    from llmasos.authoring import javascript, testing

    suffix = Path(project.manifest.runtime.source or "").suffix
    return testing.node_command(project) if suffix in javascript.SUFFIXES else testing.pytest_command(project)


def build(
    path: Project = HERE,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help=tr("The bundle, or a folder for it.")),
    ] = None,
) -> None:
    """Build an app's bundle."""
    started = time.monotonic()
    bundle = asyncio.run(_build(path, out))
    seconds = time.monotonic() - started
    skipped = _left_out(path)
    if options().json:
        from llmasos.bundles.reader import read_bundle

        read = read_bundle(bundle)
        told = {"path": str(bundle), "digest": read.digest, "size_bytes": read.size_bytes, "id": read.manifest.id}
        emit_json({**told, "left_out": skipped})
        return
    size = bundle.stat().st_size / (1 << 20)
    say(tr("Built {bundle} ({size:.1f} MiB) in {seconds:.1f} s.", bundle=bundle, size=size, seconds=seconds))
    if skipped:
        note(tr("Left out of it: {names}.", names=", ".join(skipped)))


def _left_out(path: Path) -> list[str]:
    """What lies beside the app's source and is not in its bundle."""
    from llmasos.authoring.project import left_out, open_project

    project = open_project(path)
    source = project.manifest.runtime.source
    return left_out((project.root / source).parent) if source is not None else []


async def _build(path: Path, out: Path | None) -> Path:
    from llmasos.authoring.build import build as build_bundle
    from llmasos.authoring.describe import in_runners
    from llmasos.settings import Settings

    note(tr("Building…"))
    async with in_runners(Settings()) as runners:
        return await build_bundle(path, out, describe=runners.describe)


def inspect(bundle: Annotated[Path, typer.Argument(help=tr("A .llmapp file."))]) -> None:
    """Show what a bundle is, what it asks for, what its binary imports, and who signed it."""
    from llmasos.bundles.reader import read_bundle

    read = read_bundle(bundle)
    report = asyncio.run(_report(bundle, read))
    if options().json:
        emit_json(report)
        return
    say(f"{report['id']} {report['version']}  {report['digest']}")
    for permission in report["permissions"]:
        optional = tr(" (optional)") if permission["optional"] else ""
        reason = permission["reason"].get("zh") if locale() == "zh" else None
        say(f"  {permission['capability']}{optional}: {one_line(reason or permission['reason']['en'])}")
    say(tr("Imports: ") + (", ".join(report["imports"]) or tr("none")))
    if report["undeclared"]:
        say(tr("Imports that it does not declare: ") + ", ".join(report["undeclared"]))
    for risk in report["risks"]:
        say(f"[{risk['level']}] {one_line(risk['text'])}")
    say(tr("Actions: ") + ", ".join(each["name"] for each in report["actions"]))
    if report["lifecycle_events"]:
        events = ", ".join(report["lifecycle_events"])
        say(tr("Runs code of its own at these lifecycle events: {events}", events=events))
    say(tr("Signature: none"))


async def _report(path: Path, bundle: Bundle) -> dict[str, Any]:
    from llmasos.bundles.imports import undeclared
    from llmasos.installs.risk import risks_of
    from llmasos.installs.wording import describe_risk

    manifest = bundle.manifest
    imports = await _imports(bundle)
    risks = risks_of(manifest.permissions, manifest.limits)
    return {
        "path": str(path),
        "id": manifest.id,
        "version": manifest.version,
        "license": manifest.license,
        "runtime": manifest.runtime.kind,
        "digest": bundle.digest,
        "component_digest": bundle.component_digest,
        "size_bytes": bundle.size_bytes,
        "permissions": [json.loads(each.model_dump_json()) for each in manifest.permissions],
        "limits": json.loads(manifest.limits.model_dump_json()),
        "dependencies": dict(manifest.dependencies),
        "imports": imports,
        "undeclared": undeclared(imports, manifest.capabilities),
        "risks": [
            {
                "code": risk.code,
                "level": risk.level,
                "text": describe_risk(risk, locale()),
                "capabilities": list(risk.capabilities),
            }
            for risk in risks
        ],
        "actions": bundle.actions_json,
        "lifecycle_events": list(bundle.lifecycle_events),
        "lock": bundle.lock.splitlines(),
        "signature": None,
    }


async def _imports(bundle: Bundle) -> list[str]:
    """What the component imports, read in a runner; a native app's wheel imports nothing that could be read."""
    if bundle.component is None:
        return []
    import tempfile

    from llmasos.authoring.describe import in_runners
    from llmasos.settings import Settings

    with tempfile.TemporaryDirectory(prefix="llmasos-inspect-") as folder:
        code = Path(folder) / "app.wasm"
        code.write_bytes(bundle.component)
        async with in_runners(Settings()) as runners:
            return sorted((await runners.of("wasm").inspect(code)).imports)
