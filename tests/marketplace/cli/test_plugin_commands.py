"""Plugins that are really installed: found by their entry point, listed, able to add a command, and switched off."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def command(tmp_path):
    """Runs `llmasos` with a folder of installed distributions in front."""
    site = tmp_path / "site"
    path = os.pathsep.join((str(site), str(ROOT / "plugins/pii-redactor/src")))

    def install(name, module, source):
        site.mkdir(exist_ok=True)
        if source is not None:
            (site / f"{module}.py").write_text(source)
        info = site / f"{module}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[llmasos.plugins]\n{name} = {module}\n")

    def run(*arguments, **environment):
        variables = {**os.environ, "LLMASOS_HOME": str(tmp_path / "home"), "PYTHONPATH": path, **environment}
        line = [sys.executable, "-m", "llmasos_marketplace.cli", *arguments]
        return subprocess.run(line, env=variables, capture_output=True, text=True, timeout=120, check=False)

    run.install = install
    return run


def names(done):
    return {each["name"]: each for each in json.loads(done.stdout)["plugins"]}


def test_an_installed_plugin_is_listed_and_can_be_switched_off(command):
    command.install("pii-redactor", "llmasos_pii_redactor", None)
    listed = names(command("plugins", "list", "--json"))
    assert listed["pii-redactor"]["hooks"] == ["after_model_call", "before_model_call"]
    off = command("plugins", "list", "--json", LLMASOS_PLUGINS="off")
    assert list(names(off)) == ["llmasos-components", "llmasos-native", "llmasos-router"]
    assert json.loads(off.stdout)["enabled"] is False


def test_a_plugin_with_an_unknown_hook_is_refused_and_the_rest_goes_on(command):
    command.install("typo", "typo_plugin", "from llmasos.hooks import hookimpl\n@hookimpl\ndef on_usge(record): pass\n")
    listed = names(command("plugins", "list", "--json"))
    assert "did you mean on_usage" in listed["typo"]["problem"]
    assert listed["llmasos-router"]["problem"] == ""


def test_a_plugin_adds_a_command_and_cannot_stand_in_for_one(command):
    command.install(
        "hello",
        "hello_plugin",
        "from llmasos.hooks import hookimpl\n"
        "@hookimpl\ndef register_commands(): return {'hello': 'hello_plugin:hello', 'list': 'hello_plugin:hello'}\n"
        "def hello(name: str):\n    print(f'hello {name}')\n",
    )
    assert command("hello", "Ada").stdout == "hello Ada\n"
    assert "hello" not in command("list", "--json").stdout
    assert command("hello", "Ada", LLMASOS_PLUGINS="off").returncode == 2
