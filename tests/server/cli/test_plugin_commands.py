"""Operator plugins that are installed: found by their entry points, listed, able to add a command, turned off."""

import importlib
import json
import sys
from pathlib import Path

import pytest

from llmasos.bundles.testing import EMPTY_COMPONENT

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def command(llmasos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Runs `llmasos` with a folder of installed distributions in front."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))
    before = set(sys.modules)

    def install(name: str, module: str, source: str | None) -> None:
        if source is not None:
            (site / f"{module}.py").write_text(source)
        info = site / f"{module}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[llmasos.plugins]\n{name} = {module}\n")
        importlib.invalidate_caches()

    llmasos.install = install
    yield llmasos
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None)).startswith(str(site)):
            del sys.modules[name]


def names(done):
    return {each["name"]: each for each in json.loads(done.stdout)["plugins"]}


def test_an_installed_plugin_is_listed_and_can_be_turned_off(command):
    command.install("pii-redactor", "llmasos_pii_redactor", None)
    listed = names(command("plugins", "list", "--json"))
    assert listed["pii-redactor"]["hooks"] == ["after_model_call", "before_model_call"]
    off = command("plugins", "list", "--json", LLMASOS_PLUGINS="off")
    assert list(names(off)) == ["llmasos-components", "llmasos-native", "llmasos-router"]
    assert json.loads(off.stdout)["enabled"] is False


def test_a_plugin_with_an_unknown_hook_is_refused_and_the_others_load(command):
    command.install("typo", "typo_plugin", "from llmasos.hooks import hookimpl\n@hookimpl\ndef on_usge(record): pass\n")
    listed = names(command("plugins", "list", "--json"))
    assert "did you mean on_usage" in listed["typo"]["problem"]
    assert listed["llmasos-router"]["problem"] == ""


def test_a_plugin_adds_a_command_and_cannot_replace_one(command):
    command.install(
        "hello",
        "hello_plugin",
        "from llmasos.hooks import hookimpl\n"
        "@hookimpl\ndef register_commands(): return {'hello': 'hello_plugin:hello', 'list': 'hello_plugin:hello'}\n"
        "def hello(name: str):\n    print(f'hello {name}')\n",
    )
    assert command("hello", "Ada").stdout == "hello Ada\n"
    assert "hello" not in command("list", "--json").stdout
    assert command("hello", "Ada", LLMASOS_PLUGINS="off").exit_code == 2


RUNTIME = """
import json
from llmasos.hooks import RuntimeKind, hookimpl
from llmasos.runtimes.runtime import CallOutcome, Inspection

class Echo:
    def __init__(self, context):
        self.context = context
    async def inspect(self, code):
        return Inspection(("llmasos:app/storage@0.1.0",) if b"storage" in code.read_bytes() else (), ())
    async def is_ready(self, program):
        return False
    async def prepare(self, program, code):
        assert program.kind == "x-echo" and code.is_file()
    async def describe(self, program):
        return json.dumps([{"name": "echo", "input_schema": {"type": "object"}, "output_schema": {}}])
    async def call(self, program, invocation, action, input_json):
        kept = await self.context.handler(invocation, "config", "read", [])
        return CallOutcome(json.dumps([json.loads(input_json), json.loads(kept)["locale"]]), fuel=7)
    async def retire(self, installation_id):
        pass
    async def close(self):
        pass

@hookimpl
def register_runtime():
    return RuntimeKind("x-echo", Echo)
"""
MANIFEST = """
schema = 1
id = "acme/echo"
version = "1.0.0"
license = "Apache-2.0"
name.en = "Echo"
summary.en = "Runs in a plugin's runtime."
[runtime]
kind = "{kind}"
component = "app.wasm"
"""


def project(folder, kind):
    folder.mkdir()
    (folder / "llmapp.toml").write_text(MANIFEST.format(kind=kind))
    (folder / "README.md").write_text("# Echo\n")
    (folder / "app.wasm").write_bytes(EMPTY_COMPONENT)
    return str(folder)


def test_an_app_of_a_plugins_kind_is_built_published_installed_and_run(command, tmp_path):
    command.install("echo-runtime", "echo_runtime", RUNTIME)
    for words in (("publish", project(tmp_path / "echo", "x-echo")), ("install", "acme/echo", "--yes")):
        done = command(*words)
        assert done.exit_code == 0, done.stderr
    ran = command("run", "acme/echo", "echo", "--input", '{"a": 1}', "--json", LLMASOS_LOCALE="en")
    assert json.loads(ran.stdout)["output"] == [{"a": 1}, "en"]
    assert json.loads(ran.stdout)["usage"]["fuel"] > 7  # what its runtime tells, and its call to the host
    without = command("run", "acme/echo", "echo", "--input", "{}", LLMASOS_PLUGINS="off", LLMASOS_LOCALE="en")
    assert without.exit_code == 1
    assert without.stderr.startswith('Error: No runtime here runs kind = "x-echo": install the operator plugin')
    gone = command("uninstall", "acme/echo", LLMASOS_PLUGINS="off")
    assert gone.exit_code == 0, gone.stderr


def test_a_runtime_kind_that_no_plugin_registers_is_refused_in_one_line(command, tmp_path):
    command.install("echo-runtime", "echo_runtime", RUNTIME)
    folder, bundle = project(tmp_path / "echo", "x-echo"), str(tmp_path / "echo.llmapp")
    assert command("build", folder, "-o", bundle).exit_code == 0
    refused = [command(*words, LLMASOS_PLUGINS="off") for words in (("build", folder), ("publish", bundle))]
    assert command("publish", bundle).exit_code == 0
    refused.append(command("install", "acme/echo", "--yes", LLMASOS_PLUGINS="off"))
    for done in refused:
        assert done.exit_code == 1
        assert done.stderr.splitlines()[-1].startswith('Error: No runtime here runs kind = "x-echo": install')
        assert "Traceback" not in done.stderr
    assert json.loads(command("list", "--json").stdout)["items"] == []
