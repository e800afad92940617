"""How an app's own tests are run: pytest for Python, Node's runner for JavaScript."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

from llmasos.authoring import javascript, npm, tools
from llmasos.authoring.packages import packages_for_tests
from llmasos.authoring.project import Project, source_files
from llmasos.errors import NotFound
from llmasos.i18n import _


async def environment(project: Project) -> dict[str, str]:
    """The environment of an app's tests, in which they can import the packages that the app needs.

    Raises:
        Invalid: The packages cannot be locked, or do not fit this machine.
        Unavailable: They cannot be fetched.
    """
    env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    suffix = Path(project.manifest.runtime.source or "").suffix
    if suffix in javascript.SUFFIXES:
        await npm.packages_for_tests(project.root)
        javascript.install_sdk(project.root)
        if _is_typescript(project):
            rolldown = await javascript.toolchain() / "node_modules" / "rolldown" / "dist" / "utils-index.mjs"
            env["LLMASOS_ROLLDOWN"] = rolldown.as_uri()
    elif (packages := await packages_for_tests(project)) is not None:
        env["PYTHONPATH"] = os.pathsep.join(filter(None, [str(packages), env.get("PYTHONPATH")]))
    return env


def pytest_command(project: Project) -> list[str]:
    """The command that runs the tests of a Python app, with the SDK's fixtures.

    Raises:
        NotFound: It has none.
        Unavailable: pytest is not installed.
    """
    if not list(project.root.glob("tests/**/test_*.py")) and not list(project.root.glob("test_*.py")):
        raise NotFound(
            _(
                "{root} has no tests: write tests/test_app.py; the fixture fake_context is there.",
                root=project.root.name,
            ),
        )
    if importlib.util.find_spec("pytest") is None:
        raise tools.missing("pytest")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(project.root)]
    # If the author has it installed, it warns at every run; an action is never async.
    return [*command, *(["-p", "no:asyncio"] if importlib.util.find_spec("pytest_asyncio") else [])]


def node_command(project: Project) -> list[str]:
    """The command that runs the tests of a JavaScript or TypeScript app.

    Raises:
        NotFound: It has none.
        Unavailable: Node.js is not installed, or too old.
    """
    tests = _node_tests(project)
    if not tests:
        suffix = Path(project.manifest.runtime.source or "").suffix
        raise NotFound(
            _("{root} has no tests: write tests/app.test{suffix}.", root=project.root.name, suffix=suffix),
        )
    command = [javascript.node(), "--test"]
    if _is_typescript(project):
        loader = Path(__file__).parent / "jco" / "typescript.mjs"
        command = [command[0], "--enable-source-maps", "--import", loader.as_uri(), "--test"]
    return [*command, *(str(path) for path in tests)]


def _node_tests(project: Project) -> list[Path]:
    return sorted(path for path in project.root.glob("tests/**/*.test.*") if path.suffix in javascript.SUFFIXES)


def _is_typescript(project: Project) -> bool:
    files = [*source_files(project.root), *_node_tests(project)]
    return any(path.suffix in {".ts", ".mts"} and not path.name.endswith(".d.ts") for path in files)
