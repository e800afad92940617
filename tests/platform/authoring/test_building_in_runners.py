"""A new app is built, described and inspected by real runners, from the command line."""

import contextlib
import json
import shutil
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from llmasos_server.cli.shell import app


def _check_types(project: Path, home: Path) -> None:
    """11-34: the types of the SDK are found in a new project, without a network."""
    tsc = next((home / "tools").glob("jco-*")) / "node_modules" / "typescript" / "bin" / "tsc"
    command = ["node", tsc, "--noEmit"]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
    source = project / "app.ts"
    text = source.read_text()
    source.write_text(text.replace("answer.text.trim()", "answer.texts"))
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    assert "Property 'texts' does not exist on type 'Completion" in done.stdout
    source.write_text(text)


@pytest.mark.parametrize(
    "language",
    [
        "python",
        *(
            pytest.param(
                language,
                marks=[pytest.mark.node, pytest.mark.skipif(shutil.which("npm") is None, reason="needs Node.js")],
            )
            for language in ("javascript", "typescript")
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
    if language != "python":  # whose interpreter for development takes long to build: tests/server/cli has it
        assert run("test", "--sandbox", cwd=folder)["ok"]  # 11-32
    if language == "typescript":
        _check_types(folder, stocked_home)
    built = run("build", cwd=folder)
    report = run("inspect", built["path"], cwd=folder)
    assert report["id"] == "acme/hello"
    assert report["digest"] == built["digest"]
    assert report["undeclared"] == []
    assert [action["name"] for action in report["actions"]] == ["greet"]
    ours = {name.split("/")[1].split("@")[0] for name in report["imports"] if name.startswith("llmasos:app/")}
    assert ours == {"types", "output", "log", "config", "model"}
    if language != "python":
        assert len(ours) == len(report["imports"])
    assert run("build", "-o", "again.llmapp", cwd=folder)["digest"] == built["digest"]
