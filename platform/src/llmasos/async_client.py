"""The client for programs with asyncio: a host in this process, or a server's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing
from typing import Any, Self

from llmasos.connection import Connection, connected
from llmasos.errors import Unavailable
from llmasos.i18n import _, environment_locale
from llmasos.invocations.result import InvocationResult
from llmasos.kernel.invocation import Json, Principal
from llmasos.settings import Settings
from llmasos_sdk.results import Completion, Embeddings, completion_from, usage_from


class AsyncClient:
    """A host, for a program with asyncio. Use it as an async context manager, in one event loop."""

    def __init__(self, url: str | None = None, token: str | None = None, *, settings: Settings | None = None) -> None:
        """Choose the host; entering the context connects to it.

        Args:
            url: A running server, such as `http://127.0.0.1:8765`; by default `LLMASOS_URL`, else a host in this
                process.
            token: A token of that server; by default `LLMASOS_TOKEN`.
            settings: All settings, instead of those in the environment.
        """
        named = {name: value for name, value in (("url", url), ("token", token)) if value is not None}
        self._settings = (settings or Settings()).model_copy(update=named)
        self._stack = AsyncExitStack()
        self._connection: Connection | None = None

    async def __aenter__(self) -> Self:
        """Connect to the named server, else open a host in this process.

        Raises:
            LlmasosError: The host cannot be opened.
        """
        principal = Principal(locale=environment_locale())
        self._connection = await self._stack.enter_async_context(connected(self._settings, principal))
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self.close()

    async def close(self) -> None:
        """End what runs, settle it, and close. Idempotent."""
        self._connection = None
        await self._stack.aclose()

    async def generate_text(
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
        """Generate text.

        Args:
            prompt: The prompt.
            engine: A model by name; by default the first one available.
            max_tokens: The most tokens of the answer.
            temperature: From 0 to 2.
            system: Instructions for the whole conversation.
            task: The kind of task, such as `write`; a notice says if the model is not fit for it.
            language: The language of the answer, in BCP 47.

        Raises:
            LlmasosError: No model answered, or a quota is used up.
        """
        request = _request(
            prompt,
            engine=engine,
            max_tokens=max_tokens,
            temperature=temperature,
            system=system,
            task=task,
            language=language,
        )
        return completion_from(await self._connected.generate(request))

    async def stream(
        self,
        prompt: str,
        *,
        engine: str | None = None,
        max_tokens: int | None = None,
        temperature: float | None = None,
        system: str | None = None,
        task: str | None = None,
        language: str | None = None,
    ) -> AsyncGenerator[str]:
        """Generate text, piece by piece; accepts and raises as `generate_text`.

        Close it, or read it to its end: an abandoned generation continues until then.
        """
        request = _request(
            prompt,
            engine=engine,
            max_tokens=max_tokens,
            temperature=temperature,
            system=system,
            task=task,
            language=language,
        )
        connection = self._connected
        # An invocation belongs to one task, but any task may read from it. The answer's length bounds the queue.
        pieces: asyncio.Queue[str | None] = asyncio.Queue()

        async def read() -> None:
            try:
                async with aclosing(connection.stream(request)) as parts:
                    async for part in parts:
                        if text := part["choices"][0]["delta"].get("content"):
                            pieces.put_nowait(text)
            finally:
                pieces.put_nowait(None)

        reading = asyncio.create_task(read())
        try:
            while (piece := await pieces.get()) is not None:
                yield piece
            await reading
        finally:
            reading.cancel()
            await asyncio.wait({reading})

    async def translate(
        self, text: str, *, source_language: str, target_language: str, engine: str | None = None
    ) -> Completion[None]:
        """Translate text; raises as `generate_text`.

        Args:
            text: The text to translate.
            source_language: Its language, in BCP 47.
            target_language: The language to translate to, in BCP 47.
            engine: A model by name; by default the first one available.
        """
        prompt = (
            f"Translate from {source_language} into {target_language}. Answer with the translation alone.\n\n{text}"
        )
        return await self.generate_text(prompt, engine=engine, task="translate", language=target_language)

    async def embed(self, texts: str | Sequence[str], *, engine: str | None = None) -> Embeddings:
        """Return one vector for each text; raises as `generate_text`."""
        listed = [texts] if isinstance(texts, str) else list(texts)
        answer = await self._connected.embed({"input": listed, **({"model": engine} if engine else {})})
        vectors = tuple(tuple(float(number) for number in row["embedding"]) for row in answer["data"])
        return Embeddings(vectors, str(answer["model"]), usage_from(answer))

    async def run(
        self, app: str, action: str, values: Mapping[str, Json] | None = None, /, **inputs: Json
    ) -> InvocationResult:
        """Run an action of an installed app.

        Args:
            app: Its id, such as `acme/translator`.
            action: One of its actions.
            values: Its inputs, as a mapping.
            inputs: More inputs, by name.

        Raises:
            LlmasosError: How it failed.
        """
        return await self._connected.run(app, action, {**(values or {}), **inputs})

    @property
    def _connected(self) -> Connection:
        if self._connection is None:
            raise Unavailable(_("This client is closed; connect again."))
        return self._connection


def _request(
    prompt: str,
    *,
    engine: str | None,
    max_tokens: int | None,
    temperature: float | None,
    system: str | None,
    task: str | None,
    language: str | None,
) -> dict[str, Any]:
    messages = [{"role": "system", "content": system}] if system else []
    request = {
        "messages": [*messages, {"role": "user", "content": prompt}],
        "model": engine,
        "max_tokens": max_tokens,
        "temperature": temperature,
        "task": task,
        "language": language,
    }
    return {name: value for name, value in request.items() if value is not None}
