"""How an app's own tests are run: pytest for Python, Node's runner for JavaScript."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from pathlib import Path

from llmasos.authoring import javascript, npm, tools
from llmasos.authoring.packages import packages_for_tests
from llmasos.authoring.project import Project
from llmasos.errors import NotFound, Unavailable
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
    """The command that runs the tests of a JavaScript app, with the SDK placed so that the source's imports find it.

    Raises:
        NotFound: It has none.
        Unavailable: Node.js is not installed.
    """
    tests = sorted(path for path in project.root.glob("tests/**/*.test.*") if path.suffix in javascript.SUFFIXES)
    if not tests:
        raise NotFound(
            _("{root} has no tests: write tests/app.test.js.", root=project.root.name),
        )
    node = shutil.which("node")
    if node is None:
        raise Unavailable(
            _("The tests of a JavaScript app need Node.js 20 or later."),
        )
    sdk = project.root / "node_modules" / "@llmasos" / "sdk"
    if not sdk.exists():
        sdk.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(javascript.sdk_folder(), sdk, ignore=shutil.ignore_patterns("test"))
    return [node, "--test", *(str(path) for path in tests)]
