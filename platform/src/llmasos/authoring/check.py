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
from llmasos.i18n import t

CAPABILITIES = frozenset({"model", "storage", "http", "secrets", "apps"})


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong (an error) or that may be (a warning), with where and the cure."""

    level: str
    where: str
    message: str
    zh: str

    def text(self, locale: str) -> str:
        """The finding on one line."""
        return t(locale, f"{self.where}: {self.message}", f"{self.where}：{self.zh}")


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
        return [Finding("error", layout.MANIFEST, error.message, error.message_zh)]
    return [*_files(project), *_code(project)]


def has_errors(findings: list[Finding]) -> bool:
    """Whether a build would fail, or an app would."""
    return any(finding.level == "error" for finding in findings)


def _files(project: Project) -> Iterator[Finding]:
    manifest = project.manifest
    if not (project.root / layout.README).is_file():
        yield Finding(
            "error",
            layout.README,
            "it is missing; write what the app does, for its page",
            "缺少此文件：请写明应用的用途，供其页面展示",
        )
    elif manifest.name.zh and not (project.root / "README.zh.md").is_file():
        yield Finding(
            "warning",
            "README.zh.md",
            "the manifest speaks Chinese, and there is no Chinese README",
            "清单含中文，但没有中文 README",
        )
    if manifest.icon is None:
        yield Finding(
            "warning", layout.MANIFEST, 'the app has no icon: icon = "icon.svg"', '应用没有图标：icon = "icon.svg"'
        )
    elif not (project.root / manifest.icon).is_file():
        yield Finding(
            "error",
            layout.MANIFEST,
            f"icon = {manifest.icon!r}, and there is no such file",
            f"icon = {manifest.icon!r}，但没有该文件",
        )
    elif (project.root / manifest.icon).stat().st_size > layout.MAX_ICON_BYTES:
        kib = layout.MAX_ICON_BYTES >> 10
        yield Finding("error", manifest.icon, f"it is over {kib} KiB; make it smaller", f"超过 {kib} KiB：请缩小")


def _code(project: Project) -> Iterator[Finding]:
    runtime = project.manifest.runtime
    for key in ("source", "component", "wheel"):
        named = getattr(runtime, key)
        if named is None:
            continue
        path = project.root / named
        if not path.is_file():
            line = f"[runtime] {key} = {named!r}"
            yield Finding("error", layout.MANIFEST, f"{line}, and there is no such file", f"{line}，但没有该文件")
        elif key == "component":
            yield from _binary(path)
        elif key == "source" and path.suffix == ".py":
            yield from _python(project, path)
        elif key == "source" and (path.suffix not in javascript.SUFFIXES or runtime.kind == "python"):
            line = f"[runtime] source = {named!r}"
            kinds, kinds_zh = (".py", ".py") if runtime.kind == "python" else (".py, .js or .ts", ".py、.js 或 .ts")
            yield Finding("error", layout.MANIFEST, f"{line} is not a {kinds} file", f"{line} 不是 {kinds_zh} 文件")


def _binary(path: Path) -> Iterator[Finding]:
    with path.open("rb") as file:
        head = file.read(8)
    if head[:4] != wrap.MAGIC or head[4:] not in (wrap.CORE, wrap.COMPONENT):
        yield Finding(
            "error",
            path.name,
            "it is not WebAssembly; name the .wasm file that your compiler made",
            "不是 WebAssembly：请指定编译器生成的 .wasm 文件",
        )


def _python(project: Project, source: Path) -> Iterator[Finding]:
    if source.stem in python.RESERVED or not source.stem.isidentifier():
        yield Finding(
            "error",
            source.name,
            "it cannot be an app's module; rename it, such as app.py",
            "不能作为应用的模块：请改名，例如 app.py",
        )
    used: dict[str, str] = {}
    try:
        paths = [path for path in source_files(source.parent) if path.suffix == ".py"]
    except BuildFailed as error:
        yield Finding("error", source.parent.name, error.message, error.message_zh)
        return
    for path in paths:
        where = path.relative_to(project.root).as_posix()
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (SyntaxError, ValueError) as error:
            line = f", line {error.lineno}" if isinstance(error, SyntaxError) else ""
            said = getattr(error, "msg", error)
            yield Finding("error", f"{where}{line}", f"it is not Python: {said}", f"不是 Python 代码：{said}")
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
        yield Finding(
            "error",
            used[name],
            f"ctx.{name} is not declared in {layout.MANIFEST}; add:\n    {lines}",
            f"{layout.MANIFEST} 未声明 ctx.{name}：请添加：\n    {lines}",
        )
    for name in sorted(declared - used.keys() - {"secrets"}):
        message = f"the permission {name!r} is asked for, and the source never uses ctx.{name}; ask for less"
        zh = f"申请了权限 {name!r}，但源代码从未使用 ctx.{name}：请去掉"
        yield Finding("warning", layout.MANIFEST, message, zh)


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
            en, zh = (
                f"action {node.name} is async; write it as a plain `def`",
                f"操作 {node.name} 是异步的：请写成普通的 `def`",
            )
            yield Finding("error", place, en, zh)
        parameters = [*node.args.posonlyargs, *node.args.args]
        if not parameters:
            line = f"def {node.name}(ctx: Context, ...)"
            en, zh = f"action {node.name} takes no context: {line}", f"操作 {node.name} 没有接收上下文：{line}"
            yield Finding("error", place, en, zh)
        for parameter in [*parameters[1:], *node.args.kwonlyargs]:
            if parameter.annotation is None:
                hint = f"`{parameter.arg}: str`"
                yield Finding(
                    "error",
                    place,
                    f"the input {parameter.arg!r} of {node.name} needs a type hint, such as {hint}",
                    f"{node.name} 的输入 {parameter.arg!r} 需要类型注解，例如 {hint}",
                )
        if ast.get_docstring(node) is None:
            en = f"action {node.name} has no docstring; its first line tells people what it does"
            zh = f"操作 {node.name} 没有文档字符串：其首行说明该操作的用途"
            yield Finding("warning", place, en, zh)
    if not found and "App" in ast.dump(tree):
        en, zh = (
            "the app has no action; write a function below `@app.action`",
            "应用没有操作：请在 `@app.action` 下写一个函数",
        )
        yield Finding("error", where, en, zh)
    elif not found:
        en = "there is no app in it; write `app = App()` and a function below `@app.action`"
        zh = "其中没有应用：请写 `app = App()`，并在 `@app.action` 下写一个函数"
        yield Finding("error", where, en, zh)


def _is_action(decorator: ast.expr) -> bool:
    target = decorator.func if isinstance(decorator, ast.Call) else decorator
    return isinstance(target, ast.Attribute) and target.attr == "action"
