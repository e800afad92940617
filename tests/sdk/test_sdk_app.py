"""Actions: described from their hints, called by JSON."""

import json
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Annotated

import pytest

from llmasos.bundles.actions import parse_actions
from llmasos_sdk import App, AppFailed, Context, Field, Invalid, NotFound, SchemaMismatch
from llmasos_sdk.hooks import plugin_manager
from llmasos_sdk.testing import FakeContext, FakeHost, MemoryStorage, ScriptedModel, call

app = App()


@dataclass
class Verdict:
    label: str
    sure: bool = True


@app.action(title={"en": "Sort", "zh": "分类"})
def sort(ctx: Context, message: Annotated[str, Field(ui="textarea")], labels: list[str] | None = None) -> Verdict:
    """Put a message under a label.

    Whatever it is.

    Args:
        message: What the customer wrote,
            all of it.
        labels: The labels to choose from.
    """
    return Verdict(label=(labels or ["other"])[0])


@app.action
def tell(ctx: Context, premise: str) -> Iterator[str]:
    """Tell a story."""
    yield from ctx.model.stream(premise, task="write")


@app.action(name="count_up", title="Count up")
def count_up(ctx: Context, to: int = 3) -> Generator[str, None, int]:
    for number in range(to):
        yield f"{number} "
    return to


@app.action
def fail(ctx: Context) -> str:
    raise KeyError("nothing here")


@app.action
def lie(ctx: Context) -> int:
    return "no number"  # type: ignore[return-value]


@app.action
def yield_numbers(ctx: Context) -> Iterator[str]:
    yield 1  # type: ignore[misc]


def test_an_action_is_described_by_its_hints_and_docstring() -> None:
    assert app.describe()[0] == {
        "name": "sort",
        "title": {"en": "Sort", "zh": "分类"},
        "description": "Put a message under a label.\n\nWhatever it is.",
        "input_schema": {
            "type": "object",
            "properties": {
                "message": {
                    "type": "string",
                    "x-ui": "textarea",
                    "description": "What the customer wrote, all of it.",
                },
                "labels": {
                    "anyOf": [{"type": "array", "items": {"type": "string"}}, {"type": "null"}],
                    "description": "The labels to choose from.",
                    "default": None,
                },
            },
            "required": ["message"],
            "additionalProperties": False,
        },
        "output_schema": {
            "type": "object",
            "title": "Verdict",
            "properties": {"label": {"type": "string"}, "sure": {"type": "boolean", "default": True}},
            "required": ["label"],
            "additionalProperties": False,
        },
        "streaming": False,
    }


def test_a_generator_streams_and_its_output_is_text_or_its_return_value() -> None:
    told, counted = app.describe()[1:3]
    assert (told["streaming"], told["output_schema"]) == (True, {"type": "string"})
    assert (counted["name"], counted["title"]) == ("count_up", {"en": "Count up"})
    assert (counted["streaming"], counted["output_schema"]) == (True, {"type": "integer"})


def test_an_action_takes_json_and_returns_json() -> None:
    assert call(app, "sort", FakeContext(), message="hi", labels=["billing"]) == {"label": "billing", "sure": True}


def test_an_action_stays_a_function() -> None:
    assert sort(FakeContext(), "hi") == Verdict("other")


def test_each_yield_goes_out_as_a_chunk_and_all_of_them_are_the_output() -> None:
    ctx = FakeContext(model=ScriptedModel("Once upon a time."))
    assert call(app, "tell", ctx, premise="a lighthouse") == "Once upon a time."
    assert ctx.fake.chunks == ["Once ", "upon ", "a ", "time."]


def test_the_return_value_of_a_generator_is_its_output() -> None:
    ctx = FakeContext()
    assert call(app, "count_up", ctx) == 3
    assert ctx.fake.chunks == ["0 ", "1 ", "2 "]


def test_an_error_of_the_app_is_one_line_for_the_caller_and_a_traceback_in_the_log() -> None:
    ctx = FakeContext()
    with pytest.raises(AppFailed) as raised:
        call(app, "fail", ctx)
    assert raised.value.message.startswith("the app failed: KeyError: 'nothing here' (test_sdk_app.py, line ")
    level, message = ctx.fake.logs[0]
    assert level == "error"
    assert "Traceback" in message


@pytest.mark.parametrize("action", ["lie", "yield_numbers"])
def test_an_output_against_its_schema_is_the_apps_failure(action: str) -> None:
    with pytest.raises(AppFailed, match=f"action {action}"):
        call(app, action, FakeContext())


