"""Keeps personal data from models that run elsewhere.

Before a call, e-mail addresses, phone numbers, card numbers, IBANs and network addresses in the messages become marks
such as `[EMAIL_1]`; the same value gets the same mark, so that the model can still tell people apart. In the answer the
marks become the values again. Models that run on this machine see the text as it is, unless `LLMASOS_PII_LOCAL=1`.

Found by patterns and check digits: names and street addresses are not.
"""

from __future__ import annotations

import os
from typing import Any

from llmasos.gateway.request import ChatMessage, GenerateRequest
from llmasos.hooks import ModelCall, TextFilter, hookimpl
from llmasos_pii_redactor.marks import Marks

__all__ = ["after_model_call", "before_model_call"]

STATE = "pii-redactor"


@hookimpl
def before_model_call(call: ModelCall) -> GenerateRequest | None:
    """Put marks in place of personal data."""
    if call.goes_to == "local" and os.environ.get("LLMASOS_PII_LOCAL") != "1":
        return None
    marks = Marks()
    messages = [_marked(message, marks) for message in call.request.messages]
    call.state[STATE] = marks
    return call.request.model_copy(update={"messages": messages}) if marks else None


@hookimpl
def after_model_call(call: ModelCall) -> TextFilter | None:
    """Put the values back."""
    marks: Marks | None = call.state.get(STATE)
    return marks.restorer() if marks else None


def _marked(message: ChatMessage, marks: Marks) -> ChatMessage:
    plain = message.as_sent()
    walked = {field: _walk(value, marks) for field, value in plain.items() if field in ("content", "tool_calls")}
    return ChatMessage.model_validate({**plain, **walked})


def _walk(value: Any, marks: Marks) -> Any:
    """The value with every text in it marked; pictures and sounds are passed as they are."""
    match value:
        case str():
            return marks.put(value)
        case list():
            return [_walk(each, marks) for each in value]
        case {"type": "image_url" | "input_audio"}:
            return value
        case dict():
            kept = ("type", "id", "name")
            return {key: each if key in kept else _walk(each, marks) for key, each in value.items()}
        case _:
            return value
