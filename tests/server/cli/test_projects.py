"""11-32, 11-35: an author's project runs in the sandbox without being built into a bundle, published or installed."""

import json
import shutil
import sqlite3
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from tests.server.cli.components import minimal_component
from tests.support.loopback import QuietHandler, serving
from typer.testing import CliRunner, Result

from llmasos.runtimes.confinement import confinement
from llmasos_server.cli import dev
from llmasos_server.cli.shell import app

MANIFEST = """
schema = 1
id = "acme/{name}"
version = "0.1.0"
license = "Apache-2.0"
name.en = "Counted"
summary.en = "Counts its runs."
[runtime]
kind = "{kind}"
{source}
[limits]
memory_mib = 48
"""
STORAGE = '[[permissions]]\ncapability = "storage"\nreason.en = "Keeps the count."\n'
HTTP = '[[permissions]]\ncapability = "http"\nhosts = ["http://127.0.0.1:1"]\nreason.en = "Asks."\n'
MODEL = '[[permissions]]\ncapability = "model"\ntiers = ["fast"]\nreason.en = "Says."\n'
PYTHON = '''
"""Counts."""
import csv
from pathlib import Path

from llmasos_sdk import App, Context
from parts.words import shout

app = App()


@app.action
def count(ctx: Context, word: str = "run") -> str:
    """Count a run."""
    number = ctx.storage.get_json("n", 0) + 1
    ctx.storage.put_json("n", number)
    return f"{shout(word)} {number} {next(csv.reader(['a,b']))} {(Path(__file__).parent / 'data.txt').read_text()}"


@app.action
def fail(ctx: Context) -> int:
    """Fail."""
    return {}["gone"]


@app.action
def ask(ctx: Context, url: str) -> str:
    """Ask a server."""
    return ctx.http.get(url).text
'''


@pytest.fixture(scope="module")
def home(stock: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home with what other tests have built."""
    with stock.home(tmp_path_factory.mktemp("home")) as home:
        yield home


@pytest.fixture
def llmasos(home: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("LLMASOS_HOME", str(home))
    monkeypatch.setenv("LLMASOS_LOCALE", "en")

    def run(*words: str) -> Result:
        return CliRunner().invoke(app, list(words))

    return run


def project(folder: Path, files: dict[str, str], *, kind: str = "wasm", permissions: str = STORAGE) -> Path:
    """A project, whose id has its folder's name."""
    source = f'source = "{next(iter(files))}"'
    for name, text in {
        "llmapp.toml": MANIFEST.format(name=folder.name, kind=kind, source=source) + permissions,
        **files,
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    (folder / "README.md").write_text("# Counted\n")
    return folder


@pytest.fixture
def python_project(tmp_path: Path) -> Path:
    words = "def shout(text: str) -> str:\n    return text.upper()\n"
    files = {"app.py": PYTHON, "parts/words.py": words, "data.txt": "data"}
    # The same capabilities as in test_sandboxed_tests.py: the interpreter is built once for both.
    return project(tmp_path / "counted", files, permissions=STORAGE + HTTP + MODEL)


def test_a_project_runs_and_a_change_needs_no_build(llmasos: Any, home: Path, python_project: Path) -> None:
    """11-32: `run PATH ACTION` shows what the project may do, runs it in the sandbox, and installs nothing."""
    first = llmasos("run", str(python_project), "count", "-p", "word=a")
    assert first.exit_code == 0, first.stderr
    assert first.stdout.startswith("A ") and first.stdout.endswith("['a', 'b'] data\n")
    assert "Keeps the count." in first.stderr
    built = {path.name for path in (home / "builds").iterdir()}
    source = (python_project / "app.py").read_text()
    # It moves every line, and imports more of the standard library.
    (python_project / "app.py").write_text(f"import statistics\n\n{source.replace('{number}', '{number}!')}")
    again = llmasos("run", str(python_project), "count", "-p", "word=b")
    number = int(first.stdout.split()[1])
    assert again.stdout == f"B {number + 1}! ['a', 'b'] data\n"
    assert {path.name for path in (home / "builds").iterdir()} == built
    assert json.loads(llmasos("list", "--json").stdout) == {"items": []}
    assert not (python_project / "dist").exists()


def test_what_a_project_does_is_recorded_apart_from_the_installed_app(
    llmasos: Any, home: Path, python_project: Path
) -> None:
    """11-32: its kernel, quotas and audit are those of every app; its data is its own."""
    told = json.loads(llmasos("run", str(python_project), "count", "--json").stdout)
    assert told["app"] == "acme/counted~dev"
    assert told["usage"]["fuel"] > 0
    database = sqlite3.connect(home / "llmasos.db")
    assert {row[0] for row in database.execute("SELECT app_id FROM stored_value")} == {"acme/counted~dev"}
    (ended,) = database.execute("SELECT app_id, status FROM invocation WHERE id = ?", [told["id"]])
    assert ended == ("acme/counted~dev", "succeeded")
    assert llmasos("audit", "verify").exit_code == 0
    assert llmasos("run", "acme/counted", "count").exit_code == 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("nope", "the source does not import: NameError: name 'nope' is not defined (app.py, line"),
        ("def (", "the source does not import: SyntaxError: invalid syntax (app.py, line"),
        ("@app.action\ndef bad(ctx: Context, x: set) -> str:\n    return ''", "the source does not import: TypeError"),
    ],
)
def test_a_source_that_does_not_import_is_an_error_with_its_line(
    llmasos: Any, python_project: Path, change: str, message: str
) -> None:
    """11-32: a development run says the same of a broken source as a build does."""
    with (python_project / "app.py").open("a") as source:
        source.write(f"\n{change}\n")
    done = llmasos("run", str(python_project), "count")
    assert done.exit_code == 1
    assert f"Error: {message}" in done.stderr


