"""Python source to a component, by componentize-py.

The component's entry module joins the SDK and the author's module. componentize-py imports it once, at build time,
and keeps the memory as it then is: imports cost a run nothing, but what is imported later is not there. So the
entry also imports what the source imports inside functions.
"""

from __future__ import annotations

import ast
import importlib.util
import re
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

from llmasos.authoring import tools, wit
from llmasos.authoring.process import BuildFailed, run_tool
from llmasos.authoring.project import source_files
from llmasos.errors import Unavailable
from llmasos.i18n import _

ENTRY = "llmasos_entry"
# The standard library imports these inside functions: `strptime`, and texts in encodings that are not UTF-8.
LATE_IN_LIBRARY = ("_strptime", "encodings.ascii", "encodings.idna", "encodings.latin_1", "encodings.utf_8_sig")
RESERVED = frozenset({ENTRY, "wit_world", "llmasos_sdk", "pluggy", "componentize_py_types"})


def late_imports(source: str) -> set[str]:
    """The modules that a source imports inside functions; empty where it does not parse.

    Relative imports are left out: their package is there once its modules are imported.
    """
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return set()
    found: set[str] = set()
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        for node in ast.walk(function):
            if isinstance(node, ast.Import):
                found.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                found.add(node.module)
    return found


def entry_source(module: str, interfaces: Iterable[str], late: Iterable[str]) -> str:
    """The entry module of a component.

    Args:
        module: The author's.
        interfaces: What the world imports.
        late: Modules to import besides; one that is not there is left for the run to report.
    """
    named = sorted(interfaces)
    table = ", ".join(f'"{name}": {name}' for name in named)
    return f"""\
import contextlib
import importlib

import componentize_py_types
from wit_world.imports import {", ".join(named)}, types

from llmasos_sdk.app import find_app
from llmasos_sdk.guest import handler

app_module = importlib.import_module({module!r})
for name in {sorted(late)!r}:
    with contextlib.suppress(ImportError):
        importlib.import_module(name)

Handler = handler(find_app(app_module), {{{table}}}, types, componentize_py_types.Err)
"""


def stage(source: Path, capabilities: frozenset[str], folder: Path) -> None:
    """Lay out what componentize-py reads: the world, the entry, the author's files, and the SDK.

    Raises:
        BuildFailed: The source's name is taken.
    """
    module = source.stem
    if module in RESERVED or not module.isidentifier():
        raise BuildFailed(
            _("{source} cannot be an app's module: rename it, such as app.py", source=source.name),
        )
    wit.write_world(capabilities, folder / "wit")
    late = set(LATE_IN_LIBRARY)
    for path in source_files(source.parent):
        target = folder / "src" / path.relative_to(source.parent)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
        if path.suffix == ".py":
            late |= late_imports(path.read_text(encoding="utf-8", errors="replace"))
    for package in ("llmasos_sdk", "pluggy"):
        ignored = shutil.ignore_patterns("__pycache__", "wit", "js", "testing.py", "fakes", "pytest_plugin.py")
        shutil.copytree(_package_folder(package), folder / "lib" / package, ignore=ignored)
    entry = folder / "entry" / f"{ENTRY}.py"
    entry.parent.mkdir()
    entry.write_text(entry_source(module, wit.imported(capabilities), late - RESERVED), encoding="utf-8")


def _package_folder(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise Unavailable(
            _("the package {name} is not installed: pip install llmasos", name=name),
        )
    return Path(spec.origin).parent


async def componentize(staged: Path) -> bytes:
    """The component of a staged folder.

    Raises:
        BuildFailed: The source does not import; the message has the author's own error.
        Unavailable: componentize-py is not installed.
    """
    if importlib.util.find_spec("componentize_py") is None:
        raise tools.missing("componentize-py")
    # It would otherwise put the environment that it runs in on the component's path, and read all of it.
    empty = staged / "venv"
    (empty / "lib" / "site-packages").mkdir(parents=True)
    script = "import sys; from componentize_py import script; sys.argv[0] = 'componentize-py'; sys.exit(script())"
    command = [sys.executable, "-c", script, "-q", "-d", "wit", "-w", wit.WORLD, "componentize", ENTRY]
    paths = [part for folder in ("entry", "src", "lib") for part in ("-p", folder)]
    try:
        await run_tool(
            [*command, *paths, "-o", "app.wasm"],
            cwd=staged,
            what="componentize-py",
            env={"VIRTUAL_ENV": str(empty)},
        )
    except BuildFailed as error:
        told = _told(error.detail)
        raise BuildFailed(
            _("the source does not import: {error}", error=told) if told else error.message,
            detail=error.detail,
        ) from None
    return (staged / "app.wasm").read_bytes()


_FRAME = re.compile(r'File "/1/(?P<file>[^"]+)", line (?P<line>\d+)')
_RAISED = re.compile(r"^(?:\w+\.)*(?P<error>\w+(?:Error|Exception|Interrupt|Exit)\b.*)$", re.MULTILINE)


def _told(output: str) -> str:
    """The author's own error in componentize-py's output, with the place in the author's file."""
    raised = _RAISED.findall(output)
    if not raised:
        return ""
    frames = list(_FRAME.finditer(output))
    where = f" ({frames[-1]['file']}, line {frames[-1]['line']})" if frames else ""
    return f"{raised[-1][:300]}{where}"
