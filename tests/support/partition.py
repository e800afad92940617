"""How pytest-xdist divides the tests: by file, since module fixtures are expensive; the longest files first.

The files that share one quickstart stay together, and so do those that share one server for browsers.
"""

from __future__ import annotations

import os
from typing import Any

import pytest
from xdist.scheduler import LoadFileScheduling

SHARING = ("main_job", "interruptions", "native_apps", "wheels")
TOGETHER = tuple(f"tests/acceptance/test_{name}.py" for name in SHARING)
BROWSER = "tests/browser/"
# What takes longest goes first, so that no worker is left alone with it at the end. An app that two files build is
# built once if one of them is far ahead: `new` and `build` come before a user of the quickstart does the same.
LONGEST_FIRST = (
    *TOGETHER,
    "tests/platform/authoring/test_building_in_runners.py",
    BROWSER,
    "tests/acceptance/",
    "tests/platform/authoring/",
    "tests/sdk/test_sdk_conformance.py",
    "tests/server/cli/test_lifecycle_hooks.py",
    "tests/platform/runtimes/test_component_runtime.py",
    "tests/platform/gateway/test_embedded_",
    "tests/platform/native/",
    "tests/platform/installs/test_kill_at_every_step.py",
)


class Partition(LoadFileScheduling):
    """Gives a worker one file at a time, or a folder whose files belong together."""

    def _split_scope(self, nodeid: str) -> str:
        scope = super()._split_scope(nodeid)
        if scope.startswith(BROWSER):
            return BROWSER
        return TOGETHER[0] if scope in TOGETHER else scope


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def rank(item: pytest.Item) -> int:
        known = (place for place, start in enumerate(LONGEST_FIRST) if item.nodeid.startswith(start))
        return next(known, len(LONGEST_FIRST))

    items.sort(key=rank)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Partition:
    return Partition(config, log)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """One worker a core for a whole suite; none for a part of it, which runs sooner in this process."""
    suites = {str(config.rootpath / name) for name in config.getini("testpaths")}
    named = {str((config.invocation_params.dir / word).resolve()) for word in config.args}
    if not named & suites:
        return 0
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