def test_a_project_is_under_its_limits_and_its_errors_name_its_lines(llmasos: Any, python_project: Path) -> None:
    """11-32: the sandbox is the same."""
    failed = llmasos("run", str(python_project), "fail")
    assert "Error: the app failed: KeyError: 'gone' (app.py, line 23)" in failed.stderr
    with (python_project / "app.py").open("a") as source:
        source.write(
            "\n@app.action\ndef fill(ctx: Context) -> int:\n    return len('x' * (1 << 28))\n"
            "\n@app.action\ndef read(ctx: Context) -> str:\n    return open('/etc/passwd').read()\n"
            "\n@app.action\ndef spin(ctx: Context) -> None:\n    while True: pass\n"
        )
    assert "MemoryError (app.py, line 33)" in llmasos("run", str(python_project), "fill").stderr
    assert llmasos("run", str(python_project), "read").exit_code == 1
    manifest = (python_project / "llmapp.toml").read_text()
    (python_project / "llmapp.toml").write_text(manifest.replace("memory_mib = 48", "cpu_seconds = 0.5"))
    assert "all the compute that it may use" in llmasos("run", str(python_project), "spin").stderr


def test_the_help_of_a_project_shows_its_actions_and_their_inputs(llmasos: Any, python_project: Path) -> None:
    """11-32: `run . --help` and `run . ACTION --help` as of an installed app."""
    shown = llmasos("run", str(python_project), "--help")
    assert all(name in shown.stdout for name in ("count", "fail", "ask"))
    shown = llmasos("run", str(python_project), "count", "--help")
    assert "text, default run" in shown.stdout
    assert llmasos("run", str(python_project), "nope", "--help").exit_code == 5


