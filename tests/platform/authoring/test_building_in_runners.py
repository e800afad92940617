"""A new app is built, described and inspected by real runners, from the command line."""

import contextlib
import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from llmasos.authoring.build import build
from llmasos.authoring.describe import in_runners
from llmasos.bundles.reader import read_bundle
from llmasos.settings import Settings
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


async def test_a_first_party_app_builds(stocked_home: Path, tmp_path: Path) -> None:
    first_party = Path(__file__).parents[3] / "plugins" / "triage"
    async with in_runners(Settings()) as runners:
        bundle = read_bundle(await build(first_party, tmp_path / "triage.llmapp", describe=runners.describe))
    assert bundle.manifest.id == "llmasos/triage"
    assert bundle.actions
