"""The steps around a call of a model that an operator's plugins may take part in: select, tune, guard, cache.

The gateway asks a `Steps`; `llmasos.plugins` is the one that asks plugins, `PlainSteps` the one without any.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from llmasos.gateway.models import ModelEntry
from llmasos.gateway.request import GenerateRequest
from llmasos.gateway.select import Choice, Reach, choose

# Answers kept in memory where a plugin names a key: some MiB of text at most, gone with the process.
MAX_CACHED_ANSWERS: Final = 512


@dataclass(frozen=True, slots=True)
class Caller:
    """For whom a model is called."""

    workspace: str = "default"
    user: str = "local"
    app: str | None = None


@dataclass(frozen=True, slots=True)
class ModelCall:
    """One call of a model, before it is made.

    `goes_to` is `local` only where the model and each that may stand in for it run here; else it names a provider.
    `state` is a place for a plugin to keep, under its own name, what its `before_model_call` learned for its
    `after_model_call`.
    """

    request: GenerateRequest
    model: str
    goes_to: str
    workspace: str
    user: str
    app: str | None
    state: dict[str, Any] = field(default_factory=dict[str, Any])


class TextFilter(Protocol):
    """Rewrites an answer as it comes. A whole answer is fed at once, a stream in parts."""

    def feed(self, text: str) -> str:
        """Take a part; return what can be shown by now."""
        ...

    def finish(self) -> str:
        """The answer ended: return what was held back."""
        ...


class Steps(Protocol):
    """What the gateway asks, in this order."""

    def select(self, request: GenerateRequest, models: Mapping[str, ModelEntry], reach: Reach, locale: str) -> Choice:
        """The model that answers."""
        ...

    def tune(self, request: GenerateRequest, model: ModelEntry) -> GenerateRequest:
        """The request with open parameters set."""
        ...

    def before(self, call: ModelCall) -> ModelCall:
        """The call as the guards leave it."""
        ...

    def cache_key(self, call: ModelCall) -> str | None:
        """The key under which an equal call may be answered from memory."""
        ...

    def after(self, call: ModelCall) -> list[TextFilter]:
        """The guards' filters for the answer."""
        ...


class PlainSteps:
    """The built-in choice, and nothing else."""

    def select(self, request: GenerateRequest, models: Mapping[str, ModelEntry], reach: Reach, locale: str) -> Choice:
        """The named model, else the first of the tier."""
        return choose(request, models, reach, locale)

    def tune(self, request: GenerateRequest, model: ModelEntry) -> GenerateRequest:
        """The request as it is."""
        return request

    def before(self, call: ModelCall) -> ModelCall:
        """The call as it is."""
        return call

    def cache_key(self, call: ModelCall) -> str | None:
        """None: nothing is cached."""
        return None

    def after(self, call: ModelCall) -> list[TextFilter]:
        """No filter."""
        return []


class Filters:
    """Filters in a row, as one."""

    def __init__(self, filters: list[TextFilter]) -> None:
        self._filters = filters

    def __bool__(self) -> bool:
        return bool(self._filters)

    def feed(self, text: str) -> str:
        """What can be shown by now."""
        for each in self._filters:
            text = each.feed(text)
        return text

    def finish(self) -> str:
        """What was held back by each, passed through those behind it."""
        rest = ""
        for each in self._filters:
            rest = each.feed(rest) + each.finish()
        return rest


def filtered(steps: Steps, call: ModelCall, message: dict[str, Any]) -> dict[str, Any]:
    """A whole answer's message with its text, and the arguments of its tool calls, through the guards' filters."""

    def through(text: str) -> str:
        filters = Filters(steps.after(call))
        return filters.feed(text) + filters.finish()

    changed = dict(message)
    if changed.get("content"):
        changed["content"] = through(changed["content"])
    if changed.get("tool_calls"):
        changed["tool_calls"] = [
            {**each, "function": {**each["function"], "arguments": through(each["function"]["arguments"] or "")}}
            for each in changed["tool_calls"]
        ]
    return changed


class AnswerCache:
    """Whole answers by key, the latest used ones; a key is bound to workspace, app and model."""

    def __init__(self, most: int = MAX_CACHED_ANSWERS) -> None:
        self._most = most
        self._answers: OrderedDict[str, dict[str, Any]] = OrderedDict()

    def get(self, key: str) -> dict[str, Any] | None:
        """An answer that was put, or None."""
        answer = self._answers.get(key)
        if answer is not None:
            self._answers.move_to_end(key)
        return answer

    def put(self, key: str, answer: dict[str, Any]) -> None:
        """Keep an answer; the one that was not used for longest makes room."""
        self._answers[key] = answer
        self._answers.move_to_end(key)
        if len(self._answers) > self._most:
            self._answers.popitem(last=False)
