"""The one way to a model: request → select → (tune → cache → guard) → litellm, with retry and fallback → settle.

The steps in brackets are a `Steps`: plugins' hooks, or nothing. `plan` is everything before the call, so that the
kernel can reserve between the two.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, replace
from functools import partial
from types import TracebackType
from typing import Any, Final, Protocol, Self

from llmasos.errors import Denied, Invalid, LlmasosError
from llmasos.gateway import answers
from llmasos.gateway.answers import Counted, Spent
from llmasos.gateway.cache import AnswerCache
from llmasos.gateway.engine import Engine, ProviderStream
from llmasos.gateway.failures import elsewhere_may_help
from llmasos.gateway.guard import Filters, filtered
from llmasos.gateway.models import ModelEntry
from llmasos.gateway.plan import CallPlan, make_plan
from llmasos.gateway.registry import ModelRegistry
from llmasos.gateway.request import EmbedRequest, GenerateRequest
from llmasos.gateway.routing import EVERYTHING, Reach, choose_embedding
from llmasos.gateway.steps import ModelCall, ModelCaller, PlainSteps, Steps
from llmasos.i18n import _, render
from llmasos.quotas.meters import NOTHING_USED, Demand, Meter, Used

ANYBODY = ModelCaller()

__all__ = ["AnswerStream", "EmbedPlan", "Gateway", "ModelAnswer"]


@dataclass(frozen=True, slots=True)
class ModelAnswer:
    """A whole answer: a chat completion, or a list of embeddings, as JSON, and what it used."""

    value: dict[str, Any]
    used: Used

    @property
    def text(self) -> str:
        """The text of the first choice."""
        return self.value["choices"][0]["message"]["content"] or ""


@dataclass(frozen=True, slots=True)
class EmbedPlan:
    """Texts, ready to be embedded."""

    entry: ModelEntry
    texts: list[str]
    tokens: int
    """At most so many."""

    @property
    def demand(self) -> Demand:
        """The most it can use."""
        price = self.entry.price
        amounts = {Meter.TOKENS: self.tokens}
        if price is not None and (cost := price.cost_micro_usd(self.tokens, 0)):
            amounts[Meter.COST] = cost
        return Demand(amounts, price is None, None, self.entry.name)


class LocalEngines(Protocol):
    """The embedded models, as the gateway sees them."""

    def is_present(self, name: str) -> bool:
        """Whether the weights are there."""
        ...

    def warm(self, name: str) -> None:
        """Start the engine of a model in the background, if its weights are there."""
        ...

    def close(self) -> None:
        """End every engine."""
        ...


class Gateway:
    """Calls of models, by the name or the tier that a request gives. A context manager: it ends what it started."""

    def __init__(
        self, registry: ModelRegistry, engine: Engine, local: LocalEngines | None = None, steps: Steps | None = None
    ) -> None:
        self.registry = registry
        self.steps: Final[Steps] = steps or PlainSteps()
        self._engine = engine
        self._local = local
        self._cache = AnswerCache()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the engines of the embedded models. Safe to call twice."""
        if self._local is not None:
            self._local.close()

    def warm(self, model: str | None = None) -> None:
        """Start, in the background, what a first call would wait for: litellm, and beside it the embedded engine.

        `model` is the one that will be asked, where that is known; else the one that an unnamed request would get.
        """
        models = self.registry.models
        entry = models.get(model) if model else next((e for e in models.values() if e.kind == "chat"), None)
        # The engine first: it is a process of its own, and loads its weights while this one imports litellm.
        if entry is not None and entry.is_embedded and self._local is not None:
            self._local.warm(entry.name)
        self._engine.warm()

    def plan(
        self,
        request: GenerateRequest,
        *,
        reach: Reach = EVERYTHING,
        max_tokens: int | None = None,
        locale: str = "en",
        caller: ModelCaller = ANYBODY,
    ) -> CallPlan:
        """Choose the model and measure the request. `reach` and `max_tokens` are what the caller was granted.

        Raises:
            LlmasosError: A guard refused the request, or failed.
            NotFound: The named model is unknown, to a caller who may use every model.
            Denied: It is unknown or out of reach, to a caller who may not.
            ModelUnavailable: No model is there for it.
        """
        models = self.registry.models
        if request.model is not None:
            self._reachable(request.model, reach, "chat")
        choice = self.steps.select(request, models, reach, locale)
        names = choice.entry.fallbacks
        fallbacks = (models[name] for name in names if name in models and reach.includes(models[name]))
        entries = (choice.entry, *fallbacks)
        goes_to = next((entry.goes_to for entry in entries if entry.goes_to != "local"), "local")
        tuned = self.steps.tune(request, choice.entry)
        call = ModelCall(tuned, choice.entry.name, goes_to, caller.workspace, caller.user, caller.app)
        call = self.steps.before(call)
        return replace(make_plan(call.request, entries, choice.notices, max_tokens, locale), call=call)

    def can_measure(self, plan: CallPlan) -> bool:
        """Whether each of its models can count the prompt exactly."""
        return all(self._engine.counts_prompts(entry) for entry in plan.entries)

    async def measured(self, plan: CallPlan) -> CallPlan:
        """The plan with its prompt counted exactly, where that can be done; it costs milliseconds.

        Raises:
            LlmasosError: The model does not take the request.
        """
        counts = [await self._engine.count_prompt(entry, plan.parameters) for entry in plan.entries]
        return replace(plan, prompt_tokens=max(counts))

    def plan_embedding(self, request: EmbedRequest, *, reach: Reach = EVERYTHING) -> EmbedPlan:
        """Choose the model and measure the texts. Raises as `plan`."""
        if request.model is not None:
            self._reachable(request.model, reach, "embedding")
        entry = choose_embedding(request.model, self.registry.models, reach, self._is_usable)
        tokens = sum(len(text.encode("utf-8", "surrogatepass")) + 8 for text in request.input)
        return EmbedPlan(entry, request.input, tokens)

    async def generate(
        self, request: GenerateRequest | CallPlan, *, max_tokens: int | None = None, spent: Spent | None = None
    ) -> ModelAnswer:
        """The whole answer.

        Args:
            request: What is asked, or the plan made of it.
            max_tokens: What the reservation left, below that of the plan.
            spent: Is told what was used as soon as it is known, also where this fails afterwards.

        Raises:
            LlmasosError: The last model's failure, where a fallback failed too.
        """
        plan = request if isinstance(request, CallPlan) else self.plan(request)
        limit = max_tokens or plan.max_tokens
        key = self.steps.cache_key(plan.call) if plan.call else None
        if key is not None and (known := self._cache.get(key)) is not None:
            told = {**known["llmasos"], "cached": True, "cost_micro_usd": 0}
            usage = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
            return ModelAnswer({**known, "llmasos": told, "usage": usage}, NOTHING_USED)
        parameters = {**plan.parameters, "max_tokens": limit}
        entry, response = await self._first_answer(plan, self._engine.complete, parameters)
        counted = answers.counted_by(response)
        if counted is not None and spent is not None:
            spent.used = counted.used(entry)
        value = answers.completion(response, entry)
        if counted is None:
            message = value["choices"][0]["message"]
            counted = await self.estimate(entry, plan, message.get("content") or "", message.get("tool_calls"))
        used = counted.used(entry)
        if spent is not None:
            spent.used = used
        value["usage"] = counted.as_usage()
        reason = value["choices"][0]["finish_reason"]
        value["llmasos"] = finish(plan, entry, reason, limit).remarks.as_json(used, counted)
        if plan.call is not None:
            for choice in value["choices"]:
                choice["message"] = filtered(partial(self.filters, plan), choice["message"])
        if key is not None and reason != "length":
            self._cache.put(key, value)
        return ModelAnswer(value, used)

    async def stream(self, request: GenerateRequest | CallPlan, *, max_tokens: int | None = None) -> AnswerStream:
        """The answer in parts, started. Close it. Raises as `generate`."""
        plan = request if isinstance(request, CallPlan) else self.plan(request)
        limit = max_tokens or plan.max_tokens
        entry, parts = await self._first_answer(plan, self._engine.stream, {**plan.parameters, "max_tokens": limit})
        return AnswerStream(self, plan, entry, parts, limit)

    async def embed(self, request: EmbedRequest | EmbedPlan, *, spent: Spent | None = None) -> ModelAnswer:
        """Embeddings: {"data": [{"embedding", "index"}], "model", "usage"}. `spent` and errors as of `generate`."""
        plan = request if isinstance(request, EmbedPlan) else self.plan_embedding(request)
        response = await self._engine.embed(plan.entry, plan.texts)
        counted = answers.counted_by(response)
        if counted is None:
            counted = Counted(await self._engine.count_tokens(plan.entry, "\n".join(plan.texts)), 0, estimated=True)
        used = replace(counted, completion=0).used(plan.entry)
        if spent is not None:
            spent.used = used
        data = [
            {"object": "embedding", "index": n, "embedding": row["embedding"]} for n, row in enumerate(response.data)
        ]
        value = {"object": "list", "data": data, "model": plan.entry.name, "usage": counted.as_usage()}
        value["llmasos"] = answers.Remarks().as_json(used, counted)
        return ModelAnswer(value, used)

    async def count_tokens(self, text: str, model: str | None = None, *, reach: Reach = EVERYTHING) -> int:
        """Tokens of a text, as the model counts it that would answer."""
        request = GenerateRequest.model_validate({"messages": [{"role": "user", "content": text}], "model": model})
        return await self._engine.count_tokens(self.plan(request, reach=reach).entry, text)

    def filters(self, plan: CallPlan) -> Filters:
        """New filters of the guards, for one text of the answer."""
        return Filters(self.steps.after(plan.call) if plan.call else [])

    def _is_usable(self, entry: ModelEntry) -> bool:
        return not entry.is_embedded or self._local is None or self._local.is_present(entry.name)

    def _reachable(self, name: str, reach: Reach, kind: str) -> None:
        """Hold a named model against what the caller may use, without telling them whether it exists."""
        entry = self.registry.models.get(name)
        if reach == EVERYTHING:
            entry = self.registry.get(name)
        elif entry is None or not reach.includes(entry):
            raise Denied(
                _(
                    "The app may not use the model {name!r}. Its manifest would ask for it "
                    'with:\n[[permissions]]\ncapability = "model"\nmodels = ["{name}"]',
                    name=name,
                ),
            )
        if entry.kind != kind:
            raise Invalid(
                _("The model {name} is for embeddings.", name=name)
                if entry.kind == "embedding"
                else _("The model {name} is for chat.", name=name)
            )

    async def _first_answer(self, plan: CallPlan, ask: Any, parameters: dict[str, Any]) -> tuple[ModelEntry, Any]:
        """Ask the models in order until one answers."""
        for entry in plan.entries:
            try:
                return entry, await ask(entry, parameters)
            except LlmasosError as error:
                if entry is plan.entries[-1] or not elsewhere_may_help(error):
                    raise
        raise AssertionError("a plan has at least one model")

    async def estimate(self, entry: ModelEntry, plan: CallPlan, text: str, calls: object = None) -> Counted:
        """Count for a provider that tells no usage."""
        said = text + (str(calls) if calls else "")
        prompt = "\n".join(str(message["content"] or "") for message in plan.parameters["messages"])
        asked = await self._engine.count_tokens(entry, prompt)
        return Counted(asked, await self._engine.count_tokens(entry, said) if said else 0, estimated=True)


