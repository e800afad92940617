"""The client for programs: synchronous functions over an async host, which runs in a background thread of this process.

One thread and one loop serve every client of a process. They end in order before the interpreter: what still runs
is cancelled and settled, then runners, kernel and database close.
"""

from __future__ import annotations

import asyncio
import atexit
import importlib
import threading
from collections.abc import Callable, Coroutine, Generator, Mapping, Sequence
from typing import Any, Self, TypeVar

from llmasos.async_client import AsyncClient
from llmasos.errors import Unavailable
from llmasos.i18n import _
from llmasos.invocations.result import InvocationResult
from llmasos.kernel.invocation import Json
from llmasos.settings import Settings
from llmasos_sdk.results import Completion, Embeddings

T = TypeVar("T")


class _Loop:
    """The process's background loop, started at its first use."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="llmasos-client", daemon=True)
        self._thread.start()

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` in the loop and wait for it. Ctrl-C cancels it; closing waits until it is settled."""
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
    """Run `work` before the interpreter ends its threads, so that everything is settled.

    `atexit` runs after thread pools were shut down, but closing a host needs one. The thread pools themselves use this
    function of `threading`, which has no public name; the last registered is the first to run.
    """
    importlib.import_module("concurrent.futures.thread")  # its import registers a hook, which must be first
    register: Callable[[Callable[[], None]], object] = getattr(threading, "_register_atexit", atexit.register)
    register(work)


class _Process:
    """What the process shares: its loop, its open clients, and the client that the module's functions use."""

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
    """A host, for a program without asyncio. Use it as a context manager, or close it.

    Each method does what `AsyncClient`'s method of that name does, and returns when it is done.
    """

    def __init__(self, settings: Settings) -> None:
        """Connect to the server in the settings, else open a host in this process."""
        self._closed = False
        self._owner = _process.loop()
        self._client = AsyncClient(settings=settings)
        self._owner.call(self._client.__aenter__())
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
        """Generate text; see `AsyncClient.generate_text`."""
        return self._call(
            self._client.generate_text(
                prompt,
                engine=engine,
                max_tokens=max_tokens,
                temperature=temperature,
                system=system,
                task=task,
                language=language,
            )
        )

    def stream(
        self,
        prompt: str,
        *,
        engine: str | None = None,
        max_tokens: int | None = None,
        temperature: float | None = None,
        system: str | None = None,
        task: str | None = None,
        language: str | None = None,
    ) -> Generator[str]:
        """Generate text, piece by piece; see `AsyncClient.stream`."""
        pieces = self._client.stream(
            prompt,
            engine=engine,
            max_tokens=max_tokens,
            temperature=temperature,
            system=system,
            task=task,
            language=language,
        )

        async def following() -> str | None:
            return await anext(pieces, None)

        try:
            while (piece := self._call(following())) is not None:
                yield piece
        finally:
            if not self._closed:
                self._call(pieces.aclose())

    def translate(
        self, text: str, *, source_language: str, target_language: str, engine: str | None = None
    ) -> Completion[None]:
        """Translate text; see `AsyncClient.translate`."""
        languages = {"source_language": source_language, "target_language": target_language}
        return self._call(self._client.translate(text, engine=engine, **languages))

    def embed(self, texts: str | Sequence[str], *, engine: str | None = None) -> Embeddings:
        """Return one vector for each text; see `AsyncClient.embed`."""
        return self._call(self._client.embed(texts, engine=engine))

    def run(
        self, app: str, action: str, values: Mapping[str, Json] | None = None, /, **inputs: Json
    ) -> InvocationResult:
        """Run an action of an installed app; see `AsyncClient.run`."""
        return self._call(self._client.run(app, action, values, **inputs))

    def close(self) -> None:
        """End what runs, settle it, and close. Idempotent."""
        if not self._closed:
            self._closed = True
            _process.clients.discard(self)
            self._owner.call(self._client.close())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        if self._closed:
            work.close()
            raise Unavailable(_("This client is closed; connect again."))
        return self._owner.call(work)


_process = _Process()


def connect(url: str | None = None, token: str | None = None) -> Client:
    """Make a client of a running server, or of a host in this process if no URL is given or set.

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
    """Generate text with the process's shared client; see `Client.generate_text`."""
    return _process.default().generate_text(
        prompt,
        engine=engine,
        max_tokens=max_tokens,
        temperature=temperature,
        system=system,
        task=task,
        language=language,
    )


def stream(
    prompt: str,
    *,
    engine: str | None = None,
    max_tokens: int | None = None,
    temperature: float | None = None,
    system: str | None = None,
    task: str | None = None,
    language: str | None = None,
) -> Generator[str]:
    """Generate text, piece by piece, with the process's shared client; see `Client.stream`."""
    return _process.default().stream(
        prompt,
        engine=engine,
        max_tokens=max_tokens,
        temperature=temperature,
        system=system,
        task=task,
        language=language,
    )


def translate(text: str, *, source_language: str, target_language: str, engine: str | None = None) -> Completion[None]:
    """Translate text with the process's shared client; see `Client.translate`."""
    return _process.default().translate(
        text, source_language=source_language, target_language=target_language, engine=engine
    )


def embed(texts: str | Sequence[str], *, engine: str | None = None) -> Embeddings:
    """Return one vector for each text, with the process's shared client; see `Client.embed`."""
    return _process.default().embed(texts, engine=engine)


def run(app: str, action: str, values: Mapping[str, Json] | None = None, /, **inputs: Json) -> InvocationResult:
    """Run an action of an installed app with the process's shared client; see `Client.run`."""
    return _process.default().run(app, action, values, **inputs)
