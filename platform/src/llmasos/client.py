"""The client for programs: plain functions over an async host, which runs in a background thread of this process.

One thread and one loop serve every client of a process. They end in order before the interpreter does: what still runs
is cancelled and settled, then runners, kernel and database close.
"""

from __future__ import annotations

import asyncio
import atexit
import importlib
import threading
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any, Self, TypeVar

from llmasos.connection import Connection, connected
from llmasos.errors import Unavailable
from llmasos.i18n import _, environment_locale
from llmasos.invocations.result import InvocationResult
from llmasos.kernel.invocation import Json, Principal, discard
from llmasos.settings import Settings
from llmasos_sdk.results import Completion, Embeddings, completion_from, usage_from

T = TypeVar("T")


class _Loop:
    """The process's background loop, started at its first use."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="llmasos-client", daemon=True)
        self._thread.start()

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` there and wait for it. Ctrl-C cancels it; closing waits until it is settled."""
        if threading.current_thread() is self._thread:
            work.close()
            raise Unavailable(_("The client cannot be called from its own callbacks."))
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except KeyboardInterrupt:
            future.cancel()
            raise

    def stop(self) -> None:
        """End the loop and its thread."""
        self.call(self._loop.shutdown_default_executor())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


def _at_exit(work: Callable[[], None]) -> None:
    """Run `work` before the interpreter tears threads down: what is cut off there would not be settled.

    `atexit` runs after thread pools were shut, and closing a host needs one. The thread pools themselves use this
    function of `threading`, which has no public name; the last registered is the first to run.
    """
    importlib.import_module("concurrent.futures.thread")  # registers itself, so before us
    register: Callable[[Callable[[], None]], object] = getattr(threading, "_register_atexit", atexit.register)
    register(work)


