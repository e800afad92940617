"""11-32: `llmasos test --sandbox` runs the actions of a project's tests in the sandbox, over the tests' fakes."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from llmasos.runtimes.confinement import confinement
from llmasos_server.cli.shell import app

needs_node = pytest.mark.skipif(shutil.which("npm") is None, reason="needs Node.js")

MANIFEST = """
schema = 1
id = "acme/tried"
version = "0.1.0"
license = "Apache-2.0"
name.en = "Tried"
summary.en = "Is tried."
[runtime]
kind = "{kind}"
source = "{source}"
[limits]
memory_mib = 48
cpu_seconds = 3
[[permissions]]
capability = "model"
tiers = ["fast"]
reason.en = "Says."
"""
REST = """
[[permissions]]
capability = "storage"
reason.en = "Keeps."
[[permissions]]
capability = "http"
hosts = ["https://example.com"]
reason.en = "Asks."
"""
PYTHON = '''
"""Is tried."""
from llmasos_sdk import App, Context

app = App()


@app.action
def place(ctx: Context) -> str:
    """Where it runs."""
    print("printed there")
    try:
        return open("/etc/hostname").read() and "outside"
    except OSError:
        return "sandbox"


@app.action
def say(ctx: Context, prompt: str):
    """Stream."""
    yield from ctx.model.stream(prompt)


@app.action
def keep(ctx: Context, key: str) -> list[str]:
    """Store."""
    ctx.storage.compare_and_set(key, None, "值\\u2028")
    return [*ctx.storage.keys(), ctx.storage.get("missing") or "", ctx.config["tone"], ctx.locale]


@app.action
def ask(ctx: Context) -> int:
    """Ask."""
    return ctx.http.get("https://example.com/x").status


@app.action
def fail(ctx: Context) -> int:
    """Fail."""
    return {}["gone"]


@app.action
def fill(ctx: Context) -> int:
    """Take memory."""
    return len("x" * (1 << 29))
'''
PYTHON_TESTS = """
import os
import pytest
from llmasos_sdk import Conflict, Invalid, NotFound, SchemaMismatch, Unavailable
from llmasos_sdk.errors import AppFailed
from llmasos_sdk.testing import FakeContext, MemoryStorage, ScriptedModel, call


def test_place(llmasos_app, fake_context, capsys):
    assert call(llmasos_app, "place", fake_context) == "sandbox"
    assert "printed there" in capsys.readouterr().out


def test_stream(llmasos_app, fake_context):
    fake_context.scripted.answers("one two", Unavailable("no model"))
    assert call(llmasos_app, "say", fake_context, prompt="p") == "one two"
    assert fake_context.fake.chunks == ["one ", "two"]
    assert fake_context.scripted.requests[0]["messages"][-1]["content"] == "p"
    with pytest.raises(Unavailable, match="^no model$"):
        call(llmasos_app, "say", fake_context, prompt="p")
    with pytest.raises(AppFailed, match="AssertionError: ScriptedModel has no answer left"):
        call(llmasos_app, "say", fake_context, prompt="p")


def test_storage(llmasos_app):
    ctx = FakeContext(storage=MemoryStorage(), config={"tone": "warm"}, locale="zh")
    assert call(llmasos_app, "keep", ctx, key="k") == ["k", "", "warm", "zh"]
    assert ctx.memory.values["k"] == "值\\u2028".encode()
    with pytest.raises(Conflict):
        call(llmasos_app, "keep", ctx, key="k")


def test_http(llmasos_app):
    ctx = FakeContext(http=lambda request: {"status": 418})
    assert call(llmasos_app, "ask", ctx) == 418
    assert ctx.fake.http_requests[0]["url"] == "https://example.com/x"


def test_errors(llmasos_app, fake_context):
    with pytest.raises(AppFailed, match=r"KeyError: 'gone' \\(app.py, line 40\\)"):
        call(llmasos_app, "fail", fake_context)
    assert "Traceback" in fake_context.fake.logs[-1][1]
    with pytest.raises(SchemaMismatch, match="key: this input is needed"):
        call(llmasos_app, "keep", fake_context)
    with pytest.raises(NotFound, match="nope"):
        call(llmasos_app, "nope", fake_context)
    if "LLMASOS_TEST_SANDBOX" in os.environ:
        with pytest.raises(Invalid, match="(?i)memory"):
            call(llmasos_app, "fill", fake_context)
"""
JAVASCRIPT = """
import { App } from "@llmasos/sdk";
const app = new App();
app.action("place", () => {
  console.log("printed there");
  return typeof process === "undefined" ? "sandbox" : "outside";
});
app.action("say", { input: { prompt: { type: "string" } } }, function* (ctx, { prompt }) {
  yield* ctx.model.stream(prompt);
});
app.action("keep", { input: { key: { type: "string" } } }, (ctx, { key }) => {
  ctx.storage.compareAndSet(key, undefined, "值\\u2028");
  return [...ctx.storage.keys(), ctx.storage.get("missing", ""), ctx.config.tone, ctx.locale];
});
app.action("ask", (ctx) => ctx.http.get("https://example.com/x").status);
app.action("fail", () => { throw new RangeError("gone"); });
export default app;
"""
JAVASCRIPT_TESTS = """
import assert from "node:assert/strict";
import { test } from "node:test";
import { AppFailed, Conflict, NotFound, Unavailable } from "@llmasos/sdk";
import { FakeHost, MemoryStorage, ScriptedModel, call } from "@llmasos/sdk/testing";
import app from "../app.js";

