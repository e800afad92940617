"""Inside the component of `llmasos run .` and `llmasos dev`: the interpreter, the SDK and the app's packages.

It has no app: each call hands over the source, so that a change needs no build. The source's files are in memory and
are imported from there, under the names that they have in a built component.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import json
import sys
import traceback
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any, cast

from llmasos_sdk.app import App, find_app
from llmasos_sdk.context import Context
from llmasos_sdk.errors import AppError, Invalid, Unavailable
from llmasos_sdk.guest import ComponentHost, failure_maker
from llmasos_sdk.guest_files import MemoryFiles, serve
from llmasos_sdk.messages import message as _
from llmasos_sdk.messages import well_formed

# The path of the app's folder while componentize-py builds it.
ROOT = "/1"


class SourceFinder:
    """Finds an app's modules among the files that the host sent."""

    def __init__(self, files: MemoryFiles) -> None:
        self._files = files

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """The spec of a module or package of the app; None if it has none of that name."""
        base = f"{ROOT}/{name.replace('.', '/')}"
        for file, folder in ((f"{base}/__init__.py", [base]), (f"{base}.py", None)):
            if self._files.path(file) is not None:
                loader = importlib.machinery.SourceFileLoader(name, file)
                return importlib.util.spec_from_file_location(
                    name, file, loader=loader, submodule_search_locations=folder
                )
        if self._files.path(base) is not None:  # a folder without `__init__.py`
            spec = importlib.machinery.ModuleSpec(name, None, is_package=True)
            spec.submodule_search_locations = [base]
            return spec
        return None


def load(source: Mapping[str, Any]) -> App:
    """Import an app from its files.

    Args:
        source: `module`, the app's; `own`, all of its modules; `files`, their texts by path; and `data`, the other
            files, each byte as a character of Latin-1.

    Raises:
        Invalid: It does not import, or describes no app; the message has the author's line.
    """
    contents = {name: text.encode() for name, text in source["files"].items()}
    contents |= {name: text.encode("latin-1") for name, text in source["data"].items()}
    files = MemoryFiles(ROOT, contents)
    serve(files)
    sys.meta_path.insert(0, cast("Any", SourceFinder(files)))
    try:
        module = importlib.import_module(source["module"])
        for name in source["own"]:
            importlib.import_module(name)
        app = find_app(module)
        app.describe()
    except Exception as error:
        raise _does_not_import(error) from None
    return app


def _does_not_import(error: Exception) -> AppError:
    traceback.print_exception(error)
    frames = [each for each in traceback.extract_tb(error.__traceback__) if each.filename.startswith(f"{ROOT}/")]
    line = error.lineno if isinstance(error, SyntaxError) else frames[-1].lineno if frames else None
    file = error.filename if isinstance(error, SyntaxError) else frames[-1].filename if frames else None
    said = f"{type(error).__name__}: {error.msg if isinstance(error, SyntaxError) else error}"
    if file is not None and line is not None:
        said += f" ({file.removeprefix(f'{ROOT}/')}, line {line})"
    return Invalid(_("the source does not import: {error}", error=said))


def handler(interfaces: Mapping[str, ModuleType], types: ModuleType, err: type[Exception]) -> type:
    """The class that componentize-py exports as the interface `handler`; see `guest.handler`.

    Its `call` gets the action's name and a JSON object: `source` as `load` takes it, and `input`, the action's own
    input as text, or null to describe the app.
    """
    host = ComponentHost(interfaces, err)
    failure = failure_maker(types, err)

    class Handler:
        def describe(self) -> str:
            return "[]"

        def call(self, action: str, input: str) -> str:  # noqa: A002 (the contract's name)
            handed: Mapping[str, Any] = json.loads(input)
            try:
                app = load(handed["source"])
                if handed["input"] is None:
                    return well_formed(json.dumps(app.describe(), ensure_ascii=False))
                return well_formed(app.call(action, handed["input"], Context(host)))
            except AppError as error:
                raise failure(error) from None
            except RecursionError:
                raise failure(Unavailable(_("the app recursed too deeply"))) from None

    return Handler