class _Process:
    """What one process shares: its loop, its open clients, and the one that the module's functions use."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._loop: _Loop | None = None
        self._default: Client | None = None
        self.clients: set[Client] = set()

    def loop(self) -> _Loop:
        with self._lock:
            if self._loop is None:
                self._loop = _Loop()
                _at_exit(self.close)
            return self._loop

    def default(self) -> Client:
        with self._lock:
            if self._default is None or self._default.is_closed:
                self._default = Client(Settings())
            return self._default

    def close(self) -> None:
        for client in list(self.clients):
            client.close()
        with self._lock:
            if self._loop is not None:
                self._loop.stop()
                self._loop = None


class Client:
    """A host, for a program without asyncio. Use it as a context manager, or close it."""

    def __init__(self, settings: Settings) -> None:
        """Connect to the server that the settings name, else open a host in this process."""
        self._stack = AsyncExitStack()
        self._closed = False
        self._owner = _process.loop()
        principal = Principal(locale=environment_locale())

        async def enter() -> Connection:
            return await self._stack.enter_async_context(connected(settings, principal))

        self._connection = self._owner.call(enter())
        _process.clients.add(self)

    @property
    def is_closed(self) -> bool:
        """Whether it was closed."""
        return self._closed

    def generate_text(
        self,
        prompt: str,
        *,
        engine: str | None = None,
        max_tokens: int | None = None,
        temperature: float | None = None,
        system: str | None = None,
        task: str | None = None,
        language: str | None = None,
    ) -> Completion[None]:
        """Text from a model.

        Args:
            prompt: What to answer.
            engine: A model by name; else the first one there is.
            max_tokens: Of the answer, at most.
            temperature: 0 to 2.
            system: What to hold to throughout.
            task: What it is for, such as `write`; the model may say that it is not fit for it.
            language: Of the answer, in BCP 47.

        Raises:
            LlmasosError: No model answered, or a quota is used up.
        """
        messages = [{"role": "system", "content": system}] if system else []
        request = {
            "messages": [*messages, {"role": "user", "content": prompt}],
            "model": engine,
            "max_tokens": max_tokens,
            "temperature": temperature,
            "task": task,
            "language": language,
        }
        return completion_from(self._call_model("generate", request))

    def translate(
        self, text: str, *, source_language: str, target_language: str, engine: str | None = None
    ) -> Completion[None]:
        """A translation; raises as `generate_text`.

        Args:
            text: What to translate.
            source_language: Its language, in BCP 47.
            target_language: The language to translate to, in BCP 47.
            engine: A model by name; else the first one there is.
        """
        prompt = (
            f"Translate from {source_language} into {target_language}. Answer with the translation alone.\n\n{text}"
        )
        return self.generate_text(prompt, engine=engine, task="translate", language=target_language)

    def embed(self, texts: str | Sequence[str], *, engine: str | None = None) -> Embeddings:
        """One vector for each text; raises as `generate_text`."""
        listed = [texts] if isinstance(texts, str) else list(texts)
        answer = self._call_model("embed", {"input": listed, "model": engine})
        vectors = tuple(tuple(float(number) for number in row["embedding"]) for row in answer["data"])
        return Embeddings(vectors, str(answer["model"]), usage_from(answer))

    def run(
        self,
        app: str,
        action: str,
        values: Mapping[str, Json] | None = None,
        /,
        **inputs: Json,
    ) -> InvocationResult:
        """Run an action of an installed app.

        Args:
            app: Its id, such as `acme/translator`.
            action: One of its actions.
            values: Its inputs, as a mapping.
            inputs: More of them, by name.

        Raises:
            LlmasosError: How it failed.
        """
        return self._call(self._connection.run(app, action, {**(values or {}), **inputs}, discard))

    def close(self) -> None:
        """End what runs, settle it, and close. Safe to call again."""
        if not self._closed:
            self._closed = True
            _process.clients.discard(self)
            self._owner.call(self._stack.aclose())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def _call_model(self, function: str, request: Mapping[str, Any]) -> dict[str, Any]:
        given = {name: value for name, value in request.items() if value is not None}
        return self._call(self._connection.call_model(function, given))

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        if self._closed:
            work.close()
            raise Unavailable(_("This client is closed; connect again."))
        return self._owner.call(work)


_process = _Process()


def connect(url: str | None = None, token: str | None = None) -> Client:
    """A client of a running server, or of a host in this process where no URL is given or set.

    Args:
        url: The server, such as `http://127.0.0.1:8765`; else `LLMASOS_URL`, else a host in this process.
        token: A token of that server; else `LLMASOS_TOKEN`.

    Raises:
        LlmasosError: The host cannot be opened.
    """
    settings = Settings()
    named = {name: value for name, value in (("url", url), ("token", token)) if value is not None}
    return Client(settings.model_copy(update=named))


def generate_text(
    prompt: str,
    *,
    engine: str | None = None,
    max_tokens: int | None = None,
    temperature: float | None = None,
    system: str | None = None,
    task: str | None = None,
    language: str | None = None,
) -> Completion[None]:
    """Text from a model, by the process's shared client; see `Client.generate_text`."""
    return _process.default().generate_text(
        prompt,
        engine=engine,
        max_tokens=max_tokens,
        temperature=temperature,
        system=system,
        task=task,
        language=language,
    )


def translate(text: str, *, source_language: str, target_language: str, engine: str | None = None) -> Completion[None]:
    """A translation, by the process's shared client; see `Client.translate`."""
    return _process.default().translate(
        text, source_language=source_language, target_language=target_language, engine=engine
    )


def embed(texts: str | Sequence[str], *, engine: str | None = None) -> Embeddings:
    """One vector for each text, by the process's shared client; see `Client.embed`."""
    return _process.default().embed(texts, engine=engine)


def run(app: str, action: str, values: Mapping[str, Json] | None = None, /, **inputs: Json) -> InvocationResult:
    """Run an action of an installed app, by the process's shared client; see `Client.run`."""
    return _process.default().run(app, action, values, **inputs)
