"""Runs the app's own tests under Node.js, where it is there."""

import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent


@pytest.mark.node
@pytest.mark.skipif(shutil.which("node") is None, reason="Node.js is not installed")
def test_the_apps_own_tests_pass(tmp_path):
    root = HERE.parents[2]
    app = tmp_path / "digest"
    shutil.copytree(HERE.parent, app)
    scope = tmp_path / "node_modules" / "@llmasos"
    scope.mkdir(parents=True)
    (scope / "sdk").symlink_to(root / "sdk" / "js", target_is_directory=True)
    (app / "package.json").write_text('{"type": "module"}')
    done = subprocess.run(
        ["node", "--test", str(app / "tests" / "app.test.mjs")],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
