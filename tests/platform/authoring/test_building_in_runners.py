"""A new app is built, described and inspected by real runners, from the command line."""

import contextlib
import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from llmasos_server.cli.shell import app


@pytest.mark.parametrize(
    "language",
    [
        "python",
        pytest.param(
            "javascript",
            marks=[pytest.mark.node, pytest.mark.skipif(shutil.which("npm") is None, reason="needs Node.js")],
        ),
    ],
)
def test_new_test_build_and_inspect_work_one_after_the_other(language: str, stocked_home: Path, tmp_path: Path) -> None:
    def run(*words: str, cwd: Path) -> dict:
        with contextlib.chdir(cwd):
            done = CliRunner().invoke(app, [*words, "--json"])
        assert done.exit_code == 0, done.stderr + done.stdout
        return json.loads(done.stdout)

    folder = Path(run("new", "acme/hello", "--language", language, cwd=tmp_path)["path"])
    assert run("test", cwd=folder)["ok"]
    built = run("build", cwd=folder)
    report = run("inspect", built["path"], cwd=folder)
    assert report["id"] == "acme/hello"
    assert report["digest"] == built["digest"]
    assert report["undeclared"] == []
    assert [action["name"] for action in report["actions"]] == ["greet"]
    ours = {name.split("/")[1].split("@")[0] for name in report["imports"] if name.startswith("llmasos:app/")}
    assert ours == {"types", "output", "log", "config", "model"}
    if language == "javascript":
        assert len(ours) == len(report["imports"])
    assert run("build", "-o", "again.llmapp", cwd=folder)["digest"] == built["digest"]
