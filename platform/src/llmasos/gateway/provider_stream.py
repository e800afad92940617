"""Streamed answers in litellm's form, with a time limit for each part."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from llmasos.errors import LlmasosError
from llmasos.gateway.failures import StreamCut
from llmasos.gateway.models import ModelEntry
from llmasos.gateway.usage import Counted, reported_usage
from llmasos.i18n import _

logger = logging.getLogger(__name__)


def cut(entry: ModelEntry) -> StreamCut:
    """The error of a stream that ended without a sign of its end."""
    return StreamCut(
        _(
            "The answer of {entry} broke off: its stream ended without a sign of its end. If its server "
            'cannot stream, set unsupported = ["stream"] for the model.',
            entry=entry.name,
        ),
    )


async def close_quietly(wrapper: Any) -> None:
    """Close a stream and its connection, which stops the generation."""
    try:
        await wrapper.aclose()
    except RuntimeError:
        # The generator still runs in a cancelled task, and closes when that task ends.
        logger.debug("a stream was closed while it was read")


class ProviderStream:
    """A streamed answer in litellm's form, with a time limit for each part."""

    def __init__(
        self,
        entry: ModelEntry,
        wrapper: Any,
        first: Any,
        slot: AbstractAsyncContextManager[None],
        failure: Callable[[BaseException], LlmasosError],
    ) -> None:
        """`failure` converts one of litellm's errors into the host's."""
        self._failure = failure
        self._entry = entry
        self._wrapper: Any = wrapper
        self._first: Any = first
        self._slot: AbstractAsyncContextManager[None] | None = slot

    async def read(self) -> Any:
        """The next part, or None at the end.

        Raises:
            LlmasosError: The provider broke off, or was silent for too long.
        """
        if self._first is not None:
            part, self._first = self._first, None
            return part
        return await self._next()

    async def _next(self) -> Any:
        try:
            async with asyncio.timeout(self._entry.timeout_seconds):
                part = await anext(self._wrapper, None)
        except Exception as error:
            failure = self._failure(error)
            if not self._wrapper.received_finish_reason:
                raise failure from error
            # The answer is complete; the failed part only carried its usage, which the host then counts.
            logger.warning("the stream of %s failed after its answer", self._entry.name, exc_info=error)
            return None
        if part is None and not self._wrapper.received_finish_reason:
            raise cut(self._entry)
        return part

    @property
    def finish_reason(self) -> object:
        """Why the answer ended, in the provider's words; empty before its end."""
        return self._wrapper.received_finish_reason

    @property
    def reported(self) -> Counted | None:
        """The usage that the provider reported last, or None. If more was said after it, its completion is 0.

        litellm's own last part guesses the usage if the provider is silent; the parts before do not.
        """
        said_after = False
        for part in reversed(self._wrapper.chunks):
            if getattr(part, "usage", None):
                usage = reported_usage(part)
                return replace(usage, completion=0) if usage is not None and said_after else usage
            said_after = said_after or _says_something(part)
        return None

    async def close(self) -> None:
        """End the request. Safe to call twice."""
        slot, self._slot = self._slot, None
        if slot is None:
            return
        try:
            await close_quietly(self._wrapper)
        finally:
            await slot.__aexit__(None, None, None)


def _says_something(part: Any) -> bool:
    deltas = [choice.delta for choice in part.choices or ()]
    fields = ("content", "reasoning_content", "tool_calls")
    return any(getattr(delta, field, None) for delta in deltas for field in fields)


class WholeAnswer:
    """A whole answer as a stream of one part, for a server that cannot stream."""

    def __init__(self, response: Any) -> None:
        choice = response.choices[0]
        part = SimpleNamespace(index=0, delta=choice.message, finish_reason=choice.finish_reason)
        self.chunks: list[Any] = [SimpleNamespace(choices=[part], usage=getattr(response, "usage", None))]
        self.received_finish_reason: str = choice.finish_reason or "stop"
        self._left = list(self.chunks)

    async def __anext__(self) -> Any:
        if not self._left:
            raise StopAsyncIteration
        return self._left.pop()

    async def aclose(self) -> None:
        """Nothing is open."""
