"""The path to a model: request → select → (tune → cache → guard) → litellm, with retry and fallback → settle.

The steps in parentheses are a `Steps`: plugins' hooks, or nothing. `plan` does everything before the call, so that the
kernel can reserve between the two.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from functools import partial
from types import TracebackType
from typing import Any, Final, Protocol, Self, TypeVar

from llmasos.errors import Denied, Invalid, LlmasosError
from llmasos.gateway import answers
from llmasos.gateway.answers import json_in
from llmasos.gateway.cache import AnswerCache
from llmasos.gateway.engine import Engine
from llmasos.gateway.failures import ContextTooLong, elsewhere_may_help
from llmasos.gateway.guard import Filters, filtered
from llmasos.gateway.models import ModelEntry
from llmasos.gateway.outcome import AnswerEnd
from llmasos.gateway.plan import FLOOR_TOKENS, TOKENS_AROUND_A_MESSAGE, CallPlan, make_plan, texts_of
from llmasos.gateway.registry import ModelRegistry
from llmasos.gateway.request import EmbedRequest, GenerateRequest
from llmasos.gateway.routing import EVERYTHING, Reach, check_fit, choose_embedding
from llmasos.gateway.steps import ModelCall, ModelCaller, PlainSteps, Steps
from llmasos.gateway.stream import AnswerStream
from llmasos.gateway.usage import Counted, Spent, believed, reported_usage
from llmasos.i18n import _
from llmasos.quotas.meters import NOTHING_USED, Demand, Meter, Used

ANYBODY = ModelCaller()
T = TypeVar("T")

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
    """A prepared embedding request."""

    entry: ModelEntry
    texts: list[str]
    tokens: int
    """At most so many."""

    def used_at_most(self) -> Used:
        """What the call is charged as long as its actual use is unknown."""
        price = self.entry.price
        cost = None if price is None else price.cost_micro_usd(self.tokens, 0)
        return Used(self.tokens, 0, cost, self.entry.name)

    @property
    def demand(self) -> Demand:
        """The most that it can use."""
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
    """Calls models by the name or the tier of a request. A context manager that ends what it started."""

    def __init__(
        self, registry: ModelRegistry, engine: Engine, local: LocalEngines | None = None, steps: Steps | None = None
    ) -> None:
        self.registry = registry
        self.steps: Final[Steps] = steps or PlainSteps()
        self._engine = engine
        self._local = local
        self._cache = AnswerCache()
        self.thinking_unopened: Final[set[str]] = set()
        """The models whose answers begin with thinking that only a closing tag ends."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the engines of the embedded models. Safe to call twice."""
        if self._local is not None:
            self._local.close()

    def warm(self, model: str | None = None) -> None:
        """Start, in the background, what a first call would wait for: litellm and the embedded engine.

        `model` is the one that will be called, if known; otherwise it is the one that a request without a name gets.
        """
        models = self.registry.models
        entry = models.get(model) if model else next((e for e in models.values() if e.kind == "chat"), None)
        # The engine first: its own process loads the weights while this one imports litellm.
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
            NotFound: The named model is unknown, and the caller may use every model.
            Denied: It is unknown or not granted, and the caller may not use every model.
            ModelUnavailable: No model is available for it.
            ModelNotFit: The request requires a fit model, and the chosen one is not.
        """
        models = self.registry.models
        if request.model is not None:
            self._reachable(request.model, reach, "chat")
        choice = self.steps.select(request, models, reach, locale)
        if request.require_fit:
            check_fit(choice.entry, request)
        names = choice.entry.fallbacks
        fallbacks = (models[name] for name in names if name in models and reach.includes(models[name]))
        entries = (choice.entry, *fallbacks)
        goes_to = next((entry.goes_to for entry in entries if entry.goes_to != "local"), "local")
        tuned = self.steps.tune(request, choice.entry)
        call = ModelCall(tuned, choice.entry.name, goes_to, caller.workspace, caller.user, caller.app)
        call = self.steps.before(call)
        return replace(make_plan(call.request, entries, choice.notices, max_tokens, locale), call=call)

    def can_measure(self, plan: CallPlan) -> bool:
        """Whether each of the plan's models can count the prompt exactly."""
        return all(self._engine.counts_prompts(entry) for entry in plan.entries)

    async def measured(self, plan: CallPlan) -> CallPlan:
        """Return the plan with its prompt counted exactly, which takes milliseconds.

        Raises:
            LlmasosError: The model rejects the request.
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
        """Return a whole answer.

        Args:
            request: The request, or its plan.
            max_tokens: What the reservation allows, if it is less than the plan's.
            spent: Receives what was used as soon as it is known, even if the call fails afterwards.

        Raises:
            LlmasosError: The last model's failure, if the fallbacks failed too.
        """
        plan = request if isinstance(request, CallPlan) else self.plan(request)
        spent = spent or Spent()
        _check_inlined(plan)
        key = self.steps.cache_key(plan.call) if plan.call else None
        if key is not None and (known := self._cache.get(key)) is not None:
            told = {**known["llmasos"], "cached": True, "cost_micro_usd": 0}
            usage = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
            return ModelAnswer({**known, "llmasos": told, "usage": usage}, NOTHING_USED)

        async def ask(entry: ModelEntry) -> dict[str, Any]:
            spent.next_model()
            limit = await self._within_window(entry, plan, max_tokens or plan.max_tokens)
            response = await self._engine.complete(entry, {**plan.parameters, "max_tokens": limit}, spent.send)
            reported = reported_usage(response)
            within = believed(reported, plan.prompt_tokens, limit, entry) if reported else None
            if within is not None:
                spent.used = within.used(entry)
            value = answers.completion(response, entry)
            message = value["choices"][0]["message"]
            text = f"{message.get('reasoning_content') or ''}{message['content'] or ''}"
            calls = message.get("tool_calls")
            counted = await self.count(entry, plan, limit, within or reported, f"{text}{calls or ''}")
            spent.used = counted.used(entry)
            value["usage"] = counted.as_usage()
            reason = value["choices"][0]["finish_reason"]
            thought = message.get("reasoning_content") or ""
            end = AnswerEnd(entry, reason, message["content"] or "", thought, bool(calls), limit)
            end.check_not_empty()
            value["llmasos"] = end.remarks(plan).as_json(spent.total, counted)
            return value

        with spent.settling():
            value = await self._first_answer(plan, ask)
        for choice in value["choices"]:
            choice["message"] = self._finished(plan, choice["message"])
        if key is not None and value["choices"][0]["finish_reason"] != "length":
            self._cache.put(key, value)
        return ModelAnswer(value, spent.total)

    async def stream(
        self, request: GenerateRequest | CallPlan, *, max_tokens: int | None = None, spent: Spent | None = None
    ) -> AnswerStream:
        """Return a started stream of the answer. Close it. `spent` and errors as in `generate`."""
        plan = request if isinstance(request, CallPlan) else self.plan(request)
        spent = spent or Spent()
        _check_inlined(plan)

        async def ask(entry: ModelEntry) -> AnswerStream:
            limit = await self._within_window(entry, plan, max_tokens or plan.max_tokens)
            parts = await self._engine.stream(entry, {**plan.parameters, "max_tokens": limit}, spent.send)
            return AnswerStream(self, plan, entry, parts, limit)

        with spent.settling():
            return await self._first_answer(plan, ask)

    async def embed(self, request: EmbedRequest | EmbedPlan, *, spent: Spent | None = None) -> ModelAnswer:
        """Embeddings: {"data": [{"embedding", "index"}], "model", "usage"}. `spent` and errors as in `generate`."""
        plan = request if isinstance(request, EmbedPlan) else self.plan_embedding(request)
        spent = spent or Spent()
        with spent.settling():
            response = await self._engine.embed(plan.entry, plan.texts, spent.send)
        reported = reported_usage(response)
        counted = reported and believed(replace(reported, completion=0), plan.tokens, 0, plan.entry)
        if counted is None:
            tokens = await self._engine.count_tokens(plan.entry, "\n".join(plan.texts))
            counted = Counted(min(tokens, plan.tokens), 0, estimated=True, doubted=reported is not None)
        spent.used = counted.used(plan.entry)
        data = answers.embeddings(response, plan.entry, len(plan.texts))
        value = {"object": "list", "data": data, "model": plan.entry.name, "usage": counted.as_usage()}
        value["llmasos"] = answers.Remarks().as_json(spent.used, counted)
        return ModelAnswer(value, spent.used)

    async def known_of(self, model: str) -> tuple[dict[str, Any], frozenset[str]]:
        """What litellm's own table says of a model string (price, window), and its providers."""
        return dict(await self._engine.describe(model)), await self._engine.providers()

    def learned(self, name: str) -> ModelEntry:
        """A model's entry with what its server's refusals have taught since this host began."""
        return self._engine.learned(self.registry.get(name))

    async def count_tokens(self, text: str, model: str | None = None, *, reach: Reach = EVERYTHING) -> int:
        """Count the tokens of a text, as the model that would answer counts them."""
        request = GenerateRequest.model_validate({"messages": [{"role": "user", "content": text}], "model": model})
        return await self._engine.count_tokens(self.plan(request, reach=reach).entry, text)

    def filters(self, plan: CallPlan) -> Filters:
        """New filters of the guards, for one text of the answer."""
        return Filters(self.steps.after(plan.call) if plan.call else [])

    def _is_usable(self, entry: ModelEntry) -> bool:
        return not entry.is_embedded or self._local is None or self._local.is_present(entry.name)

    def _reachable(self, name: str, reach: Reach, kind: str) -> None:
        """Check that the caller may use a named model, without revealing whether it exists."""
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

    async def _first_answer(self, plan: CallPlan, ask: Callable[[ModelEntry], Awaitable[T]]) -> T:
        """Call the models in order until one succeeds."""
        for entry in plan.entries:
            try:
                return await ask(entry)
            except LlmasosError as error:
                if entry is plan.entries[-1] or not elsewhere_may_help(error):
                    raise
        raise AssertionError("a plan has at least one model")

    async def _within_window(self, entry: ModelEntry, plan: CallPlan, limit: int) -> int:
        """The most answer tokens that a model's window leaves. Counts the prompt only if the plan's bound does not fit.

        Raises:
            ContextTooLong: The prompt leaves no room for an answer.
        """
        if plan.prompt_tokens + limit <= entry.context_window or self._engine.counts_prompts(entry):
            return limit
        # The nearest tokeniser may be slightly off; a tenth is left for that.
        prompt = min(plan.prompt_tokens, await self._estimated_prompt(entry, plan) * 11 // 10 + TOKENS_AROUND_A_MESSAGE)
        room = entry.context_window - prompt
        if room < min(limit, FLOOR_TOKENS):
            raise ContextTooLong(
                _(
                    "The text has about {prompt} tokens, and {entry} reads {context_window} with its answer; "
                    "shorten it.",
                    prompt=prompt,
                    entry=entry.name,
                    context_window=entry.context_window,
                ),
            )
        return min(limit, room)

    async def count(
        self, entry: ModelEntry, plan: CallPlan, limit: int, reported: Counted | None, completion: str
    ) -> Counted:
        """What a call used: as reported if that is plausible, else counted here.

        Args:
            entry: The model that answered.
            plan: The plan of the call.
            limit: The most tokens that the answer was allowed.
            reported: The usage that the provider reported, if any.
            completion: All of its text and reasoning.
        """
        within = believed(reported, plan.prompt_tokens, limit, entry) if reported is not None else None
        if within is not None and within.prompt and (within.completion or not completion):
            return within
        try:
            prompt = min(await self._estimated_prompt(entry, plan), plan.prompt_tokens)
            said = await self._engine.count_tokens(entry, completion) if completion else 0
        except LlmasosError:  # the counting engine has crashed: the output is still charged
            prompt, said = plan.prompt_tokens, min(limit, len(completion.encode("utf-8", "surrogatepass")))
        if within is not None:  # half of it was reported
            return replace(within, prompt=within.prompt or prompt, completion=within.completion or said, estimated=True)
        return Counted(prompt, said, estimated=True, doubted=reported is not None)

    async def _estimated_prompt(self, entry: ModelEntry, plan: CallPlan) -> int:
        """The tokens of a prompt by its texts; a picture counts as the model's maximum per picture."""
        text, pictures = texts_of(plan.parameters)
        return await self._engine.count_tokens(entry, text) + pictures * entry.picture_tokens

    def _finished(self, plan: CallPlan, message: dict[str, Any]) -> dict[str, Any]:
        """A message as the caller receives it: filtered, and bare JSON if JSON was requested."""
        if plan.wants_json and message["content"] and not message.get("tool_calls"):
            found = json_in(message["content"], wants_object=plan.wants_object)
            message = {**message, "content": message["content"] if found is None else found}
        filters = self.filters(plan)
        if filters:
            message.pop("reasoning_content", None)  # filters see text and tool calls; reasoning would pass unfiltered
        return filtered(partial(self.filters, plan), message)


def _check_inlined(plan: CallPlan) -> None:
    """Refuse pictures that were not fetched: litellm would fetch some itself, from any address and without a limit."""
    if plan.picture_addresses:
        raise Invalid(
            _(
                "A picture's address is fetched only for an app that was granted http for it; send the picture as "
                "data:image/png;base64,…"
            )
        )
