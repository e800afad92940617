"""A model called by a program, without an app: an invocation of one call, which keeps its request and its answer."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any

from llmasos.capabilities.model import GenerateStream
from llmasos.invocations.lifecycle import Invocations
from llmasos.kernel.capability import Operation
from llmasos.kernel.invocation import Event, Invocation, InvocationLimits, Principal
from llmasos.kernel.syscall import Kernel


class ProgramCalls:
    """Calls models for programs."""

    def __init__(self, invocations: Invocations, kernel: Kernel) -> None:
        self._invocations = invocations
        self._kernel = kernel

    async def whole(
        self,
        principal: Principal,
        operation: Operation[dict[str, Any]],
        request: Mapping[str, Any],
        on_start: Callable[[Invocation], None] | None = None,
    ) -> dict[str, Any]:
        """Return an answer in one piece.

        Args:
            principal: Who calls, and pays.
            operation: What `request` was read as.
            request: As the program sent it.
            on_start: Receives the invocation once it is admitted.

        Raises:
            LlmasosError: Why it failed.
        """
        async with self._begin(principal, operation, request) as invocation:
            if on_start is not None:
                on_start(invocation)
            answer = await self._kernel.call(invocation, operation)
            if operation.function != "embed":  # vectors are large, and the same text gives the same again
                invocation.output_json = json.dumps(answer, ensure_ascii=False)
        return answer

    async def streamed(
        self,
        principal: Principal,
        operation: GenerateStream,
        request: Mapping[str, Any],
        on_start: Callable[[Invocation], None] | None = None,
    ) -> AsyncGenerator[dict[str, Any]]:
        """Yield an answer in chat-completion chunks; `on_start` is called once the model has taken the request.

        Its text is kept as far as it came. Arguments and errors are those of `whole`.
        """
        async with self._begin(principal, operation, request) as invocation:
            opened = await self._kernel.call(invocation, operation)
            if on_start is not None:
                on_start(invocation)
            texts: list[str] = []
            async for part in opened:
                if text := _text_of(part):
                    texts.append(text)
                    await invocation.emit(Event("chunk", text))
                yield part
            invocation.output_json = json.dumps("".join(texts), ensure_ascii=False)

    def _begin(
        self, principal: Principal, operation: Operation[Any], request: Mapping[str, Any]
    ) -> AbstractAsyncContextManager[Invocation]:
        action = f"{operation.capability}.{operation.function}"
        given = json.dumps(dict(request), ensure_ascii=False)
        return self._invocations.begin(Invocation(principal, None, action, InvocationLimits(), input_json=given))


def _text_of(part: Mapping[str, Any]) -> str:
    """What a chunk adds to the answer's text."""
    choices: list[dict[str, Any]] = part.get("choices") or []
    delta: dict[str, Any] = (choices[0].get("delta") or {}) if choices else {}
    text = delta.get("content")
    return text if isinstance(text, str) else ""
