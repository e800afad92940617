"""The JavaScript SDK, by Node's own test runner."""

import shutil
import subprocess
from pathlib import Path

import pytest

SDK = Path(__file__).parents[2] / "sdk" / "js"


@pytest.mark.node
@pytest.mark.skipif(shutil.which("node") is None, reason="needs Node.js")
def test_the_javascript_sdk_passes_its_own_tests() -> None:
    run = subprocess.run(["node", "--test", "test/"], cwd=SDK, capture_output=True, text=True, check=False, timeout=120)
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-1000:]
    assert "# fail 0" in run.stdout
