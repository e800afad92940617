"""Capabilities as an action sees them, over the fakes."""

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import pytest

from llmasos_sdk import (
    AnswerUnusable,
    AppError,
    CapabilityNotDeclared,
    Conflict,
    Denied,
    Invalid,
    NotFound,
    PermissionDeclined,
    QuotaExceeded,
    ToolCall,
    Unavailable,
)
from llmasos_sdk.errors import BY_TAG, from_tag
from llmasos_sdk.model import Stream
from llmasos_sdk.testing import FakeContext, MemoryStorage, ScriptedModel

pytest_plugins = ("pytester",)


@dataclass
class Label:
    label: Literal["billing", "other"]


def look_up(word: str, deep: bool = False) -> str:
    """Look a word up.

    Args:
        word: The word.
    """
    return word


def test_a_completion_is_typed() -> None:
    ctx = FakeContext(model=ScriptedModel("Hello there.", notices=["not fit for this"]))
    answer = ctx.model.generate("Greet", system="Be kind", task="chat", tier="fast", max_tokens=50, stop=["\n"])
    assert (answer.text, answer.model, answer.finish_reason) == ("Hello there.", "scripted", "stop")
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (3, 3)
    assert answer.notices == ("not fit for this",)
    assert ctx.scripted.requests == [
        {
            "messages": [{"role": "system", "content": "Be kind"}, {"role": "user", "content": "Greet"}],
            "task": "chat",
            "tier": "fast",
            "max_tokens": 50,
            "stop": ["\n"],
        }
    ]


def test_a_dataclass_asks_for_json_and_comes_back_parsed() -> None:
    ctx = FakeContext(model=ScriptedModel({"label": "billing"}))
    assert ctx.model.generate("Sort this", output=Label).parsed == Label("billing")
    asked = ctx.scripted.requests[0]["response_format"]
    assert asked["type"] == "json_schema"
    assert asked["json_schema"]["name"] == "Label"
    assert asked["json_schema"]["schema"]["required"] == ["label"]


def test_an_answer_that_is_cut_says_what_to_raise() -> None:
    ctx = FakeContext(model=ScriptedModel({"label": "billing"}))
    with pytest.raises(AnswerUnusable, match="raise max_tokens"):
        ctx.model.generate("Sort this", output=Label, max_tokens=3)


@pytest.mark.parametrize("answer", ["Sure!", {"label": "unheard of"}])
def test_an_answer_of_another_shape_is_unusable(answer: object) -> None:
    ctx = FakeContext(model=ScriptedModel(answer))
    with pytest.raises(AnswerUnusable, match="did not answer as a Label"):
        ctx.model.generate("Sort this", output=Label)


def test_tools_are_functions_and_calls_come_back_decoded() -> None:
    ctx = FakeContext(model=ScriptedModel(ToolCall("1", "look_up", {"word": "sea"})))
    answer = ctx.model.generate("What is the sea?", tools=[look_up])
    assert answer.finish_reason == "tool_calls"
    assert [(call.name, call.arguments) for call in answer.tool_calls] == [("look_up", {"word": "sea"})]
    function = ctx.scripted.requests[0]["tools"][0]["function"]
    assert (function["name"], function["description"]) == ("look_up", "Look a word up.")
    assert function["parameters"]["properties"]["word"] == {"type": "string", "description": "The word."}


def test_a_stream_ends_with_a_completion() -> None:
    ctx = FakeContext(model=ScriptedModel("One two three."))
    stream = ctx.model.stream("Count")
    assert list(stream) == ["One ", "two ", "three."]
    assert (stream.completion.text, stream.completion.usage.completion_tokens) == ("One two three.", 4)
    assert ctx.scripted.open_streams == 0


def test_a_stream_that_is_left_early_is_closed() -> None:
    ctx = FakeContext(model=ScriptedModel("One two three."))

    def first() -> Iterator[str]:
        yield from ctx.model.stream("Count")

    pieces = first()
    assert next(pieces) == "One "
    assert ctx.scripted.open_streams == 1
    pieces.close()
    assert ctx.scripted.open_streams == 0


class PartsHost:
    """A host whose stream has the given parts."""

    def __init__(self, *pieces: dict) -> None:
        choices = [{"delta": {"tool_calls": [piece]}} for piece in pieces]
        self.parts = [json.dumps({"choices": [choice]}) for choice in choices]

    def call(self, capability: str, function: str, *_arguments: object) -> object:
        return self.parts.pop(0) if function == "read" and self.parts else None


def piece(index: int | None, id_: str | None, name: str | None, arguments: str) -> dict:
    return {"index": index, "id": id_, "function": {"name": name, "arguments": arguments}}


MERGED = {
    "each index is 0": [piece(0, "a", "weather", "{}"), piece(0, "b", "time", "{}")],
    "no index": [piece(None, "a", "weather", "{}"), piece(None, "b", "time", "{}")],
    "the name is repeated": [piece(0, "a", "weather", "{"), piece(0, "a", "weather", "}"), piece(0, "b", "time", "{}")],
    "interleaved": [
        piece(0, "a", "weather", ""),
        piece(1, "b", "time", ""),
        piece(1, None, None, "{}"),
        piece(0, None, None, "{}"),
    ],
    "no ids": [piece(0, None, "weather", "{}"), piece(0, None, "time", "{}")],
}


