"""The only path to any model: litellm, silenced, kept off the network except for the call itself, and imported late.

Importing litellm takes seconds. It happens in a thread, at the first call or when `warm` asks for it.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import logging
import os
import random
import threading
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Mapping
from contextlib import AbstractAsyncContextManager, contextmanager, nullcontext, suppress
from typing import Any, Protocol, runtime_checkable
from weakref import WeakKeyDictionary

from llmasos.errors import LlmasosError, ModelUnavailable
from llmasos.gateway import failures
from llmasos.gateway.adapting import adapted, learned
from llmasos.gateway.models import FREE, ModelEntry
from llmasos.gateway.provider_stream import ProviderStream, WholeAnswer, close_quietly, cut
from llmasos.gateway.replies import ANSWER_BYTES, EMBEDDING_BYTES, bounded, replies_within
from llmasos.i18n import _

# Between two attempts at one model: half a second, doubled each time, give or take half of it, so that many callers
# who failed together do not come back together.
FIRST_PAUSE_SECONDS = 0.5

Parameters = Mapping[str, Any]
Ask = Callable[[Any, Parameters, Parameters], Awaitable[Any]]
"""One attempt: litellm, what is the same for each call of the model, and the call's own parameters."""
OnSend = Callable[[], None]
SecretReader = Callable[[str], str | None]
"""The value of a secret of the operator, by name, or None."""


