"""How pytest-xdist divides the tests: by file, since module fixtures are expensive; the longest files first.

The files that share one quickstart stay together.
"""

from __future__ import annotations

import os
from typing import Any

import pytest
from xdist.scheduler import LoadFileScheduling

SHARING = ("main_job", "interruptions", "native_apps", "wheels")
TOGETHER = tuple(f"tests/acceptance/test_{name}.py" for name in SHARING)
# What takes longest goes first, so that no worker is left alone with it at the end. What builds an app that another
# file builds too comes well after that, and finds it in the stock.
LONGEST_FIRST = (
    *TOGETHER,
    "tests/acceptance/",
    "tests/attacks/test_attacks.py",
    "tests/platform/gateway/test_embedded_model.py",
    "tests/platform/native/test_native_runtime.py",
    "tests/platform/authoring/",
    "tests/server/cli/test_lifecycle_hooks.py",
)


class Partition(LoadFileScheduling):
    """Gives a worker one file at a time, or a folder whose files belong together."""

    def _split_scope(self, nodeid: str) -> str:
        scope = super()._split_scope(nodeid)
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
