"""Translates chat-completion requests for the embedded engine.

A model of this size does not call tools by itself: it replies in text. So the choice of a tool is requested as JSON
with a schema, which the engine's grammar enforces, and is converted back into tool calls.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from llmasos.errors import Invalid
from llmasos.gateway.failures import ContextTooLong
from llmasos.i18n import _

# Warm enough for a story, with a penalty that keeps a small model out of loops; data needs the likeliest words.
TEXT_SAMPLING: Mapping[str, Any] = {"temperature": 0.7, "top_p": 0.95, "repeat_penalty": 1.1}
DATA_SAMPLING: Mapping[str, Any] = {"temperature": 0.0}
# A context of 4,096 tokens has no room for more turns, of five tokens at least.
MAX_TURNS = 800
# A hundred values cost a call 3 s on a busy machine with two cores, and others wait with it; 3,000 cost 110 s.
MAX_CHOICES = 100
PASSED_ON = ("max_tokens", "temperature", "top_p", "seed", "stop")


@dataclass(frozen=True, slots=True)
class EngineRequest:
    """A body for the engine, and how to read its answer."""

    body: dict[str, Any]
    calls_tools: bool = False
    schema: Mapping[str, Any] | None = None


def engine_request(messages: list[dict[str, Any]], optional: Mapping[str, Any]) -> EngineRequest:
    """Translate a request.

    Raises:
        Invalid: It contains pictures or sound, or a schema that is not valid or is too large for this engine.
        ContextTooLong: It has more turns than the engine can read.
    """
    if len(messages) > MAX_TURNS:
        raise ContextTooLong(_("This model reads at most {limit} messages; send fewer.", limit=MAX_TURNS))
    plain = [_plain(message) for message in messages]
    tools = cast(list[dict[str, Any]], optional.get("tools") or [])
    choice = optional.get("tool_choice")
    schema: Mapping[str, Any] | None = None
    calls_tools = bool(tools) and choice != "none"
    if calls_tools:
        schema = _tool_schema(tools, choice)
        plain = [{"role": "system", "content": _tool_words(tools, choice)}, *plain]
    elif (shape := optional.get("response_format")) is not None:
        schema = _response_schema(cast(dict[str, Any], shape))
    sampling = TEXT_SAMPLING if schema is None else DATA_SAMPLING
    body: dict[str, Any] = {**sampling, "messages": plain, "cache_prompt": True}
    body.update({name: optional[name] for name in PASSED_ON if optional.get(name) is not None})
    if schema is not None:
        _check_size(schema)
        body["response_format"] = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    return EngineRequest(body, calls_tools, schema)


def _check_size(schema: Mapping[str, Any]) -> None:
    """Refuse a schema whose grammar would block other callers: the cost of each token grows with its alternatives."""
    choices, waiting = 0, [cast(object, schema)]
    while waiting:
        value = waiting.pop()
        if isinstance(value, Mapping):
            fields = cast(Mapping[str, object], value)
            for name in ("enum", "anyOf", "oneOf", "allOf", "properties", "prefixItems"):
                some = fields.get(name)
                choices += len(cast("list[object]", some)) if isinstance(some, (list, dict)) else 0
            waiting += fields.values()
        elif isinstance(value, list):
            waiting += cast("list[object]", value)
    if choices > MAX_CHOICES:
        raise Invalid(
            _(
                "The schema leaves {choices} choices (values, alternatives, properties); this model takes {limit}. "
                "Use a smaller schema, or another model.",
                choices=choices,
                limit=MAX_CHOICES,
            )
        )


def _plain(message: dict[str, Any]) -> dict[str, Any]:
    """A message as text, including tool calls and their results."""
    content = _text(message.get("content"))
    role = message["role"]
    if role == "tool":
        return {"role": "user", "content": f"The tool answered: {content}"}
    for call in message.get("tool_calls") or ():
        function = call["function"]
        content += json.dumps({"tool": function["name"], "arguments": function["arguments"]}, ensure_ascii=False)
    return {"role": role, "content": content}


def _text(content: object) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    parts = cast(list[dict[str, Any]], content)
    if any(part.get("type") != "text" for part in parts):
        raise Invalid(
            _("This model reads text only; send no pictures or sound, or choose another model."),
        )
    return "\n".join(str(part.get("text", "")) for part in parts)


def _response_schema(shape: dict[str, Any]) -> Mapping[str, Any] | None:
    match shape.get("type"):
        case "json_object":
            return {"type": "object"}
        case "json_schema":
            schema = cast(dict[str, Any], shape.get("json_schema") or {}).get("schema")
            if isinstance(schema, dict):
                return cast(dict[str, Any], schema)
            raise Invalid(
                _('response_format needs {{"type": "json_schema", "json_schema": {{"name", "schema"}}}}.'),
            )
        case _:
            return None


def _functions(tools: list[dict[str, Any]], choice: object) -> list[dict[str, Any]]:
    functions = [cast(dict[str, Any], tool.get("function") or {}) for tool in tools]
    if isinstance(choice, dict):
        named = cast(dict[str, Any], choice).get("function", {}).get("name")
        functions = [function for function in functions if function.get("name") == named]
        if not functions:
            raise Invalid(
                _("tool_choice names {named!r}, which is not among the tools.", named=named),
            )
    return functions


def _may_answer_in_text(choice: object) -> bool:
    return choice in (None, "auto")


def _tool_schema(tools: list[dict[str, Any]], choice: object) -> Mapping[str, Any]:
    cases: list[dict[str, Any]] = [
        {
            "type": "object",
            "properties": {
                "tool": {"const": function.get("name")},
                "arguments": function.get("parameters") or {"type": "object"},
            },
            "required": ["tool", "arguments"],
            "additionalProperties": False,
        }
        for function in _functions(tools, choice)
    ]
    if _may_answer_in_text(choice):
        text = {"type": "object", "properties": {"answer": {"type": "string"}}, "required": ["answer"]}
        cases.append({**text, "additionalProperties": False})
    return cases[0] if len(cases) == 1 else {"anyOf": cases}


def _tool_words(tools: list[dict[str, Any]], choice: object) -> str:
    lines = [
        f"- {function.get('name')}: {function.get('description') or ''} "
        f"Arguments: {json.dumps(function.get('parameters') or {}, ensure_ascii=False)}"
        for function in _functions(tools, choice)
    ]
    text = ' Where no tool helps, answer {"answer": "your words"}.' if _may_answer_in_text(choice) else ""
    return 'You may call one tool, as JSON {"tool": name, "arguments": {…}}.' + text + "\nTools:\n" + "\n".join(lines)


@dataclass(frozen=True, slots=True)
class Said:
    """An answer of the engine, with the fields of a chat completion."""

    content: str | None
    finish_reason: str
    tool_calls: tuple[dict[str, Any], ...] = ()


def read_tools(text: str, finish_reason: str) -> Said:
    """Convert the JSON of a choice of tools into tool calls. Cut JSON stays text, marked as cut."""
    try:
        value = json.loads(text)
    except ValueError:
        return Said(text, finish_reason)
    if "answer" in value:
        return Said(str(value["answer"]), finish_reason)
    function = {"name": value["tool"], "arguments": json.dumps(value["arguments"], ensure_ascii=False)}
    call = {"id": f"call_{uuid.uuid4().hex[:24]}", "type": "function", "function": function}
    return Said(None, "tool_calls", (call,))
