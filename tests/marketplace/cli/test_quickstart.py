"""The newcomer's command, on the real model and the real apps."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from llmasos.gateway.embedded.weights import SMOLLM2_WEIGHTS
from llmasos.home import default_home


def run(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "llmasos_marketplace.cli", *words],
        capture_output=True,
        text=True,
        env={**os.environ, "LLMASOS_HOME": str(home), "LLMASOS_LOCALE": "en"},
        stdin=subprocess.DEVNULL,
        check=False,
    )


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("quick")
    weights = default_home() / "models" / SMOLLM2_WEIGHTS.name
    if weights.is_dir():  # fetched before on this machine: 93 MB need not come again
        (folder / "models").mkdir()
        (folder / "models" / SMOLLM2_WEIGHTS.name).symlink_to(weights, target_is_directory=True)
    return folder


def check(answer: dict[str, Any], home: Path) -> None:
    assert answer["home"] == str(home)
    assert answer["installed"] == ["llmasos/triage", "llmasos/storyteller"]
    assert [(run["app"], run["action"]) for run in answer["runs"]] == [
        ("llmasos/triage", "classify"),
        ("llmasos/storyteller", "tell"),
    ]
    for each in answer["runs"]:
        assert each["model"] == "smollm2"
        assert each["usage"]["prompt_tokens"] > 0
        assert each["usage"]["completion_tokens"] > 0
        assert min(each["fuel"], each["memory_bytes"], each["duration_ms"]) > 0
    assert answer["runs"][0]["output"]["label"] == "billing"
    assert len(answer["runs"][1]["output"]) > 40


@pytest.mark.model
@pytest.mark.timeout(1800)  # the first run builds six apps: three minutes of two idle cores, more of busy ones
def test_quickstart_sets_up_once_and_then_only_runs(home: Path) -> None:
    first = run(home, "quickstart", "--json")
    assert first.returncode == 0, first.stderr
    check(json.loads(first.stdout), home)
    kept = {path: path.stat().st_mtime_ns for part in ("bundles", "code") for path in (home / part).rglob("*")}
    before = run(home, "list", "--json").stdout
    second = run(home, "quickstart", "--json")
    assert second.returncode == 0, second.stderr
    check(json.loads(second.stdout), home)
    assert {path: path.stat().st_mtime_ns for part in ("bundles", "code") for path in (home / part).rglob("*")} == kept
    assert run(home, "list", "--json").stdout == before
    told = run(home, "quickstart")
    assert "tokens this day" in told.stdout
    assert "The sandbox: WebAssembly" in told.stdout
    assert "Building" not in told.stderr
    doctor = run(home, "doctor", "--json")
    assert doctor.returncode == 0, doctor.stdout
