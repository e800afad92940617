"""The steps around a model call that an operator's plugins may implement: select, tune, guard, cache.

The gateway calls a `Steps`; `llmasos.plugins` is the implementation that calls plugins, `PlainSteps` the one without
any.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from llmasos.gateway.guard import TextFilter
from llmasos.gateway.models import ModelEntry
from llmasos.gateway.request import GenerateRequest
from llmasos.gateway.routing import Choice, Reach, choose


@dataclass(frozen=True, slots=True)
class ModelCaller:
    """The caller of a model."""

    workspace: str = "default"
    user: str = "local"
    app: str | None = None


@dataclass(frozen=True, slots=True)
class ModelCall:
    """One call of a model, before it is made.

    `goes_to` is `local` only if the model and all its fallbacks run on this machine; otherwise it names a provider.
    `state` is where a plugin keeps, under its own name, what its `before_model_call` found out for its
    `after_model_call`.
    """

    request: GenerateRequest
    model: str
    goes_to: str
    workspace: str
    user: str
    app: str | None
    state: dict[str, Any] = field(default_factory=dict[str, Any])


class Steps(Protocol):
    """The steps that the gateway calls, in this order."""

    def select(self, request: GenerateRequest, models: Mapping[str, ModelEntry], reach: Reach, locale: str) -> Choice:
        """Select the model to call."""
        ...

    def tune(self, request: GenerateRequest, model: ModelEntry) -> GenerateRequest:
        """Return the request with open parameters set."""
        ...

    def before(self, call: ModelCall) -> ModelCall:
        """Return the call after the guards have processed it."""
        ...

    def cache_key(self, call: ModelCall) -> str | None:
        """The key under which an equal call may be served from memory."""
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
        """Return the request unchanged."""
        return request

    def before(self, call: ModelCall) -> ModelCall:
        """Return the call unchanged."""
        return call

    def cache_key(self, call: ModelCall) -> str | None:
        """Return None: nothing is cached."""
        return None

    def after(self, call: ModelCall) -> list[TextFilter]:
        """Return no filter."""
        return []
