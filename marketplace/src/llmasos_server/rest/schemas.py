"""The JSON that the server returns."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from llmasos.bundles.actions import Action
from llmasos.i18n import from_text, render
from llmasos.invocations.content import InvocationContent
from llmasos.invocations.result import InvocationResult
from llmasos.invocations.tables import InvocationRow
from llmasos.kernel.invocation import InvocationUsage


class ApiModel(BaseModel):
    """A frozen model without extra fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class UsageView(ApiModel):
    """An invocation's usage."""

    prompt_tokens: int
    completion_tokens: int
    cost_micro_usd: int | None = Field(description="Millionths of a US dollar; null if a price is unknown.")
    fuel: int = Field(description="WebAssembly instructions, roughly.")
    memory_bytes: int
    duration_ms: int
    model: str | None = Field(description="The model that answered last; null if none was called.")

    @classmethod
    def of(cls, usage: InvocationUsage | InvocationRow) -> Self:
        """Convert the kernel's usage."""
        return cls(
            prompt_tokens=usage.prompt_tokens,
            completion_tokens=usage.completion_tokens,
            cost_micro_usd=usage.cost_micro_usd,
            fuel=usage.fuel,
            memory_bytes=usage.memory_bytes,
            duration_ms=usage.duration_ms,
            model=usage.model,
        )


class RunView(ApiModel):
    """The result of a run."""

    id: str
    output: Any = Field(description="What the action's output schema promises.")
    usage: UsageView
    notices: list[str] | None = Field(
        default=None, description="What to know of the answer, such as that its model is not fit for the task."
    )

    @classmethod
    def of(cls, result: InvocationResult) -> Self:
        """Convert the host's result."""
        view = cls(id=result.id, output=result.output, usage=UsageView.of(result.usage))
        return view.model_copy(update={"notices": list(result.notices)}) if result.notices else view


class ErrorView(ApiModel):
    """Why an invocation failed."""

    code: str
    message: str


class InvocationView(ApiModel):
    """One run of one action."""

    id: str
    app: str | None = Field(description="Null for a model call that no app made.")
    version: str | None
    installation: str | None
    user: str = Field(description="Who ran it.")
    action: str
    status: Literal["running", "succeeded", "failed", "cancelled"]
    error: ErrorView | None
    parent: str | None = Field(description="The invocation whose app called this one.")
    started_at: datetime
    ended_at: datetime | None
    usage: UsageView

    @classmethod
    def of(cls, row: InvocationRow, locale: str) -> Self:
        """As the kernel keeps it."""
        return cls.model_validate(_fields(row, locale))


class InvocationStatus(ApiModel):
    """The state of an invocation."""

    id: str
    status: Literal["running", "succeeded", "failed", "cancelled"]


class InvocationDetail(InvocationView):
    """One invocation, with what its app printed and logged."""

    log: str

    @classmethod
    def of(cls, row: InvocationRow, locale: str) -> Self:
        """As the kernel keeps it."""
        return cls.model_validate({**_fields(row, locale), "log": row.log})


class InvocationContentView(ApiModel):
    """What an invocation was given and what it returned, as far as the workspace keeps them."""

    id: str
    kept: bool = Field(description="False if nothing is kept: the workspace keeps none, it was deleted, or it runs.")
    input: Any = Field(description="What the action was given, with defaults filled in.")
    output: Any = Field(description="What the action returned; null if it did not succeed.")
    shown: str = Field(description="What a run that did not succeed had shown by then.")

    @classmethod
    def of(cls, id_: str, content: InvocationContent | None) -> Self:
        """As the host keeps it."""
        found = content or InvocationContent()
        return cls(id=id_, kept=content is not None, input=found.input, output=found.output, shown=found.shown)


def _fields(row: InvocationRow, locale: str) -> dict[str, Any]:
    told = render(from_text(row.error_message or ""), locale)
    failed = ErrorView(code=row.error_code, message=told) if row.error_code else None
    return {
        "id": row.id,
        "app": row.app_id,
        "version": row.version,
        "installation": row.installation_id,
        "user": row.user_id,
        "action": row.action,
        "status": row.status,
        "error": failed,
        "parent": row.parent_id,
        "started_at": utc(row.started_at),
        "ended_at": utc(row.ended_at) if row.ended_at else None,
        "usage": UsageView.of(row),
    }


def utc(at: datetime) -> datetime:
    """Add the zone to a time from the database, which is in UTC and may lack it."""
    return at if at.tzinfo else at.replace(tzinfo=UTC)


class ActionView(ApiModel):
    """An action: its inputs and its output."""

    name: str
    title: str
    description: str
    input_schema: dict[str, Any]
    output_schema: dict[str, Any]
    streaming: bool

    @classmethod
    def of(cls, action: Action, locale: str) -> Self:
        """Convert an action, in the caller's language."""
        return cls(
            name=action.name,
            title=action.title(locale),
            description=action.description(locale),
            input_schema=dict(action.input_schema),
            output_schema=dict(action.output_schema),
            streaming=action.streaming,
        )


class ChunkEvent(ApiModel):
    """`event: chunk`: a part of a streamed answer."""

    text: str


class ProgressEvent(ApiModel):
    """`event: progress`: how far the run is."""

    fraction: float
    message: str


class NoticeEvent(ApiModel):
    """`event: notice`: a remark on the answer."""

    message: str


class GapEvent(ApiModel):
    """`event: gap`: events that are not kept any more, numbered from `first` to `last`."""

    first: int
    last: int


class EndEvent(ApiModel):
    """`event: end`: the run succeeded. No event follows."""

    id: str
    output: Any
    kept: bool | None = None
    """False if the output is not kept; left out otherwise."""
