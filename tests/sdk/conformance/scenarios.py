"""What an app does, and what it must get: the same from the fakes as from the host, in each language."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from typing import Any

# Stands for the address of the server that the app may reach; `NOBODY` for one where none listens.
SERVER = "{server}"
NOBODY = "{nobody}"


@dataclass(frozen=True)
class Scenario:
    """One run of an action of the conformance app, and what it must give.

    `expected` is `output` or `error`, and of `chunks`, `progress` and `logs` what it names.
    """

    name: str
    action: str
    inputs: dict[str, Any]
    expected: dict[str, Any]
    model: list[Any] = field(default_factory=list)
    """What the model answers: texts, `{"tool": [id, name, arguments]}`, or `{"fails": true}`."""
    stored: dict[str, str] = field(default_factory=dict)
    secrets: list[str] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    locale: str = "en"
    declined: list[str] = field(default_factory=list)


def ok(value: Any = None) -> dict[str, Any]:
    return {"ok": value}


def error(kind: str) -> dict[str, Any]:
    return {"error": kind}


def run(name: str, *pairs: tuple[list[Any], Any], shown: dict[str, Any] | None = None, **setup: Any) -> Scenario:
    """A scenario of steps, each with what it must give."""
    steps = [step for step, _ in pairs]
    return Scenario(name, "run", {"steps": steps}, {"output": [each for _, each in pairs], **(shown or {})}, **setup)


def json_file(name: str, content: bytes, media_type: str = "application/octet-stream") -> dict[str, Any]:
    """A file as JSON."""
    return {"name": name, "media_type": media_type, "base64": base64.b64encode(content).decode()}


ANSWER = ["Hello there.", "stop", [], True]
CALLED = [["1", "look_up", {"word": "sea"}]]
TOOL = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}
CASES = ["Denied", "QuotaExceeded", "Invalid", "Unavailable", "TimedOut", "Cancelled", "NotFound", "Conflict"]

MEETING = {"way": {"seat": "12a", "by": "train"}}

SCENARIOS = [
    run(
        "output",
        (["output.progress", 0, "none"], ok()),
        (["output.progress", 0.5, "half"], ok()),
        (["output.progress", 1], ok()),
        (["output.progress", -3, ""], ok()),
        (["output.progress", 3, ""], ok()),
        (["output.progress", 0.5, 5], ok()),
        (["output.progress", 0.5, "x" * 600], ok()),
        shown={
            "progress": [
                *([0, "none"], [0.5, "half"], [1, ""], [0, ""], [1, ""], [0.5, "5"]),
                [0.5, "x" * 500],
            ]
        },
    ),
    run(
        "log",
        *((["log." + level, level], ok()) for level in ("debug", "info", "warning", "error")),
        (["log.info", 5], ok()),
        (["log.info", ""], ok()),
        shown={"logs": "DEBUG debug\nINFO info\nWARNING warning\nERROR error\nINFO 5\nINFO \n"},
    ),
    run(
        "config",
        (["config"], ok([{"formality": "formal", "count": 3}, "zh"])),
        config={"formality": "formal", "count": 3},
        locale="zh",
    ),
    run("empty config", (["config"], ok([{}, "en"]))),
    run(
        "what is declined is absent",
        (["has", "model"], ok([False, False])),
        (["has", "storage"], ok([True, True])),
        declined=["model"],
    ),
    Scenario(
        "a declined capability that is used", "careless", {}, {"error": "its user declined that"}, declined=["model"]
    ),
    run(
        "a whole answer",
        (["model.generate", "Greet", {}], ok(ANSWER)),
        (
            ["model.generate", [{"role": "user", "content": "Greet"}], {"system": "Be kind", "max_tokens": 50}],
            ok(ANSWER),
        ),
        (
            ["model.generate", "Greet", {"temperature": 0.5, "top_p": 0.9, "seed": 7, "stop": ["END"], "tier": "fast"}],
            ok(ANSWER),
        ),
        (
            ["model.generate", "Greet", {"task": "chat", "language": "en", "tools": [TOOL], "tool_choice": "auto"}],
            ok(ANSWER),
        ),
        model=["Hello there."] * 4,
    ),
    run(
        "requests that no model takes",
        (["model.generate", "Greet", {"temperature": 5}], error("Invalid")),
        (["model.generate", "Greet", {"max_tokens": 0}], error("Invalid")),
        (["model.generate", "Greet", {"max_tokens": "many"}], error("Invalid")),
        (["model.generate", "Greet", {"temprature": 1}], error("Invalid")),
        (["model.generate", "Greet", {"task": "dance"}], error("Invalid")),
        (["model.generate", "Greet", {"stop": [""]}], error("Invalid")),
        (["model.generate", [], {}], error("Invalid")),
        (["model.generate", [{"role": "guest", "content": "Hi"}], {}], error("Invalid")),
        (["model.stream", "Greet", {"top_p": 0}], error("Invalid")),
        (["model.embed", []], error("Invalid")),
        (["model.embed", [5]], error("Invalid")),
    ),
    run("a model that fails", (["model.generate", "Greet", {}], error("Unavailable")), model=[{"fails": True}]),
    run(
        "a stream",
        (["model.stream", "Greet", {}], ok([True, *ANSWER[:1], [], "stop", True])),
        model=["Hello there."],
    ),
    run("a stream that is left", (["model.leave_stream", "Greet"], ok(True)), model=["Hello there, again and again."]),
    run(
        "tool calls",
        (["model.generate", "What is the sea?", {"tools": [TOOL]}], ok(["", "tool_calls", CALLED, True])),
        (["model.stream", "What is the sea?", {"tools": [TOOL]}], ok([True, "", CALLED, "tool_calls", True])),
        model=[{"tool": CALLED[0]}] * 2,
    ),
    run(
        "embeddings and tokens",
        (["model.embed", "one text"], ok([1, True])),
        (["model.embed", ["one", "two", "中文"]], ok([3, True])),
        (["model.count_tokens", "some words"], ok(True)),
        (["model.count_tokens", ""], ok(False)),
    ),
    run(
        "storage",
        (["storage.get", "k"], ok()),
        (["storage.entry", "k"], ok()),
        (["storage.get_bytes", "k"], ok()),
        (["storage.get_json", "k"], ok()),
        (["storage.put", "k", "é"], ok(1)),
        (["storage.get", "k"], ok("é")),
        (["storage.entry", "k"], ok([[195, 169], 1])),
        (["storage.put", "k", {"bytes": [255, 0, 1]}], ok(2)),
        (["storage.get_bytes", "k"], ok([255, 0, 1])),
        (["storage.get", "k"], error("TypeError")),
        (["storage.put", "k", {"bytes": [0xC3, 0xA9]}], ok(3)),
        (["storage.get", "k"], ok("é")),
        (["storage.put", "k", {"bytes": []}], ok(4)),
        (["storage.get_bytes", "k"], ok([])),
        (["storage.put", "k", ""], ok(5)),
        (["storage.get", "k"], ok("")),
        (["storage.put_json", "k", {"a": [1, None, True, "中"]}], ok(6)),
        (["storage.get_json", "k"], ok({"a": [1, None, True, "中"]})),
        (["storage.delete", "k"], ok(True)),
        (["storage.delete", "k"], ok(False)),
        (["storage.put", "k", "again"], ok(7)),
    ),
    run(
        "compare and set",
        (["storage.compare_and_set", "k", None, "one"], ok(1)),
        (["storage.compare_and_set", "k", None, "late"], error("Conflict")),
        (["storage.compare_and_set", "k", 1, "two"], ok(2)),
        (["storage.compare_and_set", "k", 1, "late"], error("Conflict")),
        (["storage.compare_and_set", "k", 2, {"bytes": [0]}], ok(3)),
        (["storage.compare_and_set", "other", 1, "x"], error("Conflict")),
        (["storage.compare_and_set", "k", 0, "x"], error("Conflict")),
        (["storage.delete", "k"], ok(True)),
        (["storage.compare_and_set", "k", 3, "x"], error("Conflict")),
        (["storage.compare_and_set", "k", None, "new"], ok(4)),
        *((["storage.increase", "n"], ok(count)) for count in (1, 2, 3)),
    ),
    run(
        "keys",
        (["storage.count", ""], ok(405)),
        (["storage.keys", "key-00"], ok([f"key-00{digit}" for digit in range(10)])),
        (["storage.keys", "none"], ok([])),
        stored={f"key-{number:03}": "v" for number in range(405)},
    ),
    run(
        "the order of keys",
        (["storage.keys", ""], ok(["Z", "a", "é", "\ue000", "\uffee", "😀"])),
        stored=dict.fromkeys(("😀", "￮", "\ue000", "é", "a", "Z"), "v"),
    ),
    run(
        "what storage refuses",
        (["storage.put", "", "v"], error("Invalid")),
        (["storage.put", "a\nb", "v"], error("Invalid")),
        (["storage.put", "é" * 257, "v"], error("Invalid")),
        (["storage.put", "é" * 256, "v"], ok(1)),
        (["storage.get", "a\x85b"], error("Invalid")),
        (["storage.delete", ""], error("Invalid")),
        (["storage.put", "k", "a\0b"], error("Invalid")),
        (["storage.compare_and_set", "k", None, "a\0b"], error("Invalid")),
        (["storage.keys", "a\0"], error("Invalid")),
        (["storage.put", "k", "v" * 20_001], error("QuotaExceeded")),
        (["storage.put", "k", "v" * (20_000 - 512 - 1 - 1)], ok(1)),
        (["storage.put", "l", ""], error("QuotaExceeded")),
    ),
    run(
        "http",
        (["http.request", "GET", SERVER + "/echo", {}], ok([200, True, "", [], "GET"])),
        (["http.request", "POST", SERVER + "/echo", {"body": "é"}], ok([200, True, "é", [195, 169], "POST"])),
        (
            ["http.request", "PUT", SERVER + "/echo", {"body": {"bytes": [255, 0]}}],
            ok([200, True, "\ufffd\0", [255, 0], "PUT"]),
        ),
        (
            ["http.request", "POST", SERVER + "/echo", {"json": "中"}],
            ok([200, True, '"中"', [34, *"中".encode(), 34], "POST"]),
        ),
        (
            ["http.request", "GET", SERVER + "/missing", {"headers": {"accept": "text/plain"}}],
            ok([404, False, "", [], "GET"]),
        ),
        (["http.request", "GET", "http://192.0.2.1/", {}], error("Denied")),
        (["http.request", "GET", NOBODY, {}], error("Unavailable")),
        (["http.request", "get", SERVER, {}], error("Invalid")),
        (["http.request", "GET", SERVER, {"headers": {"a": 5}}], error("Invalid")),
        (["http.request", "POST", SERVER, {"body": 5}], error("Invalid")),
        (["http.request", "GET", "ftp://x", {}], error("Invalid")),
    ),
    run("no secrets", (["secrets.names"], ok([]))),
    run("secrets", (["secrets.names"], ok(["api_key"])), secrets=["api_key"]),
    run(
        "apps",
        (["apps.call", "acme/callee", "echo", {"value": {"a": ["中", None]}}], ok({"a": ["中", None]})),
        (["apps.call", "acme/callee", "gone", {}], error("NotFound")),
        (["apps.call", "acme/other", "echo", {}], error("Denied")),
        (["apps.call", "acme/callee", "crash", {}], error("Invalid")),
        *((["apps.call", "acme/callee", "fail", {"kind": kind}], error(kind)) for kind in CASES),
    ),
    run(
        "values of another type",
        (["output.progress", "half", "x"], error("TypeError")),
        (["model.count_tokens", 5], error("TypeError")),
        (["model.count_tokens", None], error("TypeError")),
        (["storage.get", 5], error("TypeError")),
        (["storage.get", None], error("TypeError")),
        (["storage.get", ["k"]], error("TypeError")),
        (["storage.put", 5, "v"], error("TypeError")),
        (["storage.put", "k", None], error("TypeError")),
        (["storage.put", "k", 5], error("TypeError")),
        (["storage.delete", True], error("TypeError")),
        (["storage.keys", 5], error("TypeError")),
        (["storage.compare_and_set", "k", "1", "v"], error("TypeError")),
        (["storage.compare_and_set", "k", -1, "v"], error("TypeError")),
        (["storage.compare_and_set", "k", 1.5, "v"], error("TypeError")),
        (["storage.compare_and_set", "k", True, "v"], error("TypeError")),
        (["apps.call", 5, "echo", {}], error("TypeError")),
        (["storage.put", "k", "still here"], ok(1)),
    ),
    Scenario(
        "an error of the app",
        "crash",
        {"text": "no such thing"},
        {"error": "the app failed: RuntimeError: no such thing"},
    ),
    Scenario(
        "dates, a union and an Enum",
        "postpone",
        {"meeting": {**MEETING, "day": "2028-02-28", "at": "2028-02-28T09:30:00Z", "tone": "curt"}, "days": 2},
        {"output": {**MEETING, "day": "2028-03-01", "at": "2028-03-01T09:30:00Z", "tone": "curt"}},
    ),
    Scenario(
        "a TypedDict without what it does not require",
        "postpone",
        {"meeting": {"day": "2026-12-31", "at": None, "way": {"by": "foot"}}},
        {"output": {"day": "2027-01-01", "at": None, "way": {"by": "foot"}}},
    ),
    *(Scenario(f"the error {kind}", "fail", {"kind": kind, "text": "why"}, {"error": "why"}) for kind in CASES),
]

# Half a character, and whole ones that something on the way may take for an end, a mark or nothing.
TEXTS = {
    "first half": ([0x61, 0xD83D], "a\ufffd"),
    "second half": ([0xDE00, 0x61], "\ufffda"),
    "halves the wrong way round": ([0xDE00, 0xD83D], "\ufffd\ufffd"),
    "half before an escape": ([0xD83D, 0x5C, 0x75], "\ufffd\\u"),
    "astral": ([0xD83D, 0xDE00], "😀"),
    "combining": ([0x65, 0x301, 0x1F1, 0x200D], "e\u0301\u01f1\u200d"),
    "right to left": ([0x202E, 0x5D0, 0x200F, 0x2066], "\u202e\u05d0\u200f\u2066"),
    "line ends": ([0x61, 0x2028, 0x2029, 0x85, 0x0B, 0x0D, 0x0A], "a\u2028\u2029\x85\x0b\r\n"),
    "NUL": ([0x61, 0, 0x62], "a\0b"),
    "byte order mark": ([0xFEFF, 0x61, 0xFFFE, 0xFFFF], "\ufeffa\ufffe\uffff"),
    "escapes": ([0x5C, 0x22, 0x2F, 0x1B, 0x5B, 0x7F], '\\"/\x1b[\x7f'),
    "backslash and half": ([0x5C, 0xD83D], "\\\ufffd"),
}


def text_scenarios(name: str, units: list[int], mended: str) -> list[Scenario]:
    """A text through every value of the SDK."""
    text = {"units": units}
    has_control = any(ord(character) < 32 or 127 <= ord(character) < 160 for character in mended)
    kept = error("Invalid") if "\0" in mended else ok(mended)
    body = mended.encode()
    return [
        run(
            f"{name} in values",
            (["log.info", text], ok()),
            (["output.progress", 0.5, text], ok()),
            (["storage.put", text, "v"], error("Invalid") if has_control else ok(1)),
            (["storage.get", text], error("Invalid") if has_control else ok("v")),
            (["storage.keys", ""], ok([] if has_control else [mended])),
            (["storage.put", "value", text], error("Invalid") if "\0" in mended else ok(1)),
            (["storage.get", "value"], kept if "\0" not in mended else ok()),
            (["storage.put_json", "json", {"a": text}], ok(1)),
            (["storage.get_json", "json"], ok({"a": mended})),
            (["model.generate", text, {}], ok([mended, "stop", [], True])),
            (["model.stream", text, {}], ok([True, mended, [], "stop", True])),
            (["model.embed", [text]], ok([1, True])),
            (["model.count_tokens", text], ok(True)),
            (["http.request", "POST", SERVER + "/echo", {"body": text}], ok([200, True, mended, list(body), "POST"])),
            (["apps.call", "acme/callee", "echo", {"value": text}], ok(mended)),
            shown={"progress": [[0.5, mended]], "logs": f"INFO {mended}\n"},
            model=[{"echo": True}],
        ),
        Scenario(
            f"{name} in pieces", "say", {"pieces": [[unit] for unit in units]}, {"output": mended, "chunks": mended}
        ),
        Scenario(f"{name} in an answer", "back", {"value": {"a": [text]}}, {"output": {"a": [mended]}}),
        Scenario(f"{name} in an error", "fail", {"kind": "Invalid", "text": text}, {"error": mended}),
        Scenario(f"{name} in a failure", "crash", {"text": text}, {"error": "the app failed: RuntimeError"}),
    ]


SCENARIOS += [scenario for name, (units, mended) in TEXTS.items() for scenario in text_scenarios(name, units, mended)]