const host = new FakeHost({ model: new ScriptedModel("one two", new Unavailable("no model")),
  storage: new MemoryStorage(), http: () => ({ status: 418 }), config: { tone: "warm" }, locale: "zh" });

test("place", () => {
  assert.equal(call(app, "place", {}, host), "sandbox");
  assert.deepEqual(host.logs, [["info", "printed there"]]);
});
test("stream", () => {
  assert.equal(call(app, "say", { prompt: "p" }, host), "one two");
  assert.deepEqual(host.chunks, ["one ", "two"]);
  assert.throws(() => call(app, "say", { prompt: "p" }, host), Unavailable);
  assert.throws(() => call(app, "say", { prompt: "p" }, host), /no answer left/);
});
test("storage", () => {
  assert.deepEqual(call(app, "keep", { key: "k" }, host), ["k", "", "warm", "zh"]);
  assert.throws(() => call(app, "keep", { key: "k" }, host), Conflict);
  assert.throws(() => call(app, "keep", {}, host), /key: this input is needed/);
});
test("http", () => assert.equal(call(app, "ask", {}, host), 418));
test("errors", () => {
  assert.throws(() => call(app, "fail", {}, host), AppFailed);
  assert.throws(() => call(app, "fail", {}, host), /RangeError: gone \\(app.js, line 16\\)$/);
  assert.match(host.logs.at(-1)[1], /RangeError: gone/);
  assert.throws(() => call(app, "nope", {}, host), NotFound);
});
"""


@pytest.fixture(scope="module")
def home(stock: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with stock.home(tmp_path_factory.mktemp("home")) as home:
        yield home


@pytest.fixture
def llmasos(home: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("LLMASOS_HOME", str(home))
    monkeypatch.setenv("LLMASOS_LOCALE", "en")

    def run(*words: str) -> Result:
        return CliRunner().invoke(app, list(words))

    return run


def project(folder: Path, kind: str, files: dict[str, str]) -> Path:
    """A project, whose first file is its source."""
    (folder / "tests").mkdir(parents=True)
    manifest = MANIFEST.format(kind=kind, source=next(iter(files))) + REST
    for name, text in {"llmapp.toml": manifest, **files}.items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("kind", "files"),
    [
        ("wasm", {"app.py": PYTHON, "tests/test_app.py": PYTHON_TESTS}),
        pytest.param(
            "python",
            {"app.py": PYTHON, "tests/test_app.py": PYTHON_TESTS},
            marks=pytest.mark.skipif(not confinement().is_available, reason=str(confinement().missing)),
        ),
        pytest.param(
            "wasm",
            {"app.js": JAVASCRIPT, "tests/app.test.js": JAVASCRIPT_TESTS},
            marks=[pytest.mark.node, needs_node],
        ),
    ],
    ids=["python", "native", "javascript"],
)
def test_the_actions_run_in_the_sandbox_and_the_fakes_in_the_test(
    llmasos: Any, tmp_path: Path, kind: str, files: dict[str, str]
) -> None:
    """11-32: streams, storage, requests, errors and what an action prints are as without the sandbox."""
    folder = str(project(tmp_path / "p", kind, files))
    done = llmasos("test", folder, "--sandbox", "--json")
    told = json.loads(done.stdout)
    assert (told["ok"], done.exit_code) == (True, 0), told["output"]
    if kind == "wasm":
        # 11-31: without it only the place differs, and the limits. The errors name the same lines.
        output = json.loads(llmasos("test", folder, "--json").stdout)["output"]
        failed = re.findall(r"^not ok \d+ - (\w+)|^FAILED \S+::(\w+)", output, re.MULTILINE)
        assert [name.removeprefix("test_") for names in failed for name in names if name] == ["place"]


def test_a_failing_test_fails_the_command_and_shows_what_the_action_printed(llmasos: Any, tmp_path: Path) -> None:
    """11-32: the exit code is 1, and the output is that of the tests."""
    tests = (
        "from llmasos_sdk.testing import call\n"
        "def test_place(llmasos_app, fake_context):\n"
        "    assert call(llmasos_app, 'place', fake_context) == 'outside'\n"
    )
    folder = project(tmp_path / "p", "wasm", {"app.py": PYTHON, "tests/test_app.py": tests})
    done = llmasos("test", str(folder), "--sandbox", "--json")
    told = json.loads(done.stdout)
    assert (told["ok"], done.exit_code) == (False, 1)
    assert "printed there" in told["output"]


def test_a_project_that_does_not_import_is_an_error_before_its_tests_run(llmasos: Any, tmp_path: Path) -> None:
    """11-32: the message is that of a build."""
    files = {"app.py": PYTHON + "\nnope\n", "tests/test_app.py": PYTHON_TESTS}
    done = llmasos("test", str(project(tmp_path / "p", "wasm", files)), "--sandbox")
    assert done.exit_code == 1
    assert "the source does not import: NameError" in done.stderr


def test_the_tests_of_a_new_app_pass_in_the_sandbox_too(
    llmasos: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """11-32: of a Python app; tests/platform/authoring has those of JavaScript and TypeScript."""
    monkeypatch.chdir(tmp_path)
    assert llmasos("new", "acme/hello").exit_code == 0
    with (tmp_path / "hello" / "llmapp.toml").open("a") as manifest:
        manifest.write(REST)
    told = json.loads(llmasos("test", "hello", "--sandbox", "--json").stdout)
    assert (told["ok"], "3 passed" in told["output"]) == (True, True), told["output"]
