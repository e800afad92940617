"""Finds what Python source imports anywhere in it, without running it."""

from __future__ import annotations

import ast
import importlib.util
import sys
from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Final

# What the standard library imports for its own command lines and tests, or for what a component does not have.
_NEVER_NEEDED: Final = frozenset(
    {"argparse", "code", "ctypes", "doctest", "getopt", "multiprocessing", "pdb", "pydoc", "readline", "socket", "ssl"}
    | {"subprocess", "test", "threading", "tkinter", "unittest", "webbrowser", "winreg", "msvcrt", "nt", "optparse"}
)
# What the standard library of a component imports late, and that of an older interpreter does not.
_LATE_IN_COMPONENTS: Final = {"importlib.metadata": ("importlib.metadata._adapters", "email")}
# The library of this interpreter, and what that of a component has besides.
_LIBRARY: Final = sys.stdlib_module_names | {"annotationlib", "compression"}
_MODULES: Final = frozenset({".py", ".so", ".pyd"})
_CATCHES_IMPORT_ERRORS = frozenset({"ImportError", "ModuleNotFoundError", "Exception", "BaseException"})


@dataclass(frozen=True, slots=True)
class Import:
    """One module that a line of source imports."""

    module: str
    line: int
    optional: bool
    """Whether the source goes on without it: the import is inside a `try` that catches its error, or what is named may
    be a value of a package and no module."""
    late: bool = False
    """Whether it is imported inside a function."""


def imports_of(source: str, module: str, *, is_package: bool = False) -> list[Import]:
    """Every module that a source imports, at its top and inside functions; none if it is not Python.

    Args:
        source: The text.
        module: The module's own name, from which relative imports are resolved.
        is_package: Whether it is a package's `__init__`.
    """
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return []
    return list(_imports(tree, module if is_package else module.rpartition(".")[0], optional=False))


def _imports(node: ast.AST, package: str, *, optional: bool) -> Iterator[Import]:
    if isinstance(node, ast.Try) and any(map(_catches, node.handlers)):
        for tried in node.body:
            yield from _imports(tried, package, optional=True)
        for child in (*node.handlers, *node.orelse, *node.finalbody):
            yield from _imports(child, package, optional=optional)
        return
    if isinstance(node, ast.If) and _is_type_checking(node.test):
        return
    if isinstance(node, ast.Import):
        yield from (Import(alias.name, node.lineno, optional) for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        source = _absolute(node, package)
        if source:
            yield Import(source, node.lineno, optional)
            names = (alias.name for alias in node.names if alias.name != "*")
            yield from (Import(f"{source}.{name}", node.lineno, optional=True) for name in names)
    elif isinstance(node, ast.Call) and (named := _imported_by_call(node)):
        yield Import(named, node.lineno, optional)
    inside_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
    for inner in ast.iter_child_nodes(node):
        for each in _imports(inner, package, optional=optional):
            yield replace(each, late=True) if inside_function else each


def importable(folder: Path) -> set[str]:
    """The names of the modules and packages in a folder, as an import begins with them."""
    return {path.name.partition(".")[0] for path in folder.iterdir() if path.is_dir() or path.suffix in _MODULES}


def missing_imports(source: str, module: str, known: Set[str], *, is_package: bool = False) -> list[Import]:
    """The modules that a source needs and nothing provides.

    Args:
        source: The text.
        module: The module's own name.
        known: The modules that there are besides the standard library, by the first part of their names.
        is_package: Whether it is a package's `__init__`.
    """
    return [
        each
        for each in imports_of(source, module, is_package=is_package)
        if not each.optional and each.module.partition(".")[0] not in known | _LIBRARY
    ]


def late_in_library(modules: Iterable[str]) -> set[str]:
    """What modules of the standard library import inside their functions, and those that they import so in turn.

    Read from the standard library of this interpreter, which differs little from a component's; what is not there is
    left out when the component is built.
    """
    waiting = [name for name in modules if name.partition(".")[0] in sys.stdlib_module_names]
    found = {late for name in waiting for late in _LATE_IN_COMPONENTS.get(name, ())}
    waiting += found
    while waiting:
        name = waiting.pop()
        for each in _late_in(name):
            if each not in found and each.partition(".")[0] in sys.stdlib_module_names - _NEVER_NEEDED:
                found.add(each)
                waiting.append(each)
    return found


def reached_in_packages(folder: Path, modules: Iterable[str]) -> set[str]:
    """What is imported, at the top or later, by modules of packages and by those that they import in turn.

    Args:
        folder: With the packages.
        modules: Where to begin.
    """
    waiting, seen, reached = list(modules), set[str](), set[str]()
    while waiting:
        name = waiting.pop()
        path = _source_in(folder, name)
        if name in seen or path is None:
            continue
        seen.add(name)
        text = path.read_text(encoding="utf-8", errors="replace")
        found = {each.module for each in imports_of(text, name, is_package=path.name == "__init__.py")}
        reached |= found
        waiting += [*found, name.rpartition(".")[0]]
    return reached


def is_module(name: str, packages: Path) -> bool:
    """Whether a name that a source imports is a module of the standard library or of a package, and no value of one."""
    if name.partition(".")[0] not in sys.stdlib_module_names:
        return _source_in(packages, name) is not None
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def _source_in(folder: Path, module: str) -> Path | None:
    parts = module.split(".")
    if not all(part.isidentifier() for part in parts):
        return None
    base = folder.joinpath(*parts)
    return next((path for path in (base / "__init__.py", base.with_suffix(".py")) if path.is_file()), None)


@cache
def _late_in(module: str) -> frozenset[str]:
    # Cached, since `llmasos dev` calls this at each save: reading the usual modules' imports needs almost a second.
    try:
        spec = importlib.util.find_spec(module)
        if spec is None or not spec.origin or not spec.origin.endswith(".py"):
            return frozenset()
        text = Path(spec.origin).read_text(encoding="utf-8")
    except (ImportError, ValueError, OSError):
        return frozenset()
    is_package = spec.submodule_search_locations is not None
    return frozenset(each.module for each in imports_of(text, module, is_package=is_package) if each.late)


def _absolute(node: ast.ImportFrom, package: str) -> str:
    if not node.level:
        return node.module or ""
    parts = package.split(".") if package else []
    kept = parts[: len(parts) - node.level + 1]
    return ".".join([*kept, *([node.module] if node.module else [])])


def _imported_by_call(node: ast.Call) -> str:
    """The module of `importlib.import_module("…")` or `__import__("…")`."""
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    first = node.args[0] if node.args else None
    if name in {"import_module", "__import__"} and isinstance(first, ast.Constant) and isinstance(first.value, str):
        return first.value if not first.value.startswith(".") else ""
    return ""


def _catches(handler: ast.ExceptHandler) -> bool:
    if handler.type is None:
        return True
    types = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(getattr(each, "id", getattr(each, "attr", "")) in _CATCHES_IMPORT_ERRORS for each in types)


def _is_type_checking(test: ast.expr) -> bool:
    return getattr(test, "id", getattr(test, "attr", "")) == "TYPE_CHECKING"