class Provider(Protocol):
    """A model provider inside the host: the methods of litellm's `CustomLLM` that are used."""

    async def acompletion(self, *args: Any, **kwargs: Any) -> Any:
        """A whole answer, as litellm's ModelResponse."""
        ...

    def astreaming(self, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        """An answer in parts, as litellm's GenericStreamingChunk."""
        ...

    async def aembedding(self, *args: Any, **kwargs: Any) -> Any:
        """Embeddings, as litellm's EmbeddingResponse."""
        ...


@runtime_checkable
class Tokeniser(Protocol):
    """A provider inside the host that counts tokens itself."""

    async def count_tokens(self, model: str, text: str) -> int:
        """The tokens of a text, exactly."""
        ...

    async def count_prompt(self, model: str, parameters: Parameters) -> int:
        """The tokens that the prompt of a call has for the model, exactly.

        Raises:
            LlmasosError: As the call would.
        """
        ...


@runtime_checkable
class ReadsAhead(Protocol):
    """A provider inside the host whose engine can process a prompt ahead of the call."""

    async def read_ahead(self, model: str, parameters: Parameters) -> None:
        """Process the prompt ahead of the call. A failure is ignored: the call itself reports it."""
        ...


def no_secrets(_name: str) -> str | None:
    """The secret reader of a host without secrets."""
    return None


_loading = threading.Lock()
_loaded: Any = None


@contextmanager
def _without_garbage_collection() -> Generator[None]:
    """Import with garbage collection off: a tenth of litellm's import time goes into walking classes that all stay.

    The imported objects are excluded from later collections too.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_on:
            gc.enable()


def load_litellm() -> Any:
    """Import litellm and silence it; fast after the first time. Call it off the event loop."""
    global _loaded  # noqa: PLW0603 - one process has one litellm
    with _loading:
        if _loaded is not None:
            return _loaded
        # Without it, importing litellm fetches a price table from the network.
        os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
        with warnings.catch_warnings(), _without_garbage_collection():
            warnings.simplefilter("ignore")
            import litellm  # noqa: PLC0415 - late on purpose

            module: Any = litellm
            # litellm's first call would import this, with a pydantic warning that users cannot act on.
            with suppress(ImportError):
                importlib.import_module("litellm.llms.github_copilot.per_user_auth")
            # Its first answer would spend 0.2 s on building classes, with the same warnings.
            module.ModelResponse()
            module.ModelResponseStream()
            module.EmbeddingResponse()
        handler = importlib.import_module("litellm.llms.custom_httpx.http_handler").AsyncHTTPHandler
        handler.create_async_transport = staticmethod(bounded(handler.create_async_transport))
        module.telemetry = False
        module.suppress_debug_info = True
        # litellm would leave out `tools` and `response_format` in silence, and return None for a status 422. What a
        # server refuses is learned from its refusal instead (`adapting.py`).
        module.drop_params = False
        # Counting tokens must not fetch a tokeniser from the network; a similar one is close enough.
        module.disable_hf_tokenizer_download = True
        module.disable_streaming_logging = True
        module.callbacks = []
        module.success_callback = []
        module.failure_callback = []
        for name in ("LiteLLM", "LiteLLM Router", "LiteLLM Proxy"):
            logger = logging.getLogger(name)
            logger.handlers.clear()
            logger.addHandler(logging.NullHandler())
            logger.propagate = False
            logger.setLevel(logging.CRITICAL)
        _loaded = module
        return module


class Engine:
    """Calls models through litellm, with our time limits, retries and errors."""

    def __init__(self, providers: Mapping[str, Provider], read_secret: SecretReader = no_secrets) -> None:
        """`providers` are those inside the host, by their name in a litellm model string."""
        self._providers = dict(providers)
        self._tokenisers = {name: each for name, each in providers.items() if isinstance(each, Tokeniser)}
        self._read_secret = read_secret
        self._registered: set[str] = set()
        self._learned: dict[ModelEntry, ModelEntry] = {}
        self._slots: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, asyncio.Semaphore]] = WeakKeyDictionary()

    def warm(self) -> None:
        """Start importing litellm in the background."""
        threading.Thread(target=self._load, name="litellm-import", daemon=True).start()

    async def complete(self, entry: ModelEntry, parameters: Parameters, on_send: OnSend) -> Any:
        """A whole answer in litellm's form. Cancelling ends the request. `on_send` is called before each attempt.

        Raises:
            LlmasosError: As `failures.classify` names it, after the entry's retries.
        """

        async def ask(litellm: Any, fixed: Parameters, sent: Parameters) -> Any:
            with replies_within(entry, ANSWER_BYTES):
                return await litellm.acompletion(**fixed, **sent)

        async with self._slot(entry):
            await self._read_ahead(entry, parameters)
            return await self._attempts(entry, parameters, ask, on_send)

    async def stream(self, entry: ModelEntry, parameters: Parameters, on_send: OnSend) -> ProviderStream:
        """Return a streamed answer, once its first part has arrived; close it.

        Only its start is retried: text that was shown cannot be withdrawn.

        Raises:
            LlmasosError: As `failures.classify` names it, after the entry's retries.
        """
        asked = {**parameters, "stream": True, "stream_options": {"include_usage": True}}

        async def ask(litellm: Any, fixed: Parameters, sent: Parameters) -> tuple[Any, Any]:
            with replies_within(entry, ANSWER_BYTES):
                answer = await litellm.acompletion(**fixed, **sent)
                wrapper: Any = answer if sent.get("stream") else WholeAnswer(answer)
                # Some providers send the request only when the first part is read, and fail then.
                try:
                    first = await anext(wrapper, None)
                    if first is None and not wrapper.received_finish_reason:
                        raise cut(entry)
                except BaseException:
                    await close_quietly(wrapper)
                    raise
                return wrapper, first

        slot = self._slot(entry)
        await slot.__aenter__()
        try:
            await self._read_ahead(entry, asked)
            wrapper, first = await self._attempts(entry, asked, ask, on_send)
        except BaseException:
            await slot.__aexit__(None, None, None)
            raise
        return ProviderStream(entry, wrapper, first, slot, lambda error: self._failure(error, entry))

    async def embed(self, entry: ModelEntry, texts: list[str], on_send: OnSend) -> Any:
        """Return embeddings in litellm's form."""

        async def ask(litellm: Any, fixed: Parameters, sent: Parameters) -> Any:
            with replies_within(entry, ANSWER_BYTES + len(texts) * EMBEDDING_BYTES):
                return await litellm.aembedding(**fixed, **sent)

        async with self._slot(entry):
            return await self._attempts(entry, {"input": texts}, ask, on_send)

    async def count_tokens(self, entry: ModelEntry, text: str) -> int:
        """Count the tokens of a text, by the host's own provider or by the most similar tokeniser that litellm has.

        Raises:
            LlmasosError: The host's own provider failed.
        """
        provider, model = _parts_of(entry)
        if provider in self._tokenisers:
            return await self._tokenisers[provider].count_tokens(model, text)
        litellm = await self._ready()
        return await asyncio.to_thread(litellm.token_counter, model=entry.litellm, text=text)

    def counts_prompts(self, entry: ModelEntry) -> bool:
        """Whether `count_prompt` works for a model, as it does for those inside the host."""
        return _parts_of(entry)[0] in self._tokenisers

    async def count_prompt(self, entry: ModelEntry, parameters: Parameters) -> int:
        """Count the tokens of a prompt exactly; raises as the call would."""
        provider, model = _parts_of(entry)
        return await self._tokenisers[provider].count_prompt(model, parameters)

    async def describe(self, model: str) -> Mapping[str, Any]:
        """What litellm knows about a model string: window, prices, modalities; empty if nothing."""
        litellm = await self._ready()
        try:
            return dict(litellm.get_model_info(model))
        except Exception:  # it raises a plain Exception if the model is not in its table
            return {}

    async def providers(self) -> frozenset[str]:
        """The providers that litellm knows, by the name that a model string begins with."""
        litellm = await self._ready()
        return frozenset(str(getattr(each, "value", each)) for each in litellm.provider_list)

    def learned(self, entry: ModelEntry) -> ModelEntry:
        """The entry with what its server's refusals have taught."""
        return self._learned.get(entry, entry)

    def _failure(self, error: BaseException, entry: ModelEntry) -> LlmasosError:
        return failures.classify(error, entry, self._key_or_none(entry)).error

    async def _attempts(self, entry: ModelEntry, parameters: Parameters, ask: Ask, on_send: OnSend) -> Any:
        litellm = await self._ready()
        key = self._key(entry)
        self._register(litellm, entry)
        fixed = _fixed_parameters(entry, key)
        attempt = 0
        while True:
            known = self.learned(entry)
            try:
                async with asyncio.timeout(entry.timeout_seconds):
                    on_send()
                    return await ask(litellm, fixed, adapted(known, parameters))
            except Exception as error:
                failure = failures.classify(error, entry, key)
                better = learned(known, parameters, failure.refusal)
                if better is not None:
                    # Each refusal changes one thing, and there are few, so the loop ends.
                    self._learned[entry] = better
                    continue
                if not failure.again or attempt == entry.retries:
                    raise failure.error from error
                await asyncio.sleep(_pause_seconds(attempt, failure.pause_seconds))
                attempt += 1

    async def _read_ahead(self, entry: ModelEntry, parameters: Parameters) -> None:
        """Have our own engine process the prompt while litellm is imported, which takes seconds."""
        name, model = _parts_of(entry)
        provider = self._providers.get(name)
        if _loaded is None and isinstance(provider, ReadsAhead):
            await asyncio.gather(self._ready(), provider.read_ahead(model, parameters))

    async def _ready(self) -> Any:
        # Check without the lock first: a needless thread would cost more than the rest of the gateway.
        if _loaded is not None and not self._providers.keys() - self._registered:
            return _loaded
        return await asyncio.to_thread(self._load)

    def _load(self) -> Any:
        litellm = load_litellm()
        with _loading:
            for name, provider in self._providers.items():
                # A later gateway in this process, as in tests, takes over the name.
                others = [item for item in litellm.custom_provider_map if item["provider"] != name]
                handler = litellm.CustomLLM()  # litellm takes instances of its own class only
                for method in ("acompletion", "astreaming", "aembedding"):
                    setattr(handler, method, getattr(provider, method))
                litellm.custom_provider_map = [*others, {"provider": name, "custom_handler": handler}]
                self._registered.add(name)
            litellm.utils.custom_llm_setup()
        return litellm

    def _register(self, litellm: Any, entry: ModelEntry) -> None:
        """Register a local model as free: otherwise litellm looks for a price at each call, and logs a failure."""
        provider, _ = _parts_of(entry)
        if provider not in self._providers or entry.litellm in self._registered:
            return
        price = entry.price or FREE
        known = {
            "input_cost_per_token": price.input / 1e12,
            "output_cost_per_token": price.output / 1e12,
            "litellm_provider": provider,
            "mode": entry.kind,
            "max_tokens": entry.context_window,
        }
        litellm.register_model({entry.litellm: known})
        self._registered.add(entry.litellm)

    def _slot(self, entry: ModelEntry) -> AbstractAsyncContextManager[None]:
        if entry.max_concurrency is None:
            return nullcontext()
        slots = self._slots.setdefault(asyncio.get_running_loop(), {})
        return slots.setdefault(entry.name, asyncio.Semaphore(entry.max_concurrency))

    def _key(self, entry: ModelEntry) -> str | None:
        if entry.key is None:
            return None
        key = self._key_or_none(entry)
        if key and not (key.isascii() and key.isprintable()):
            odd = next(character for character in key if not (character.isascii() and character.isprintable()))
            raise ModelUnavailable(
                _(
                    "The key of {entry} holds {odd!r}, which no key does: paste it again, without quotes around it.",
                    entry=entry.name,
                    odd=odd,
                ),
            )
        if key:
            return key
        place, name = entry.key.split(":", 1)
        cure = (
            _("set the environment variable {name}", name=name)
            if place == "env"
            else _("run `llmasos secrets set {name}`", name=name)
        )
        raise ModelUnavailable(_("The model {entry} has no key: {cure}.", entry=entry.name, cure=cure))

    def _key_or_none(self, entry: ModelEntry) -> str | None:
        place, _, name = (entry.key or "").partition(":")
        if not name:
            return None
        return os.environ.get(name) if place == "env" else self._read_secret(name)


def _parts_of(entry: ModelEntry) -> tuple[str, str]:
    """The provider in a litellm model string, and the model's name there."""
    provider, _, model = entry.litellm.partition("/")
    return provider, model


def _fixed_parameters(entry: ModelEntry, key: str | None) -> dict[str, Any]:
    fixed: dict[str, Any] = {
        "model": entry.litellm,
        "timeout": entry.timeout_seconds,
        # Retries are ours: providers' clients would add two of their own to each attempt.
        "max_retries": 0,
        "num_retries": 0,
    }
    if entry.api_base is not None:
        fixed["api_base"] = entry.api_base
        # A server without a key of its own must not receive the key that the environment holds for another.
        fixed["api_key"] = key or "none"
    elif key is not None:
        fixed["api_key"] = key
    return fixed


def _pause_seconds(attempt: int, asked: float | None) -> float:
    if asked is not None:
        return min(asked, failures.MAX_PAUSE_SECONDS)
    return FIRST_PAUSE_SECONDS * (1 << attempt) * random.uniform(0.5, 1.5)  # noqa: S311 - no secret
