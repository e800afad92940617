"""JavaScript and TypeScript apps that become components."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.platform.authoring.component_runs import ComponentRun, describe
from tests.platform.authoring.projects import MODEL, STORAGE, write_project

from llmasos.authoring.build import build
from llmasos.authoring.process import BuildFailed
from llmasos.bundles.reader import read_bundle
from llmasos.errors import Unavailable
from llmasos_sdk import Conflict, Denied
from llmasos_sdk.testing import FakeHost, MemoryStorage, ScriptedModel


@pytest.fixture(scope="module")
def home(stock: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with stock.home(tmp_path_factory.mktemp("home")) as home:
        yield home


@pytest.fixture(autouse=True)
def _home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMASOS_HOME", str(home))


JAVASCRIPT = """
import { App, type Context } from "@llmasos/sdk";
import { find, shout } from "./words.ts";

const app = new App();
app.action("echo", { input: { text: { type: "string" } }, output: { type: "string" } },
  (ctx, { text }: { text: string }) => shout(ctx.model.generate(text).text));
app.action("tell", { input: { premise: { type: "string" } } }, function* (ctx, { premise }: { premise: string }) {
  yield* ctx.model.stream(premise);
});
app.action("claim", { input: { key: { type: "string" } } },
  (ctx, { key }: { key: string }) => ctx.storage.compareAndSet(key, undefined, "mine"));
app.action("grow", (ctx) => {
  const grown = [1, 2, 3].map(() => ctx.storage.updateJson("n", (n) => n + 1, 0));
  const { version } = ctx.storage.entry("n");
  const next = ctx.storage.compareAndSet("n", BigInt(version), "9");
  return [...grown, next > version, ctx.storage.get("n"), [...ctx.storage.keys()]];
});
app.action("fail", () => { console.log("before"); throw new RangeError("gone"); });
app.action("search", (ctx: Context) => {
  try {
    return find([[1]]);
  } catch (error) {
    console.log(error);
    ctx.log.warning((error as Error).stack ?? "");
    throw error;
  }
});
app.action("reach", (ctx) => ctx.http.get("https://example.com").status);
export default app;
"""


@pytest.mark.node
@pytest.mark.skipif(shutil.which("npm") is None, reason="needs Node.js")
async def test_a_typescript_app_becomes_a_component_that_imports_no_more_than_it_declares(tmp_path: Path) -> None:
    words = """
type Rows = number[][];
export const shout = (text: string): string => text.toUpperCase();
export const find = (rows: Rows) => rows
  .flat()
  .map((row) =>
    (row as unknown as { name: string }).name.trim());
"""
    files = {"app.ts": JAVASCRIPT, "words.ts": words, "tests/app.test.ts": "throw new Error()"}
    project = write_project(tmp_path / "p", files, 'kind = "wasm"\nsource = "app.ts"', MODEL + STORAGE)
    bundle = await build(project, describe=describe)
    path = tmp_path / "app.wasm"
    path.write_bytes(read_bundle(bundle).component or b"")
    run = ComponentRun(path, FakeHost(model=ScriptedModel("soft 你好", "Once upon."), storage=MemoryStorage()))
    assert {name for name in run.imports if not name.startswith("llmasos:app/")} == set()
    assert run.contract_imports == {"model", "storage", "output", "log", "config"}
    assert run.call("echo", text="hi") == "SOFT 你好"
    assert run.call("tell", premise="sea") == "Once upon."
    assert run.host.chunks == ["Once ", "upon."]
    assert run.call("claim", key="a") == 1
    with pytest.raises(Conflict):
        run.call("claim", key="a")
    # 11-28: with a version that exists, every second update of a key trapped.
    assert run.call("grow") == [1, 2, 3, True, "9", ["a", "n"]]
    with pytest.raises(Denied, match=r'capability = "http"'):
        run.call("reach")
    with pytest.raises(Exception, match=r"the app failed: RangeError: gone \(app.ts, line 19\)"):
        run.call("fail")
    assert ("info", "before") in run.host.logs
    # 11-31: an error and each stack in the logs name the author's files and lines, and nothing of the bundle.
    run.host.logs.clear()
    with pytest.raises(Exception, match=r"the app failed: TypeError: .* \(words.ts, line 7\)"):
        run.call("search")
    assert [level for level, _ in run.host.logs] == ["info", "warning", "error"]
    for _, text in run.host.logs:
        frames = [line for line in text.splitlines() if line.lstrip().startswith("at ")]
        places = [frame.rpartition("(")[2] for frame in frames if "(native)" not in frame]
        assert places == ["words.ts:7)", "words.ts:6)", "app.ts:22)"], text
    again = await build(project, tmp_path / "again.llmapp", describe=describe)
    assert again.read_bytes() == bundle.read_bytes()


@pytest.mark.node
@pytest.mark.skipif(shutil.which("npm") is None, reason="needs Node.js")
@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("undefinedFunction();", r"undefinedFunction is not defined \(app.js, line 4\)"),
        ("app.action('a', async (ctx) => 1);", r"action a is async; write it as a plain function.*\(app.js, line 4\)"),
        ("const x = ;", r"Unexpected token \(app.js, line 4\)"),
        ("import './nowhere.js';", r"Could not resolve './nowhere.js'"),
    ],
)
async def test_a_javascript_build_tells_the_authors_own_error(line: str, said: str, tmp_path: Path) -> None:
    """11-19: it said "jco componentize failed: }"."""
    source = f'import {{ App }} from "@llmasos/sdk";\n\nconst app = new App();\n{line}\nexport default app;\n'
    project = write_project(tmp_path / "p", {"app.js": source}, 'kind = "wasm"\nsource = "app.js"', MODEL)
    with pytest.raises(BuildFailed, match=said):
        await build(project, describe=describe)


async def test_without_node_a_javascript_app_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    project = write_project(tmp_path / "p", {"app.js": "1"}, 'kind = "wasm"\nsource = "app.js"', MODEL)
    with pytest.raises(Unavailable, match=r"needs Node.js: install Node.js 20 or later"):
        await build(project, describe=describe)
