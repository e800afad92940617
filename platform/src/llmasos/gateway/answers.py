"""Checks providers' answers, here and nowhere else, and returns them as plain chat completions.

litellm's classes are read by attribute, since their `model_dump` takes longer than the rest of the gateway.
An answer of any other form is a `BadAnswer`, never an internal error of the host.
"""

from __future__ import annotations

import json
import logging
import math
import re
import time
import uuid
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from types import SimpleNamespace
from typing import Any, Final, cast

from llmasos.gateway.failures import BadAnswer, ContentRefused
from llmasos.gateway.models import ModelEntry
from llmasos.gateway.thinking import thought_first
from llmasos.gateway.tool_calls import NO_ARGUMENTS
from llmasos.gateway.usage import Counted
from llmasos.i18n import _
from llmasos.printable import one_line
from llmasos.quotas.meters import Used

logger = logging.getLogger(__name__)

FINISH_REASONS: Final = ("stop", "length", "tool_calls", "content_filter")


@dataclass(frozen=True, slots=True)
class Remarks:
    """What the host adds to an answer, under the key `llmasos`."""

    notices: tuple[str, ...] = ()

    def with_notice(self, text: str) -> Remarks:
        """Return a copy with one more notice."""
        return replace(self, notices=(*self.notices, text))

    def as_json(self, used: Used, counted: Counted | None = None) -> dict[str, Any]:
        """The object under `llmasos`."""
        remarks: dict[str, Any] = {"notices": list(self.notices), "cost_micro_usd": used.cost_micro_usd}
        if counted is not None and counted.estimated:
            remarks["usage_estimated"] = True
        if counted is not None and counted.doubted:
            remarks["usage_doubted"] = True
        return remarks


@contextmanager
def understood(entry: ModelEntry) -> Generator[None]:
    """Convert any exception while an answer is read into a `BadAnswer`."""
    try:
        yield
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        logger.warning("the answer of %s is not understood", entry.name, exc_info=error)
        said = str(error)[:200]
        raise BadAnswer(
            _(
                "The provider of {entry} sent a reply that is not an answer ({said}); run `llmasos models "
                "test {entry}`.",
                entry=entry.name,
                said=said,
            ),
        ) from error


def completion(response: Any, entry: ModelEntry) -> dict[str, Any]:
    """A whole answer, without usage.

    Raises:
        BadAnswer: It is not a chat completion.
        ContentRefused: The model refuses, in the field for that.
    """
    with understood(entry):
        if not response.choices:
            raise ValueError("it holds no choice")
        return {
            "id": str(response.id or f"chatcmpl-{uuid.uuid4().hex}"),
            "object": "chat.completion",
            "created": int(time.time()),
            "model": entry.name,
            "choices": [_choice(response.choices[0], entry)],  # one was asked for
        }


def _choice(choice: Any, entry: ModelEntry) -> dict[str, Any]:
    message = choice.message
    plain: dict[str, Any] = {"role": "assistant", "content": _text(message.content)}
    if plain["content"]:
        plain["content"] = whole_characters(plain["content"])
    if thought := _text(getattr(message, "reasoning_content", None)):
        plain["reasoning_content"] = thought
    elif parted := thought_first(plain["content"] or ""):
        plain["content"], plain["reasoning_content"] = parted
    if calls := _tool_calls(message):
        plain["tool_calls"] = [{key: each[key] for key in ("id", "type", "function")} for each in calls]
        taken: set[str] = set()
        for number, call in enumerate(plain["tool_calls"]):
            if not call["id"] or call["id"] in taken:
                call["id"] = f"call_{number}"
            taken.add(call["id"])
            call["function"]["arguments"] = call["function"]["arguments"] or NO_ARGUMENTS
            if not call["function"]["name"]:
                raise ValueError("a tool call names no function")
    if (refusal := getattr(message, "refusal", None)) and not calls and not (plain["content"] or "").strip():
        raise ContentRefused(
            _("The model {entry} refuses: {said}", entry=entry.name, said=one_line(str(refusal)[:300]))
        )
    reason = finish_reason(choice.finish_reason)
    if reason == "tool_calls" and not calls:
        raise ValueError("it calls a tool, and names none")
    return {"index": 0, "message": plain, "finish_reason": "tool_calls" if calls and reason == "stop" else reason}


def _text(content: object) -> str | None:
    if content is None:
        return None
    if isinstance(content, str):
        return content
    raise TypeError(f"its content is a {type(content).__name__}")


def whole_characters(text: str) -> str:
    """The text with two halves of a surrogate pair joined; one alone, which no encoding can carry, becomes U+FFFD."""
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def finish_reason(reason: object) -> str:
    """Why an answer ended, in the words of chat completions; `stop` if its provider has another word for it."""
    if reason == "function_call":
        return "tool_calls"
    return str(reason) if reason in FINISH_REASONS else "stop"


