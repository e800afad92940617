"""Requests of a model and their answers, in the shape of chat completions.

Parsed once, at the edge. Unknown fields are refused: a parameter that nobody reads would be a silent lie.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

Task: TypeAlias = Literal[
    "chat", "classify", "extract", "summarise", "translate", "write", "code", "reason", "question", "other"
]


class Shape(BaseModel):
    """Frozen, and strict about keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Message(Shape):
    """One turn. `content` is text, or parts in the OpenAI shape; tool turns carry `tool_call_id`."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str | list[dict[str, Any]] | None = None
    name: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: str | None = None


class GenerateRequest(Shape):
    """What a capability call, `/v1` and `import llmasos` all become."""

    messages: Annotated[list[Message], Field(min_length=1)]
    model: str | None = None
    """A model by name; empty: the first of the tier."""
    tier: Literal["fast", "balanced", "best"] | None = None
    task: Task | None = None
    language: str | None = None
    """BCP 47, of the answer, where the caller knows it."""
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    seed: int | None = None
    stop: list[str] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    response_format: dict[str, Any] | None = None
    """{"type": "json_schema", "json_schema": {"name", "schema"}}."""


class EmbedRequest(Shape):
    """Texts to embed."""

    input: Annotated[list[str], Field(min_length=1, max_length=2048)]
    model: str | None = None
