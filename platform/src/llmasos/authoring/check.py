"""Every fault of an app at once, before anything is built.

The manifest by its own rules, the source by reading it: app code is not run here.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from llmasos.authoring import javascript, python, wrap
from llmasos.authoring.imports import importable, missing_imports
from llmasos.authoring.leftovers import scaffold_texts, undefined_names
from llmasos.authoring.packages import installed_packages
from llmasos.authoring.process import BuildFailed
from llmasos.authoring.project import Project, open_project, source_files
from llmasos.bundles import layout
from llmasos.errors import LlmasosError
from llmasos.i18n import Message, _, any_of

CAPABILITIES = frozenset({"model", "storage", "http", "secrets", "apps"})


@dataclass(frozen=True, slots=True)
class ProjectFinding:
    """One fault (an error) or possible fault (a warning), with its place and its cure."""

    level: str
    where: str
    message: Message

    @property
    def line(self) -> Message:
        """The finding on one line; a message that names the place itself does so once."""
        if self.message.startswith(self.where):
            return self.message
        return _("{where}: {message}", where=self.where, message=self.message)


def check(path: Path) -> list[ProjectFinding]:
    """Every finding on the app in a folder; none if it is fine.

    Raises:
        NotFound: There is no manifest.
    """
    try:
        project = open_project(path)
    except LlmasosError as error:
        if error.tag == "not-found":
            raise
        return [ProjectFinding("error", layout.MANIFEST, error.message)]
    return [*_files(project), *_code(project)]


def has_errors(findings: list[ProjectFinding]) -> bool:
    """Whether a build would fail, or an app would."""
    return any(finding.level == "error" for finding in findings)


def _files(project: Project) -> Iterator[ProjectFinding]:
    manifest = project.manifest
    if not (project.root / layout.README).is_file():
        yield ProjectFinding(
            "error",
            layout.README,
            _("it is missing; write what the app does, for its page"),
        )
    elif manifest.name.zh and not (project.root / "README.zh.md").is_file():
        yield ProjectFinding(
            "warning",
            "README.zh.md",
            _("the manifest speaks Chinese, and there is no Chinese README"),
        )
    if manifest.icon is None:
        yield ProjectFinding("warning", layout.MANIFEST, _('the app has no icon: icon = "icon.svg"'))
    elif not (project.root / manifest.icon).is_file():
        yield ProjectFinding(
            "error",
            layout.MANIFEST,
            _("icon = {icon!r}, and there is no such file", icon=manifest.icon),
        )
    elif (project.root / manifest.icon).stat().st_size > layout.MAX_ICON_BYTES:
        kib = layout.MAX_ICON_BYTES >> 10
        yield ProjectFinding("error", manifest.icon, _("it is over {kib} KiB; make it smaller", kib=kib))


def _code(project: Project) -> Iterator[ProjectFinding]:
    runtime = project.manifest.runtime
    for key in ("source", "component", "wheel"):
        named = getattr(runtime, key)
        if named is None:
            continue
        path = project.root / named
        if not path.is_file():
            line = f"[runtime] {key} = {named!r}"
            yield ProjectFinding("error", layout.MANIFEST, _("{line}, and there is no such file", line=line))
        elif key == "component":
            yield from _binary(path)
        elif key == "source":
            yield from _scaffold(project, path)
            yield from _source(project, path)


def _source(project: Project, path: Path) -> Iterator[ProjectFinding]:
    kind = project.manifest.runtime.kind
    if path.suffix == ".py":
        yield from _python(project, path)
    elif path.suffix not in javascript.SUFFIXES or kind == "python":
        line = f"[runtime] source = {project.manifest.runtime.source!r}"
        kinds = any_of([".py"] if kind == "python" else [".py", ".js", ".ts"])
        yield ProjectFinding("error", layout.MANIFEST, _("{line} is not a {kinds} file", line=line, kinds=kinds))


def _scaffold(project: Project, source: Path) -> Iterator[ProjectFinding]:
    for name in scaffold_texts(project.root, source):
        said = _("it still says what the new project did: say what this app does")
        yield ProjectFinding("warning", name, said)


def _binary(path: Path) -> Iterator[ProjectFinding]:
    with path.open("rb") as file:
        head = file.read(8)
    if head[:4] != wrap.MAGIC or head[4:] not in (wrap.CORE, wrap.COMPONENT):
        yield ProjectFinding(
            "error",
            path.name,
            _("it is not WebAssembly; name the .wasm file that your compiler made"),
        )


def _python(project: Project, source: Path) -> Iterator[ProjectFinding]:
    if source.stem in python.RESERVED or not source.stem.isidentifier():
        yield ProjectFinding(
            "error",
            source.name,
            _("it cannot be an app's module; rename it, such as app.py"),
        )
    used: dict[str, str] = {}
    try:
        paths = [path for path in source_files(source.parent) if path.suffix == ".py"]
    except BuildFailed as error:
        yield ProjectFinding("error", source.parent.name, error.message)
        return
    known = _known_modules(project, source.parent)
    for path in paths:
        where = path.relative_to(project.root).as_posix()
        try:
            text = path.read_text(encoding="utf-8")
            tree = ast.parse(text)
        except (SyntaxError, ValueError) as error:
            line = f", line {error.lineno}" if isinstance(error, SyntaxError) else ""
            said = getattr(error, "msg", error)
            yield ProjectFinding("error", f"{where}{line}", _("it is not Python: {said}", said=said))
            continue
        yield from _names(where, tree)
        if known is not None:
            yield from _missing(where, text, path.relative_to(source.parent), known)
        if path == source:
            yield from _actions(where, tree)
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "ctx":
                used.setdefault(node.attr, f"{where}, line {node.lineno}")
    yield from _capabilities(project, used)


def _known_modules(project: Project, folder: Path) -> set[str] | None:
    """What a source may import besides the standard library; None if its packages were never installed."""
    known = {*importable(folder), "llmasos_sdk"}
    if not project.manifest.runtime.requirements:
        return known
    packages = installed_packages(project)
    return None if packages is None else known | importable(packages)


def _missing(where: str, text: str, path: Path, known: set[str]) -> Iterator[ProjectFinding]:
    module = ".".join(path.parent.parts if path.name == "__init__.py" else path.with_suffix("").parts)
    for each in missing_imports(text, module, known, is_package=path.name == "__init__.py"):
        said = _(
            "neither the app, its packages nor Python has a module {module!r}; `llmasos add PACKAGE` adds one",
            module=each.module.partition(".")[0],
        )
        yield ProjectFinding("error", f"{where}, line {each.line}", said)


def _names(where: str, tree: ast.Module) -> Iterator[ProjectFinding]:
    for each in undefined_names(tree, where) or ():
        said = _("the name {name!r} is used, and nothing defines it: import or define it", name=each.name)
        yield ProjectFinding("error", f"{where}, line {each.line}", said)


def _capabilities(project: Project, used: dict[str, str]) -> Iterator[ProjectFinding]:
    """Check the capabilities that the source uses against the manifest; the context is called `ctx` by convention."""
    from llmasos_sdk.context import permission_lines  # noqa: PLC0415 (only Python sources need it)

    declared = project.manifest.capabilities
    for name in sorted(CAPABILITIES & used.keys() - declared):
        lines = permission_lines(name).replace("\n", "\n    ")
        yield ProjectFinding(
            "error",
            used[name],
            _(
                "ctx.{name} is not declared in {manifest}; add:\n    {lines}",
                name=name,
                manifest=layout.MANIFEST,
                lines=lines,
            ),
        )
    for name in sorted(declared - used.keys() - {"secrets"}):
        said = _("the permission {name!r} is requested, but the source never uses ctx.{name}; remove it", name=name)
        yield ProjectFinding("warning", layout.MANIFEST, said)


def _actions(where: str, tree: ast.Module) -> Iterator[ProjectFinding]:
    found = 0
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if not any(_is_action(each) for each in node.decorator_list):
            continue
        found += 1
        place = f"{where}, line {node.lineno}"
        if isinstance(node, ast.AsyncFunctionDef):
            said = _("action {node} is async; write it as a plain `def`", node=node.name)
            yield ProjectFinding("error", place, said)
        parameters = [*node.args.posonlyargs, *node.args.args]
        if not parameters:
            line = f"def {node.name}(ctx: Context, ...)"
            said = _("action {node} takes no context: {line}", node=node.name, line=line)
            yield ProjectFinding("error", place, said)
        for parameter in [*parameters[1:], *node.args.kwonlyargs]:
            if parameter.annotation is None:
                hint = f"`{parameter.arg}: str`"
                yield ProjectFinding(
                    "error",
                    place,
                    _(
                        "the input {arg!r} of {node} needs a type hint, such as {hint}",
                        arg=parameter.arg,
                        node=node.name,
                        hint=hint,
                    ),
                )
        if ast.get_docstring(node) is None:
            said = _("action {node} has no docstring; its first line tells people what it does", node=node.name)
            yield ProjectFinding("warning", place, said)
    if not found and "App" in ast.dump(tree):
        said = _("the app has no action; write a function below `@app.action`")
        yield ProjectFinding("error", where, said)
    elif not found:
        said = _("there is no app in it; write `app = App()` and a function below `@app.action`")
        yield ProjectFinding("error", where, said)


def _is_action(decorator: ast.expr) -> bool:
    target = decorator.func if isinstance(decorator, ast.Call) else decorator
    return isinstance(target, ast.Attribute) and target.attr == "action"