def _tool_calls(message: Any) -> list[dict[str, Any]]:
    """The tool calls of a message, or of a part of one, which carries an index too."""
    calls: list[dict[str, Any]] = []
    # The form before tools: one call, without an id.
    if (legacy := getattr(message, "function_call", None)) and not getattr(message, "tool_calls", None):
        message = SimpleNamespace(tool_calls=[SimpleNamespace(id=None, index=0, function=legacy)])
    for call in getattr(message, "tool_calls", None) or ():
        name, arguments, id_, index = call.function.name, call.function.arguments, call.id, getattr(call, "index", None)
        if not all(each is None or isinstance(each, str) for each in (name, arguments, id_)):
            raise TypeError("a tool call's id, name and arguments are texts")
        function = {"name": name, "arguments": arguments or ""}
        index = index if isinstance(index, int) else None
        calls.append({"id": id_, "type": "function", "function": function, "index": index})
    return calls


def part(chunk: Any, entry: ModelEntry, number: str) -> dict[str, Any] | None:
    """One part of a streamed answer, or None if it is empty. Tool calls keep the provider's numbering.

    Raises:
        BadAnswer: It is not a part of a chat completion.
    """
    with understood(entry):
        if not chunk.choices:
            return None
        choice = chunk.choices[0]
        if choice.index:  # another answer beside the one that was asked for
            return None
        plain: dict[str, Any] = {}
        if content := _text(getattr(choice.delta, "content", None)):
            plain["content"] = content
        if thought := _text(getattr(choice.delta, "reasoning_content", None)):
            plain["reasoning_content"] = thought
        if calls := _tool_calls(choice.delta):
            plain["tool_calls"] = calls
        reason = finish_reason(choice.finish_reason) if choice.finish_reason else None
        if not plain and not reason:
            return None
        part = blank_part(entry, number, reason)
        part["choices"][0]["delta"] = plain
        return part


def blank_part(entry: ModelEntry, number: str, reason: str | None) -> dict[str, Any]:
    """A part without text, with the reason why the answer ended."""
    return {
        "id": number,
        "object": "chat.completion.chunk",
        "created": int(time.time()),
        "model": entry.name,
        "choices": [{"index": 0, "delta": {}, "finish_reason": reason}],
    }


def embeddings(response: Any, entry: ModelEntry, count: int) -> list[dict[str, Any]]:
    """The vectors of `count` texts, in the order of the texts.

    Raises:
        BadAnswer: Some are missing, of different lengths, or hold something other than numbers.
    """
    with understood(entry):
        vectors: dict[int, list[float]] = {}
        for row in response.data:
            fields = cast("dict[str, object]", row if isinstance(row, dict) else vars(row))
            index, vector = fields.get("index"), fields["embedding"]
            index = len(vectors) if index is None else index
            if not isinstance(index, int) or not 0 <= index < count or index in vectors:
                raise ValueError(f"an embedding has the index {index!r}, where {count} texts were sent")
            vectors[index] = _numbers(vector)
        if len(vectors) != count:
            raise ValueError(f"it holds {len(vectors)} embeddings for {count} texts")
        if len({len(vector) for vector in vectors.values()}) != 1 or not vectors[0]:
            raise ValueError("its embeddings have different lengths")
        return [{"object": "embedding", "index": index, "embedding": vectors[index]} for index in range(count)]


def _numbers(vector: object) -> list[float]:
    if not isinstance(vector, list):
        raise TypeError(f"an embedding is a {type(vector).__name__}")
    given = cast("list[object]", vector)
    numbers = [float(number) for number in given if isinstance(number, (int, float)) and not isinstance(number, bool)]
    if len(numbers) != len(given) or not all(map(math.isfinite, numbers)):
        raise ValueError("an embedding holds something that is no number")
    return numbers


def json_in(text: str, *, wants_object: bool) -> str | None:
    """Return the JSON in a text, without the fence or the words around it, or None if there is none.

    Args:
        text: A model's output.
        wants_object: Whether only an object is accepted.
    """
    kinds = (dict,) if wants_object else (dict, list)
    for candidate in _candidates(text):
        try:
            value, end = _STRICT.raw_decode(candidate)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, kinds) or not (wants_object or candidate[end:].strip()):
            return candidate[:end]
    return None


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


# Python's decoder takes NaN and Infinity, which no other parser does.
_STRICT: Final = json.JSONDecoder(parse_constant=_no_number)
_FENCED: Final = re.compile(r"```[A-Za-z]*[ \t]*\n(.*?)\n?[ \t]*```", re.DOTALL)


def _candidates(text: str) -> Iterable[str]:
    yield text.strip("\ufeff \t\r\n")
    # A number or a text alone is found only if a fence says where it begins.
    for fenced in islice(_FENCED.finditer(text), 10):
        yield fenced[1].strip()
    # An object or an array may begin at each of these. A hundred are enough, and bound the cost of a hostile answer.
    starts = [position for position, character in enumerate(text) if character in "{["]
    for position in starts[:100]:
        yield text[position:]
