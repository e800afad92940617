"""11-34: the tests of a TypeScript app run on the Node.js that the documentation names."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tests.platform.authoring.projects import write_project

from llmasos.authoring import javascript
from llmasos.authoring.project import open_project
from llmasos.authoring.testing import environment, node_command
from llmasos.errors import NotFound, Unavailable

WORDS = """
export enum Tone { warm = "Warm", cold = "Cold" }
export class Greeting {
  constructor(private readonly tone: Tone) {}
  text = (): string => `${this.tone}!`;
}
"""
APP = """
import { App, type Context } from "@llmasos/sdk";
import { Greeting, Tone } from "./words";
import { twice } from "./more.js";

const app = new App();
app.action("greet", (_ctx: Context) => twice(new Greeting(Tone.warm).text()));
export default app;
"""
MORE = "export const twice = (text: string): string => text + text;\n"
TESTS = """
import assert from "node:assert/strict";
import { test } from "node:test";
import { call } from "@llmasos/sdk/testing";
import app from "../app.ts";

type Row = { text: string };

test("it greets", () => {
  const row: Row = { text: call(app, "greet") };
  assert.equal(row.text, EXPECTED);
});
"""


def _project(folder: Path, tests: str) -> Any:
    files = {"app.ts": APP, "words.ts": WORDS, "more.ts": MORE, "tests/app.test.ts": tests}
    return open_project(write_project(folder / "p", files, 'kind = "wasm"\nsource = "app.ts"', ""))


@pytest.mark.node
@pytest.mark.skipif(shutil.which("npm") is None, reason="needs Node.js")
@pytest.mark.parametrize(("expected", "ok"), [("Warm!Warm!", True), ("Cold!", False)])
async def test_they_run_as_a_build_reads_them(stocked_home: Path, tmp_path: Path, expected: str, ok: bool) -> None:
    """Enums, parameter properties and paths without `.ts`; a failure names the line that the author wrote."""
    project = _project(tmp_path, TESTS.replace("EXPECTED", repr(expected)))
    env = await environment(project)
    done = subprocess.run(node_command(project), env=env, cwd=project.root, capture_output=True, text=True, check=False)
    assert (done.returncode == 0) is ok, done.stdout
    assert ("app.test.ts:11:10" in done.stdout) is not ok


def test_a_node_that_is_too_old_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    node = tmp_path / "node"
    node.write_text("#!/bin/sh\necho v9.11.2\n")
    node.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    with pytest.raises(Unavailable, match=r"Node.js v9.11.2 is too old: install 20 or later"):
        node_command(_project(tmp_path, TESTS))


def test_a_project_without_tests_is_told_which_file_to_write(tmp_path: Path) -> None:
    project = open_project(write_project(tmp_path / "p", {"app.ts": APP}, 'kind = "wasm"\nsource = "app.ts"', ""))
    with pytest.raises(NotFound, match=r"write tests/app.test.ts"):
        node_command(project)


def test_the_sdk_in_a_project_is_that_of_this_version(tmp_path: Path) -> None:
    """One that an older version put there is replaced, files that the SDK no longer has included."""
    javascript.install_sdk(tmp_path)
    installed = tmp_path / "node_modules" / "@llmasos" / "sdk"
    types = (installed / "src" / "index.d.ts").read_bytes()
    (installed / "src" / "index.d.ts").write_text("old")
    (installed / "src" / "gone.js").write_text("old")
    javascript.install_sdk(tmp_path)
    assert (installed / "src" / "index.d.ts").read_bytes() == types
    assert not (installed / "src" / "gone.js").exists()