class _Hello(QuietHandler, BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-length", "5")
        self.end_headers()
        self.wfile.write(b"hello")


def test_a_project_reaches_this_computer_only_with_the_flag(llmasos: Any, python_project: Path) -> None:
    """11-35: the denial names the flag, and the flag holds for one run."""
    with serving(_Hello) as url:
        manifest = (python_project / "llmapp.toml").read_text()
        (python_project / "llmapp.toml").write_text(manifest.replace("http://127.0.0.1:1", url))
        words = ("run", str(python_project), "ask", "-p", f"url={url}")
        refused = llmasos(*words)
        assert refused.exit_code == 3
        assert "--allow-loopback" in refused.stderr
        assert "LLMASOS_HTTP_NETWORKS" in refused.stderr
        assert llmasos(*words, "--allow-loopback").stdout == "hello\n"
        assert llmasos(*words).exit_code == 3
    refused = llmasos("run", "acme/counted", "count", "--allow-loopback")
    assert (refused.exit_code, "for a project's folder" in refused.stderr) == (1, True)


def test_a_project_runs_here_though_a_server_is_named(
    llmasos: Any, python_project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """11-39: `run PATH` says so; `run APP` goes to the server."""
    monkeypatch.setenv("LLMASOS_URL", "http://127.0.0.1:9")
    done = llmasos("run", str(python_project), "count", "-p", "word=a")
    assert done.exit_code == 0
    assert done.stderr.startswith("A project runs on this computer, though LLMASOS_URL is set.\n")
    assert "does not respond" in llmasos("run", "acme/counted", "count").stderr


def test_dev_runs_an_action_after_each_change_in_one_host(
    home: Path, python_project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """11-32: `dev` checks, runs and tests on each save, and goes on after an error."""
    monkeypatch.setenv("LLMASOS_HOME", str(home))
    monkeypatch.setenv("LLMASOS_LOCALE", "en")
    source = python_project / "app.py"
    right = source.read_text()

    async def watch(folder: Path, step: Any, *, complain: Any) -> None:
        from llmasos.errors import LlmasosError

        for text in (right, f"{right}\nint('x')\n", right.replace("{shout(word)}", "changed")):
            source.write_text(text)
            try:
                await step([source])
            except LlmasosError as error:
                complain(error)

    monkeypatch.setattr("llmasos.authoring.dev.watch", watch)

    async def no_tests(_path: Path) -> None:
        pass

    monkeypatch.setattr(dev, "_test", no_tests)
    dev.dev(python_project, "count", parameter=["word=x"])
    told = capsys.readouterr()
    first, second = (line.split() for line in told.out.splitlines() if line.endswith("data"))
    assert (first[0], second[0], int(second[1]) - int(first[1])) == ("X", "changed", 1)
    assert "the source does not import: ValueError" in told.err
    assert told.err.count("Keeps the count.") == 1


@pytest.mark.node
@pytest.mark.skipif(shutil.which("npm") is None, reason="needs Node.js")
def test_a_javascript_project_runs_and_a_change_needs_no_build(llmasos: Any, home: Path, tmp_path: Path) -> None:
    """11-32: JavaScript and TypeScript likewise."""
    source = """
import { App } from "@llmasos/sdk";
import { shout } from "./words.ts";
const app = new App();
app.action("count", { input: { word: { type: "string" } }, output: { type: "string" } }, (ctx, { word }) =>
  `${shout(word)} ${ctx.storage.updateJson("n", (n: number) => n + 1, 0)}`);
app.action("fail", () => { throw new RangeError("gone"); });
export default app;
"""
    words = "export const shout = (text: string): string => text.toUpperCase();\n"
    folder = project(tmp_path / "scripted", {"app.ts": source, "words.ts": words})
    assert llmasos("run", str(folder), "count", "-p", "word=a").stdout == "A 1\n"
    built = {path.name for path in (home / "builds").iterdir()}
    (folder / "words.ts").write_text(words.replace("toUpperCase()", "toUpperCase() + '!'"))
    assert llmasos("run", str(folder), "count", "-p", "word=a").stdout == "A! 2\n"
    assert {path.name for path in (home / "builds").iterdir()} == built
    # 11-31: a development run names the author's line too, and that of a source that does not run.
    assert "RangeError: gone (app.ts, line 7)" in llmasos("run", str(folder), "fail").stderr
    shown = llmasos("logs").stdout
    assert "at <anonymous> (app.ts:7)" in shown
    assert "bundle.js" not in shown
    (folder / "app.ts").write_text(source.replace("export default app;", "nowhere();\nexport default app;"))
    told = llmasos("run", str(folder), "count", "-p", "word=a").stderr
    assert "the source does not run: ReferenceError: nowhere is not defined (app.ts, line 8)" in told


@pytest.mark.node
@pytest.mark.skipif(shutil.which("npm") is None, reason="needs Node.js")
@pytest.mark.parametrize(
    ("line", "told"),
    [
        (
            'import pad from "left-pad";\nconsole.log(pad);',
            "Could not resolve 'left-pad' (app.js, line 1)",
        ),
        ('import { no } from "./none.js";\nno();', "Could not resolve './none.js'"),
        ("nowhere();", "the name 'nowhere' is used, and nothing defines it"),
        ("null.x;", "the source does not run: TypeError: cannot read property 'x' of null (app.js, line 1)"),
        ("const = 1;", "the source does not build"),
        ("", ""),
    ],
)
def test_check_finds_what_keeps_a_javascript_app_from_being_built(
    llmasos: Any, tmp_path: Path, line: str, told: str
) -> None:
    """11-19, 11-40: a missing import, a name that nothing defines, and what is no JavaScript."""
    source = (
        'import { App } from "@llmasos/sdk";\nconst app = new App();\napp.action("a", () => 1);\nexport default app;\n'
    )
    folder = project(tmp_path / "scripted", {"app.js": f"{line}\n{source}"})
    done = llmasos("check", str(folder), "--json")
    errors = [each for each in json.loads(done.stdout)["findings"] if each["level"] == "error"]
    assert (done.exit_code, len(errors)) == ((1, 1) if told else (0, 0)), done.stdout
    assert all(told in each["message"] for each in errors)


@pytest.mark.node
@pytest.mark.skipif(shutil.which("npm") is None, reason="needs Node.js")
@pytest.mark.parametrize("suffix", ["js", "ts"])
def test_check_finds_names_that_nothing_defines_inside_functions(llmasos: Any, tmp_path: Path, suffix: str) -> None:
    """11-40: in each of the author's files, with file and line; what the sandbox lacks is not defined either."""
    source = f"""
import {{ App }} from "@llmasos/sdk";
import {{ other }} from "./parts/other.{suffix}";
/** @type {{Whatever}} */ const app = new App();
/**
 * @param {{Whoever}} ctx
 */
app.action("a", (ctx) => {{
  console.log(performance.now(), btoa(""), JSON, new Map(), globalThis["x"]);
  if (typeof process !== "undefined") return process;
  const shorthand = {{ missing }};
  return fetch(new TextEncoder()) + other() + oter();
}});
export default app;
"""
    files = {
        f"app.{suffix}": source,
        f"parts/other.{suffix}": "export const other = () => {\n  return gone.x;\n};\n",
        f"unused.{suffix}": "export const unused = 1;\n",
        f"tests/app.test.{suffix}": "Buffer.from(nothing);\n",
    }
    done = llmasos("check", str(project(tmp_path / "p", files, permissions="")), "--json")
    found = [each for each in json.loads(done.stdout)["findings"] if each["level"] == "error"]
    names = [(each["where"], each["message"].split("'")[1]) for each in found]
    assert done.exit_code == 1
    assert sorted(names) == sorted(
        [
            (f"app.{suffix}, line 11", "missing"),
            (f"app.{suffix}, line 12", "TextEncoder"),
            (f"app.{suffix}, line 12", "fetch"),
            (f"app.{suffix}, line 12", "oter"),
            (f"parts/other.{suffix}, line 2", "gone"),
        ]
    )


def test_check_names_the_manifest_once(llmasos: Any, python_project: Path) -> None:
    """11-40: the place of a finding stands before its message once."""
    manifest = (python_project / "llmapp.toml").read_text()
    (python_project / "llmapp.toml").write_text(manifest.replace("schema = 1", "schema = 1\nnope = 2"))
    done = llmasos("check", str(python_project))
    assert done.stdout.startswith("error: llmapp.toml: nope")
    assert done.stdout.count("llmapp.toml:") == 1


@pytest.mark.skipif(not confinement().is_available, reason=str(confinement().missing))
def test_a_native_project_runs_and_runs_again_after_a_change(llmasos: Any, tmp_path: Path) -> None:
    """11-32: a native app's wheel and environment are made anew for each change."""
    source = PYTHON.replace("from parts.words import shout\n", "").replace("shout(word)", "word")
    folder = project(tmp_path / "native", {"app.py": source, "data.txt": "data"}, kind="python")
    assert llmasos("run", str(folder), "count", "-p", "word=a").stdout == "a 1 ['a', 'b'] data\n"
    (folder / "app.py").write_text(source.replace("{word}", "{word}!"))
    assert llmasos("run", str(folder), "count", "-p", "word=a").stdout == "a! 2 ['a', 'b'] data\n"


def test_a_finished_component_runs_as_a_project(llmasos: Any, tmp_path: Path) -> None:
    """11-32: a project whose component its author builds runs too."""
    folder = project(tmp_path / "p", {"app.wasm": ""}, permissions="")
    manifest = (folder / "llmapp.toml").read_text()
    (folder / "llmapp.toml").write_text(manifest.replace("source =", "component ="))
    described = '[{"name":"say","input_schema":{"type":"object"},"output_schema":{}}]'
    (folder / "app.wasm").write_bytes(minimal_component(described))
    assert json.loads(llmasos("run", str(folder), "say", "--input", '{"a": 1}', "--json").stdout)["output"] == {"a": 1}


def test_a_word_is_a_project_only_as_a_path(llmasos: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """11-32: `acme/hello` is an installed app even beside a folder of that name, and the error names the path."""
    project(tmp_path / "acme" / "hello", {"app.py": PYTHON})
    monkeypatch.chdir(tmp_path)
    done = llmasos("run", "acme/hello", "count")
    assert done.exit_code == 5
    assert "llmasos run ./acme/hello count" in done.stderr
    assert "There is no llmapp.toml in nowhere" in llmasos("run", "./nowhere", "count").stderr