@pytest.mark.parametrize("pieces", MERGED.values(), ids=MERGED)
def test_streamed_tool_calls_are_kept_apart(pieces: list[dict]) -> None:
    """11-2: one call `get_weatherget_weatherget_time`."""
    stream = Stream(PartsHost(*pieces), 1)
    assert list(stream) == []
    calls = [(call.name, call.arguments) for call in stream.completion.tool_calls]
    assert calls == [("weather", {}), ("time", {})]


def test_an_answer_that_is_no_data_says_what_came() -> None:
    """11-5."""
    ctx = FakeContext(model=ScriptedModel("Sure! The sea is blue."))
    with pytest.raises(AnswerUnusable, match=r"it is not JSON, but .Sure! The sea is blue\."):
        ctx.model.generate("What?", output=Label)


def test_a_stream_gathers_tool_calls() -> None:
    ctx = FakeContext(model=ScriptedModel([ToolCall("1", "look_up", {"word": "sea"}), ToolCall("2", "look_up", {})]))
    stream = ctx.model.stream("What?", tools=[look_up])
    assert list(stream) == []
    assert [call.id for call in stream.completion.tool_calls] == ["1", "2"]


def test_embeddings_are_nearer_for_texts_that_share_words() -> None:
    ctx = FakeContext(model=ScriptedModel())
    cat, dog, tax = ctx.model.embed(["the cat sat", "the cat ran", "income tax law"]).vectors
    near = sum(a * b for a, b in zip(cat, dog, strict=True))
    far = sum(a * b for a, b in zip(cat, tax, strict=True))
    assert near > far
    assert ctx.model.count_tokens("the cat sat.") == 4


def test_a_scripted_error_reaches_the_app() -> None:
    ctx = FakeContext(model=ScriptedModel(QuotaExceeded("50 tokens a day are used up"), "then it works"))
    with pytest.raises(QuotaExceeded, match="50 tokens a day"):
        ctx.model.generate("hi")
    assert ctx.model.generate("hi").text == "then it works"


def test_a_script_that_runs_out_says_what_was_asked() -> None:
    with pytest.raises(AssertionError, match="'hi'"):
        FakeContext(model=ScriptedModel()).model.generate("hi")


def test_a_function_scripts_every_answer() -> None:
    ctx = FakeContext(model=ScriptedModel(lambda request: request["messages"][-1]["content"].upper()))
    assert [ctx.model.generate(word).text for word in ("a", "b")] == ["A", "B"]


def test_storage_keeps_text_bytes_and_json() -> None:
    ctx = FakeContext(storage=MemoryStorage())
    assert ctx.storage.put("a", "é") == 1
    assert ctx.storage.put("a", b"\xff\x00") == 2
    assert ctx.storage.get_bytes("a") == b"\xff\x00"
    ctx.storage.put_json("b", Label("other"))
    assert ctx.storage.get_json("b") == {"label": "other"}
    assert (ctx.storage.get("none"), ctx.storage.get("none", "x"), ctx.storage.get_json("none", [])) == (None, "x", [])
    assert (ctx.storage.delete("a"), ctx.storage.delete("a")) == (True, False)


def test_compare_and_set_fails_if_another_wrote_first() -> None:
    storage = FakeContext(storage=MemoryStorage()).storage
    assert storage.compare_and_set("k", None, "one") == 1
    with pytest.raises(Conflict):
        storage.compare_and_set("k", None, "again")
    assert storage.compare_and_set("k", 1, "two") == 2
    with pytest.raises(Conflict):
        storage.compare_and_set("k", 1, "late")
    assert storage.get("k") == "two"


def test_an_update_is_retried_if_another_run_wrote_first() -> None:
    storage = FakeContext(storage=MemoryStorage()).storage
    rounds: list[object] = []

    def add(count: int) -> int:
        if not rounds:
            storage.put_json("n", 10)  # another run, in between
        rounds.append(count)
        return count + 1

    assert storage.update_json("n", add, default=0) == 11
    assert rounds == [0, 10]


def test_keys_come_by_prefix_in_order_over_many_pages() -> None:
    ctx = FakeContext(storage=MemoryStorage({f"w/{n:04}": "" for n in range(450)} | {"x": "y"}))
    assert list(ctx.storage.keys("w/")) == [f"w/{n:04}" for n in range(450)]
    assert len(list(ctx.storage.keys())) == 451


def test_storage_holds_no_more_than_was_granted() -> None:
    ctx = FakeContext(storage=MemoryStorage({"a": "12345"}, max_bytes=8))
    with pytest.raises(QuotaExceeded, match="at most 8 bytes"):
        ctx.storage.put("b", "1234")
    assert ctx.storage.put("a", "1234567") == 2
    with pytest.raises(Invalid):
        ctx.storage.put("", "x")


