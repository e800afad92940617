"""Fixtures for an app's own tests. pytest loads them wherever the SDK is installed.

def test_it_greets(llmasos_app, fake_context):
    fake_context.scripted.answers("Hello, Ada!")
    assert call(llmasos_app, "greet", fake_context, name="Ada") == "Hello, Ada!"
"""

from __future__ import annotations

import importlib.util
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest

if TYPE_CHECKING:
    from llmasos_sdk.app import App
    from llmasos_sdk.testing import FakeContext

MANIFEST = "llmapp.toml"


def find_project(start: Path) -> Path:
    """The nearest folder with a manifest, from `start` upward.

    Raises:
        LookupError: There is none.
    """
    for folder in (start, *start.parents):
        if (folder / MANIFEST).is_file():
            return folder
    raise LookupError(f"no {MANIFEST} in {start} or above; make an app with `llmasos new NAME`")


def load_app(project: Path, manifest: dict[str, Any]) -> App:
    """Import the source that the manifest names, and return its app.

    Raises:
        LookupError: The manifest names no Python source, or it holds no app.
    """
    from llmasos_sdk.app import find_app  # noqa: PLC0415 (pytest loads this module in every project)

    source = str(manifest.get("runtime", {}).get("source") or "")
    if not source.endswith(".py"):
        raise LookupError(f'{MANIFEST} names no Python source: [runtime] source = "app.py"')
    path = project / source
    folder = str(path.parent)
    if folder not in sys.path:  # so that the source imports its siblings, as it does inside a component
        sys.path.insert(0, folder)
    loaded = sys.modules.get(path.stem)
    if loaded is None or Path(loaded.__file__ or "") != path:
        spec = importlib.util.spec_from_file_location(path.stem, path)
        if spec is None or spec.loader is None:
            raise LookupError(f"{source} cannot be imported")
        loaded = importlib.util.module_from_spec(spec)
        sys.modules[path.stem] = loaded
        spec.loader.exec_module(loaded)
    return find_app(loaded)


def context_of(manifest: dict[str, Any]) -> FakeContext:
    """A fake context with what the manifest declares: its capabilities, limits and config defaults."""
    from llmasos_sdk.testing import FakeContext, MemoryStorage, ScriptedModel  # noqa: PLC0415 (as above)

    asked = {each["capability"]: each for each in cast("list[dict[str, Any]]", manifest.get("permissions", []))}
    fields = cast("dict[str, dict[str, Any]]", manifest.get("config", {}))
    model = asked.get("model")
    storage = asked.get("storage")
    return FakeContext(
        model=None if model is None else ScriptedModel(max_output_tokens=model.get("max_output_tokens", 1024)),
        storage=None if storage is None else MemoryStorage(max_bytes=storage.get("max_bytes", 1 << 20)),
        config={name: field["default"] for name, field in fields.items() if "default" in field},
        http=_unreachable if "http" in asked else None,
        secrets=[] if "secrets" in asked else None,
        apps={} if "apps" in asked else None,
    )


def _unreachable(request: dict[str, Any]) -> dict[str, Any]:
    from llmasos_sdk.errors import Unavailable  # noqa: PLC0415 (as above)

    raise Unavailable(f"a test reaches no server ({request['url']}); make FakeContext(http=...) with answers")


@pytest.fixture
def llmasos_project(request: pytest.FixtureRequest) -> Path:
    """The folder of the app that contains the test."""
    return find_project(request.path.parent)


@pytest.fixture
def llmasos_manifest(llmasos_project: Path) -> dict[str, Any]:
    """The manifest of that app, as TOML gives it."""
    return tomllib.loads((llmasos_project / MANIFEST).read_text(encoding="utf-8"))


@pytest.fixture
def llmasos_app(llmasos_project: Path, llmasos_manifest: dict[str, Any]) -> App:
    """The app itself."""
    return load_app(llmasos_project, llmasos_manifest)


@pytest.fixture
def fake_context(llmasos_manifest: dict[str, Any]) -> FakeContext:
    """A `FakeContext` that offers what the project's manifest declares, and no more."""
    return context_of(llmasos_manifest)
