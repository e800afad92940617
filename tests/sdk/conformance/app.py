"""The conformance app: it runs what a scenario names, and returns what each step gave. `app.js` is its twin."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import Any, Literal, NotRequired, TypedDict

import llmasos_sdk
from llmasos_sdk import App, Context, File, PermissionDeclined, ToolCall
from llmasos_sdk.model import ModelClient

app = App()


def text_of(units: list[int]) -> str:
    """A text from its UTF-16 units, so that it may hold half a character, which no input can."""
    joined = "".join(map(chr, units))
    return joined.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")


def value_of(given: Any) -> Any:
    if isinstance(given, list):
        return [value_of(each) for each in given]
    if isinstance(given, dict):
        if "units" in given:
            return text_of(given["units"])
        return bytes(given["bytes"]) if "bytes" in given else {key: value_of(each) for key, each in given.items()}
    return given


def calls(found: tuple[ToolCall, ...]) -> list[Any]:
    return [[call.id, call.name, dict(call.arguments)] for call in found]


def stream(model: ModelClient, prompt: str, options: dict[str, Any]) -> Any:
    opened = model.stream(prompt, **options)
    text = "".join(opened)
    told = opened.completion
    return [text == told.text, text, calls(told.tool_calls), told.finish_reason, told.usage.completion_tokens > 0]


def leave_stream(model: ModelClient, prompt: str) -> bool:
    with model.stream(prompt) as opened:
        first = next(iter(opened))
    opened.close()
    return bool(first) and list(opened) == []


def generate(model: ModelClient, prompt: Any, options: dict[str, Any]) -> Any:
    told = model.generate(prompt, **options)
    return [told.text, told.finish_reason, calls(told.tool_calls), told.usage.completion_tokens > 0]


def embed(model: ModelClient, texts: Any) -> Any:
    told = model.embed(texts)
    return [len(told.vectors), all(isinstance(number, float) for vector in told.vectors for number in vector)]


def entry(ctx: Context, key: str) -> Any:
    found = ctx.storage.entry(key)
    return None if found is None else [list(found.value), found.version]


def get_bytes(ctx: Context, key: str) -> Any:
    found = ctx.storage.get_bytes(key)
    return None if found is None else list(found)


def request(ctx: Context, method: str, url: str, options: dict[str, Any]) -> Any:
    told = ctx.http.request(
        method, url, headers=options.get("headers"), body=options.get("body"), json_body=options.get("json")
    )
    return [told.status, told.ok, told.text, list(told.content), told.headers.get("x-seen")]


STEPS = {
    "output.progress": lambda ctx, *given: ctx.output.progress(*given),
    "log.debug": lambda ctx, *given: ctx.log.debug(*given),
    "log.info": lambda ctx, *given: ctx.log.info(*given),
    "log.warning": lambda ctx, *given: ctx.log.warning(*given),
    "log.error": lambda ctx, *given: ctx.log.error(*given),
    "config": lambda ctx: [dict(ctx.config), ctx.locale],
    "has": lambda ctx, name: [ctx.has(name), _is_there(ctx, name)],
    "model.generate": lambda ctx, prompt, options: generate(ctx.model, prompt, options),
    "model.stream": lambda ctx, prompt, options: stream(ctx.model, prompt, options),
    "model.leave_stream": lambda ctx, prompt: leave_stream(ctx.model, prompt),
    "model.embed": lambda ctx, texts: embed(ctx.model, texts),
    "model.count_tokens": lambda ctx, text: ctx.model.count_tokens(text) > 0,
    "storage.entry": entry,
    "storage.get": lambda ctx, key: ctx.storage.get(key),
    "storage.get_bytes": get_bytes,
    "storage.get_json": lambda ctx, key: ctx.storage.get_json(key),
    "storage.put": lambda ctx, key, value: ctx.storage.put(key, value),
    "storage.put_json": lambda ctx, key, value: ctx.storage.put_json(key, value),
    "storage.compare_and_set": lambda ctx, key, version, value: ctx.storage.compare_and_set(key, version, value),
    "storage.increase": lambda ctx, key: ctx.storage.update_json(key, lambda count: count + 1, 0),
    "storage.delete": lambda ctx, key: ctx.storage.delete(key),
    "storage.keys": lambda ctx, prefix: list(ctx.storage.keys(prefix)),
    "storage.count": lambda ctx, prefix: len(list(ctx.storage.keys(prefix))),
    "http.request": request,
    "secrets.names": lambda ctx: sorted(ctx.secrets.names()),
    "apps.call": lambda ctx, callee, action, inputs: ctx.apps.call(callee, action, **inputs),
}


def _is_there(ctx: Context, name: str) -> bool:
    try:
        getattr(ctx, name)
    except PermissionDeclined:
        return False
    return True


@app.action
def run(ctx: Context, steps: Any) -> Any:
    """Run steps, each `[name, argument, …]`, and return what each gave: `{"ok": value}` or `{"error": class}`."""
    answers: list[Any] = []
    for name, *given in steps:
        try:
            answers.append({"ok": STEPS[name](ctx, *value_of(given))})
        except (llmasos_sdk.AppError, TypeError) as error:
            assert str(error)
            answers.append({"error": type(error).__name__})
    return answers


@app.action
def say(ctx: Context, pieces: Any) -> Iterator[str]:
    """Yield texts, given as UTF-16 units."""
    for piece in pieces:
        # As a model's piece comes: halves stay halves.
        yield "".join(map(chr, piece))


@app.action
def back(ctx: Context, value: Any) -> Any:
    """Return a value."""
    return value_of(value)


@app.action
def turn(ctx: Context, file: File, others: list[File]) -> File:
    """Return a file with its bytes the other way round, and the names of others as its type."""
    names = ".".join(other.name for other in others) or "none"
    return File(f"folder/{file.name}", file.content[::-1], f"x/{names}" if file.media_type == "a/b" else "c/d")


@app.action
def fill(ctx: Context, size: int) -> File:
    """Return a file of a size."""
    return File("zeros", bytes(size))


@dataclass
class ByTrain:
    seat: int | str
    by: Literal["train"] = "train"


@dataclass
class OnFoot:
    by: Literal["foot"] = "foot"


class Tone(StrEnum):
    KIND = "kind"
    CURT = "curt"


class Meeting(TypedDict):
    """Another day."""

    day: date
    at: datetime | None
    way: ByTrain | OnFoot
    tone: NotRequired[Tone]


@app.action
def postpone(ctx: Context, meeting: Meeting, days: int = 1) -> Meeting:
    """Return a meeting some days later."""
    at = meeting["at"]
    return {**meeting, "day": meeting["day"] + timedelta(days), "at": at and at + timedelta(days)}


@app.action
def fail(ctx: Context, kind: str, text: Any) -> str:
    """Fail with an error of the contract."""
    raise getattr(llmasos_sdk, kind)(value_of(text))


@app.action
def crash(ctx: Context, text: Any) -> str:
    """Fail with an error of its own."""
    raise RuntimeError(value_of(text))


@app.action
def careless(ctx: Context) -> str:
    """Use a capability without asking whether it is there."""
    return ctx.model.generate("Hello").text