def test_config_locale_progress_and_log_are_there_for_every_app() -> None:
    ctx = FakeContext(config={"formality": "formal"}, locale="zh")
    assert (ctx.config["formality"], ctx.locale) == ("formal", "zh")
    ctx.output.progress(0.5, "half")
    ctx.log.info("going")
    assert ctx.fake.progress == [(0.5, "half")]
    assert ctx.fake.logs == [("info", "going")]
    with pytest.raises(TypeError):
        ctx.config["formality"] = "neutral"  # type: ignore[index]


@pytest.mark.parametrize("name", ["model", "storage", "http", "secrets", "apps"])
def test_an_undeclared_capability_is_absent_and_the_error_has_the_lines_to_add(name: str) -> None:
    ctx = FakeContext()
    assert not hasattr(ctx, name)
    with pytest.raises(CapabilityNotDeclared) as raised:
        getattr(ctx, name)
    assert isinstance(raised.value, AppError)
    assert f'[[permissions]]\ncapability = "{name}"\n' in raised.value.message


def test_an_unknown_attribute_raises_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'models'"):
        _ = FakeContext().models  # type: ignore[attr-defined]


def test_http_requests_are_typed_and_kept() -> None:
    ctx = FakeContext(http=lambda request: {"status": 201, "headers": {"X-A": "b"}, "body": request["body"]})
    answer = ctx.http.post("https://api.example.com/x", json_body={"a": 1})
    assert (answer.status, answer.ok, answer.json(), answer.headers) == (201, True, {"a": 1}, {"x-a": "b"})
    assert ctx.fake.http_requests[0]["headers"] == {"content-type": "application/json"}
    ctx.http.request("PUT", "https://api.example.com/x", body=b"\xff")
    assert ctx.fake.http_requests[1]["base64"] is True


def test_other_apps_and_secret_names() -> None:
    ctx = FakeContext(apps={"acme/glossary": {"look_up": look_up}}, secrets=["api_key"])
    assert ctx.apps.call("acme/glossary", "look_up", word="sea") == "sea"
    with pytest.raises(Denied):
        ctx.apps.call("acme/other", "look_up")
    with pytest.raises(NotFound):
        ctx.apps.call("acme/glossary", "gone")
    assert ctx.secrets.names() == ["api_key"]


def test_every_case_of_the_contract_has_one_error_and_back() -> None:
    for tag, error in BY_TAG.items():
        assert type(from_tag(tag, "why")) is error
        assert error.tag == tag
    assert isinstance(from_tag("new-case", "why"), Unavailable)


def test_the_pytest_fixture_offers_what_the_manifest_declares(pytester: pytest.Pytester) -> None:
    pytester.makefile(
        ".toml",
        llmapp='id = "me/hello"\n[runtime]\nsource = "src/app.py"\n[[permissions]]\ncapability = "model"\n'
        '[config.tone]\ndefault = "warm"\n',
    )
    folder = pytester.mkdir("src")
    (folder / "words.py").write_text("HELLO = 'Hello'\n")
    (folder / "app.py").write_text(
        "from llmasos_sdk import App, Context\nimport words\napp = App()\n@app.action\n"
        "def greet(ctx: Context, name: str) -> str:\n"
        "    return ctx.model.generate(f'{words.HELLO} {name}, be {ctx.config[\"tone\"]}').text\n"
    )
    pytester.mkdir("tests")
    (pytester.path / "tests" / "test_greet.py").write_text(
        "from llmasos_sdk.testing import call\n"
        "def test_it(llmasos_app, fake_context):\n"
        "    fake_context.scripted.answers('Hi!')\n"
        "    assert call(llmasos_app, 'greet', fake_context, name='Ada') == 'Hi!'\n"
        "    assert fake_context.scripted.requests[0]['messages'][0]['content'] == 'Hello Ada, be warm'\n"
        "    assert not hasattr(fake_context, 'storage')\n"
    )
    pytester.makeini("[pytest]\nasyncio_default_fixture_loop_scope = function")
    # A process of its own: another test may have imported another project's `words`.
    pytester.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(passed=1)


def test_contexts_share_nothing_between_threads() -> None:
    texts: list[str] = []

    def run(text: str) -> None:
        texts.append(FakeContext(model=ScriptedModel(text)).model.generate("x").text)

    threads = [threading.Thread(target=run, args=(str(n),)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(texts) == sorted(str(n) for n in range(8))


def test_a_declined_permission_can_be_asked_about_and_is_absent() -> None:
    """11-36: an action could not know that its optional permission was declined before it failed."""
    ctx = FakeContext(storage=MemoryStorage(), declined=["model"])
    assert ctx.has("storage")
    assert not ctx.has("model")
    assert not ctx.has("http")
    assert not hasattr(ctx, "model")
    with pytest.raises(PermissionDeclined, match=r'user declined that.*ctx\.has\("model"\)') as raised:
        ctx.model.generate("Hello")
    assert isinstance(raised.value, (Denied, AttributeError))