def finish(plan: CallPlan, entry: ModelEntry, reason: str, limit: int) -> CallPlan:
    """The plan with what is to be said of its end: another model answered, or its JSON was cut."""
    remarks = plan.remarks
    if entry is not plan.entry:
        said = _("{asked} did not answer; {answered} did.", asked=plan.entry.name, answered=entry.name)
        remarks = remarks.with_notice(render(said, plan.locale))
    if plan.wants_json and reason == "length":
        said = _(
            "The answer was cut at {limit} tokens, so its JSON is not complete; allow a larger max_tokens.", limit=limit
        )
        remarks = remarks.with_notice(render(said, plan.locale))
    return replace(plan, remarks=remarks)


class AnswerStream:
    """An answer in parts: chat-completion chunks as JSON; the last carries `usage` and `llmasos`."""

    def __init__(self, gateway: Gateway, plan: CallPlan, entry: ModelEntry, parts: ProviderStream, limit: int) -> None:
        self._gateway = gateway
        self._plan = plan
        self._entry = entry
        self._parts = parts
        self._limit = limit
        self._filters = gateway.filters(plan)
        self._id = f"chatcmpl-{uuid.uuid4().hex}"
        self._calls: dict[int, dict[str, Any]] = {}
        self._text: list[str] = []
        self._reason = "stop"
        self._used = NOTHING_USED
        self._ended = False
        self._closed = False

    @property
    def notices(self) -> tuple[str, ...]:
        """What is known at the start that the user should know."""
        return self._plan.remarks.notices

    @property
    def used(self) -> Used:
        """Exact after the last part; after a `close` before it, what was said so far, counted."""
        return self._used

    async def read(self) -> dict[str, Any] | None:
        """The next part, or None after the last.

        Raises:
            LlmasosError: The provider broke off; what was said is counted.
        """
        while not self._ended:
            chunk = await self._parts.read()
            if chunk is None:
                return await self._last()
            part = answers.part(chunk, self._entry, self._id)
            if part is None:
                continue
            choice = part["choices"][0]
            self._text.append(choice["delta"].get("content") or "")
            for call in choice["delta"].get("tool_calls", ()):
                self._text.append(f"{call['function']['name'] or ''}{call['function']['arguments'] or ''}")
            self._filter(choice["delta"])
            if choice["finish_reason"]:
                # Told in the last part, with the usage.
                self._reason, choice["finish_reason"] = choice["finish_reason"], None
                if not choice["delta"]:
                    continue
            return part
        return None

    async def close(self) -> None:
        """Stop the generation, and count what was said. Safe to call twice."""
        if self._closed:
            return
        self._closed = True
        await self._parts.close()
        if not self._ended:
            self._ended = True
            counted = await self._gateway.estimate(self._entry, self._plan, "".join(self._text))
            self._used = counted.used(self._entry)

    def _filter(self, delta: dict[str, Any]) -> None:
        """Put a part through the guards' filters: text may be held back, calls of tools wait for the end."""
        if not self._filters:
            return
        if delta.get("content"):
            delta["content"] = self._filters.feed(delta["content"])
        for call in delta.pop("tool_calls", ()):
            blank = {**call, "function": {"name": "", "arguments": ""}}
            held = self._calls.setdefault(call.get("index", 0), blank)["function"]
            held["name"] += call["function"]["name"] or ""
            held["arguments"] += call["function"]["arguments"] or ""

    def _held_back(self) -> dict[str, Any]:
        """What the filters kept until the end."""
        delta: dict[str, Any] = {"content": rest} if (rest := self._filters.finish()) else {}
        if self._calls and self._plan.call is not None:
            calls = {"tool_calls": list(self._calls.values())}
            delta |= filtered(partial(self._gateway.filters, self._plan), calls)
        return delta

    async def _last(self) -> dict[str, Any]:
        told = self._parts.told
        counted = answers.counted_by(told) if told is not None else None
        if counted is None:
            counted = await self._gateway.estimate(self._entry, self._plan, "".join(self._text))
        self._ended = True
        self._used = counted.used(self._entry)
        remarks = finish(self._plan, self._entry, self._reason, self._limit).remarks
        part = answers.blank_part(self._entry, self._id, self._reason)
        part["choices"][0]["delta"] = self._held_back()
        return {**part, "usage": counted.as_usage(), "llmasos": remarks.as_json(self._used, counted)}