@pytest.mark.parametrize(
    ("action", "text", "error", "message"),
    [
        ("gone", "{}", NotFound, "there is no action 'gone'; this app has: sort, tell"),
        ("sort", "{", Invalid, "the input is not JSON"),
        ("sort", "[]", Invalid, "the input is a JSON object"),
        ("sort", "[" * 100_000, Invalid, "the input is not JSON"),
        ("sort", '{"mesage": "hi"}', SchemaMismatch, "mesage: there is no such input; known are: message, labels"),
    ],
)
def test_bad_input_is_refused_with_its_place(action: str, text: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        app.call(action, text, FakeContext())


def test_an_async_action_is_refused_with_the_reason() -> None:
    async def later(ctx: Context) -> str:
        return ""

    with pytest.raises(TypeError, match="action later is async; write it as a plain `def`"):
        App().action(later)


def test_an_action_without_a_context_is_refused() -> None:
    def first(text: str) -> str:
        return text

    with pytest.raises(TypeError, match="its first parameter takes the context"):
        App().action(first)


def test_an_input_without_a_hint_names_the_action_and_the_input() -> None:
    other = App()

    @other.action
    def guess(ctx: Context, thing) -> str:  # type: ignore[no-untyped-def]
        return str(thing)

    with pytest.raises(TypeError, match="action guess: guess: the input 'thing' needs a type hint"):
        other.describe()


def test_an_action_is_named_as_a_route_can_be() -> None:
    with pytest.raises(ValueError, match="'Not-So' is not a name of an action"):
        App().action(name="Not-So")(sort)


def test_what_an_app_describes_is_what_a_bundle_may_hold() -> None:
    assert [action.name for action in parse_actions(json.dumps(app.describe())).actions][:2] == ["sort", "tell"]


def test_two_actions_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="there is an action sort already"):
        app.action(sort)


def test_a_hook_is_listed_after_the_actions_and_runs_by_its_reserved_name() -> None:
    heard: list[object] = []
    hooked = App()

    @hooked.on_event
    def told(ctx: Context, event: dict[str, object]) -> None:
        heard.append(event["name"])

    @hooked.on_upgrade
    def moved(ctx: Context, from_version: str) -> None:
        heard.append(from_version)
        if from_version == "0.9":
            raise ValueError("too old")

    hooked.action(sort)
    assert [each["name"] for each in hooked.describe()] == ["sort", "@upgrade", "@event"]
    assert call(hooked, "@upgrade", FakeContext(), from_version="1.0") is None
    assert call(hooked, "@event", FakeContext(), event={"name": "grants", "payload": {}}) is None
    with pytest.raises(AppFailed, match="ValueError: too old"):
        call(hooked, "@upgrade", FakeContext(), from_version="0.9")
    assert heard == ["1.0", "grants", "0.9"]
    with pytest.raises(NotFound, match="no hook for @install"):
        call(hooked, "@install", FakeContext())

    async def later(ctx: Context) -> None:
        """Not offered."""

    with pytest.raises(TypeError, match="on_install is async"):
        hooked.on_install(later)


def test_pluggy_loads_an_app_and_calls_it_by_the_hooks() -> None:
    seen: list[object] = []
    native = App()

    @native.action
    def remember(ctx: Context, text: str) -> str:
        ctx.storage.put("text", text)
        return text

    @native.on_install
    def ready(ctx: Context) -> None:
        seen.append("installed")

    @native.on_upgrade
    def moved(ctx: Context, from_version: str) -> None:
        seen.append(from_version)

    manager = plugin_manager()
    manager.register(native)
    manager.check_pending()
    host = FakeHost(storage=MemoryStorage())
    assert json.loads(manager.hook.call(host=host, action="remember", input_json='{"text": "x"}')) == "x"
    assert host.storage is not None
    assert host.storage.values == {"text": b"x"}
    assert [each["name"] for each in manager.hook.actions()] == ["remember", "@install", "@upgrade"]
    manager.hook.install(host=host)
    manager.hook.upgrade(host=host, from_version="1.0")
    manager.hook.uninstall(host=host)
    manager.hook.event(host=host, event={"name": "tick", "payload": None})
    assert seen == ["installed", "1.0"]


def test_halves_of_a_character_in_two_pieces_are_sent_as_one() -> None:
    """11-10: half an emoji at the end of a model's piece was sent alone, and ended the run."""
    cut = App()

    @cut.action
    def pieces(ctx: Context, parts: list[str]) -> Iterator[str]:
        yield from parts

    def sent(*parts: str) -> tuple[str, object]:
        ctx = FakeContext()
        answer = call(cut, "pieces", ctx, parts=list(parts))
        return "".join(ctx.host.chunks), answer

    assert sent("a\ud83d", "\ude00b") == ("a😀b", "a😀b")
    assert sent("a", "é", "") == ("aé", "aé")
