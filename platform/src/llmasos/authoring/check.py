"""Every fault of an app at once, before anything is built.

The manifest by its own rules, the source by reading it: app code is not run here.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from llmasos.authoring import javascript, python, wrap
from llmasos.authoring.process import BuildFailed
from llmasos.authoring.project import Project, open_project, source_files
from llmasos.bundles import layout
from llmasos.errors import LlmasosError

CAPABILITIES = frozenset({"model", "storage", "http", "secrets", "apps"})


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong (an error) or that may be (a warning), with where and the cure."""

    level: str
    where: str
    message: str

    def __str__(self) -> str:
        return f"{self.where}: {self.message}"


def check(path: Path) -> list[Finding]:
    """Every finding of the app in a folder; none: it is fine.

    Raises:
        NotFound: There is no manifest.
    """
    try:
        project = open_project(path)
    except LlmasosError as error:
        if error.tag == "not-found":
            raise
        return [Finding("error", layout.MANIFEST, error.message)]
    return [*_files(project), *_code(project)]


def has_errors(findings: list[Finding]) -> bool:
    """Whether a build would fail, or an app would."""
    return any(finding.level == "error" for finding in findings)


def _files(project: Project) -> Iterator[Finding]:
    manifest = project.manifest
    if not (project.root / layout.README).is_file():
        yield Finding("error", layout.README, "it is missing; write what the app does, for its page")
    elif manifest.name.zh and not (project.root / "README.zh.md").is_file():
        yield Finding("warning", "README.zh.md", "the manifest speaks Chinese, and there is no Chinese README")
    if manifest.icon is None:
        yield Finding("warning", layout.MANIFEST, 'the app has no icon: icon = "icon.svg"')
    elif not (project.root / manifest.icon).is_file():
        yield Finding("error", layout.MANIFEST, f"icon = {manifest.icon!r}, and there is no such file")
    elif (project.root / manifest.icon).stat().st_size > layout.MAX_ICON_BYTES:
        yield Finding("error", manifest.icon, f"it is over {layout.MAX_ICON_BYTES >> 10} KiB; make it smaller")


def _code(project: Project) -> Iterator[Finding]:
    runtime = project.manifest.runtime
    for key in ("source", "component", "wheel"):
        named = getattr(runtime, key)
        if named is None:
            continue
        path = project.root / named
        if not path.is_file():
            yield Finding("error", layout.MANIFEST, f"[runtime] {key} = {named!r}, and there is no such file")
        elif key == "component":
            yield from _binary(path)
        elif key == "source" and path.suffix == ".py":
            yield from _python(project, path)
        elif key == "source" and (path.suffix not in javascript.SUFFIXES or runtime.kind == "python"):
            kinds = ".py" if runtime.kind == "python" else ".py, .js or .ts"
            yield Finding("error", layout.MANIFEST, f"[runtime] source = {named!r} is not a {kinds} file")


def _binary(path: Path) -> Iterator[Finding]:
    with path.open("rb") as file:
        head = file.read(8)
    if head[:4] != wrap.MAGIC or head[4:] not in (wrap.CORE, wrap.COMPONENT):
        yield Finding("error", path.name, "it is not WebAssembly; name the .wasm file that your compiler made")


def _python(project: Project, source: Path) -> Iterator[Finding]:
    if source.stem in python.RESERVED or not source.stem.isidentifier():
        yield Finding("error", source.name, "it cannot be an app's module; rename it, such as app.py")
    used: dict[str, str] = {}
    try:
        paths = [path for path in source_files(source.parent) if path.suffix == ".py"]
    except BuildFailed as error:
        yield Finding("error", source.parent.name, error.message)
        return
    for path in paths:
        where = path.relative_to(project.root).as_posix()
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (SyntaxError, ValueError) as error:
            line = f", line {error.lineno}" if isinstance(error, SyntaxError) else ""
            yield Finding("error", f"{where}{line}", f"it is not Python: {getattr(error, 'msg', error)}")
            continue
        if path == source:
            yield from _actions(where, tree)
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "ctx":
                used.setdefault(node.attr, f"{where}, line {node.lineno}")
    yield from _capabilities(project, used)


def _capabilities(project: Project, used: dict[str, str]) -> Iterator[Finding]:
    """Hold what the source reaches for against what the manifest declares; `ctx` is the name by custom."""
    from llmasos_sdk.context import permission_lines  # noqa: PLC0415 (only Python sources need it)

    declared = project.manifest.capabilities
    for name in sorted(CAPABILITIES & used.keys() - declared):
        lines = permission_lines(name).replace("\n", "\n    ")
        yield Finding("error", used[name], f"ctx.{name} is not declared in {layout.MANIFEST}; add:\n    {lines}")
    for name in sorted(declared - used.keys() - {"secrets"}):
        message = f"the permission {name!r} is asked for, and the source never uses ctx.{name}; ask for less"
        yield Finding("warning", layout.MANIFEST, message)


def _actions(where: str, tree: ast.Module) -> Iterator[Finding]:
    found = 0
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if not any(_is_action(each) for each in node.decorator_list):
            continue
        found += 1
        place = f"{where}, line {node.lineno}"
        if isinstance(node, ast.AsyncFunctionDef):
            yield Finding("error", place, f"action {node.name} is async; write it as a plain `def`")
        parameters = [*node.args.posonlyargs, *node.args.args]
        if not parameters:
            yield Finding("error", place, f"action {node.name} takes no context: def {node.name}(ctx: Context, ...)")
        for parameter in [*parameters[1:], *node.args.kwonlyargs]:
            if parameter.annotation is None:
                named = f"the input {parameter.arg!r} of {node.name}"
                yield Finding("error", place, f"{named} needs a type hint, such as `{parameter.arg}: str`")
        if ast.get_docstring(node) is None:
            message = f"action {node.name} has no docstring; its first line tells people what it does"
            yield Finding("warning", place, message)
    if not found and "App" in ast.dump(tree):
        yield Finding("error", where, "the app has no action; write a function below `@app.action`")
    elif not found:
        yield Finding("error", where, "there is no app in it; write `app = App()` and a function below `@app.action`")


def _is_action(decorator: ast.expr) -> bool:
    target = decorator.func if isinstance(decorator, ast.Call) else decorator
    return isinstance(target, ast.Attribute) and target.attr == "action"
