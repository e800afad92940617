"""11-28: the fakes and the host run one suite, and every host function is called in a real component, with every case.

The scenarios are in `conformance/scenarios.py`. Each runs in five places: against the fakes of Python and of
JavaScript, and in the sandbox, as a component of each language and as a native app, before a host with all its
capabilities.
"""

from __future__ import annotations

import asyncio
import importlib.util
import shutil
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from llmasos.runtimes.confinement import confinement
from llmasos_runner import contract
from llmasos_sdk.host import PARAMETERS

HERE = Path(__file__).parent / "conformance"


def _module(name: str) -> Any:
    named = f"conformance_{name}"  # another test may have an app's `app`
    if named not in sys.modules:
        spec = importlib.util.spec_from_file_location(named, HERE / f"{name}.py")
        sys.modules[named] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[named])
    return sys.modules[named]


scenarios = _module("scenarios").SCENARIOS
places = _module("places")

needs_node = pytest.mark.skipif(shutil.which("npm") is None, reason="needs Node.js")
needs_confinement = pytest.mark.skipif(not confinement().is_available, reason=str(confinement().missing))
PLACES = [
    pytest.param("python fakes"),
    pytest.param("javascript fakes", marks=[pytest.mark.node, needs_node]),
    pytest.param("python component"),
    pytest.param("javascript component", marks=[pytest.mark.node, needs_node]),
    pytest.param("native app", marks=needs_confinement),
]
KINDS = {
    "python component": ("wasm", "app.py"),
    "javascript component": ("wasm", "app.js"),
    "native app": ("python", "app.py"),
}


@pytest.fixture(scope="module")
def results(stock: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What each scenario gave in a place; all of them run when the place is first asked for."""

    @cache
    def of(place: str) -> dict[str, dict[str, Any]]:
        if place == "python fakes":
            told = places.python_fakes(scenarios)
        elif place == "javascript fakes":
            told = places.javascript_fakes(scenarios)
        else:
            folder = tmp_path_factory.mktemp("conformance")
            with stock.home(folder / "home") as home, pytest.MonkeyPatch.context() as patch:
                patch.setenv("LLMASOS_HOME", str(home))
                told = asyncio.run(places.in_the_sandbox(scenarios, home, folder / "built", *KINDS[place]))
        return {scenario.name: each for scenario, each in zip(scenarios, told, strict=True)}

    return of


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("scenario", scenarios, ids=lambda scenario: scenario.name)
def test_an_app_gets_the_same_everywhere(results: Any, place: str, scenario: Any) -> None:
    """11-28, 11-36, 11-10."""
    told = results(place)[scenario.name]
    for name, expected in scenario.expected.items():
        if name == "error":
            assert expected in told.get("error", told)
        else:
            assert told.get(name, told) == expected


def test_the_scenarios_call_every_function_of_the_sdks() -> None:
    """11-28: each step of the app, which are all functions of the context, is in a scenario."""
    app = _module("app")
    called = {step[0] for scenario in scenarios for step in scenario.inputs.get("steps", ())}
    assert called == set(app.STEPS)


def test_the_sdk_checks_arguments_as_the_contract_types_them() -> None:
    """11-28: a component aborts at an argument of another type."""
    types = {
        "string": "text",
        "bool": "flag",
        "f64": "number",
        "u32": "count",
        "option<string>": "text?",
        "option<u64>": "count?",
    }
    found = {
        f"{interface}.{name}": tuple(types[each] for each in signature[5:].partition(")")[0].split(", ") if each)
        for interface, functions in contract.interfaces().items()
        if interface != contract.HANDLER
        for name, signature in functions.items()
    }
    assert found == dict(PARAMETERS)
    javascript = (HERE.parents[2] / "sdk" / "js" / "src" / "contract.js").read_text()
    for name, parameters in found.items():
        listed = ", ".join(f'"{parameter}"' for parameter in parameters)
        assert f'"{name}": [{listed}]' in javascript
