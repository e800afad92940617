"""`POST`, `DELETE /api/v1/models` and their trial: which models the host has, for its administrators."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Literal

from fastapi import Path, Request
from pydantic import Field

from llmasos.errors import (
    Conflict,
    Invalid,
    LlmasosError,
    ModelUnavailable,
    NotFound,
    QuotaExceeded,
    TimedOut,
    Unauthenticated,
)
from llmasos.gateway.adding import entry_of_string
from llmasos.gateway.trial import try_model
from llmasos.kernel.audit import Line, record
from llmasos_server.rest.bodies import BODY_ERRORS, Document, documents_router
from llmasos_server.rest.context import host_of
from llmasos_server.rest.identity import Caller, MayOperate
from llmasos_server.rest.problems import ScopeMissing, responses
from llmasos_server.rest.schemas import ApiModel
from llmasos_server.rest.state import ModelView

router = documents_router("models")

ModelName = Annotated[str, Path(max_length=128)]


class PriceDocument(Document):
    """Micro-USD for a million tokens."""

    input: int = Field(ge=0, le=1 << 53, description="Of the prompt.", examples=[150_000])
    output: int = Field(default=0, ge=0, le=1 << 53, description="Of the answer.", examples=[600_000])


class NewModel(Document):
    """A model to add, by litellm's name for it. What is left out is as litellm's own table says."""

    name: str = Field(max_length=128, description="What apps and quotas call it.", examples=["gpt-mini"])
    litellm: str = Field(
        min_length=1, max_length=256, description="litellm's model string.", examples=["openai/gpt-4o-mini"]
    )
    kind: Literal["chat", "embedding"] | None = Field(default=None, examples=["chat"])
    tier: Literal["fast", "balanced", "best"] | None = Field(default=None, examples=["fast"])
    api_base: str | None = Field(
        default=None,
        max_length=2000,
        description="The server's address, if it is not the provider's own.",
        examples=["http://127.0.0.1:11434/v1"],
    )
    key: str | None = Field(
        default=None,
        max_length=128,
        pattern=r"^secret:[A-Za-z_][A-Za-z0-9_.-]*$",
        description="secret:NAME, one of the host's own secrets; never the key itself.",
        examples=["secret:openai"],
    )
    context_window: int | None = Field(default=None, ge=128, le=1 << 53, examples=[8192])
    price: PriceDocument | None = None
    goes_to: str | None = Field(default=None, max_length=128, examples=["openai"])
    fallbacks: list[str] | None = Field(
        default=None, max_length=16, description="Models to ask if this one fails, in order.", examples=[[]]
    )
    tasks: list[str] | None = Field(default=None, max_length=32, examples=[["chat"]])
    languages: list[str] | None = Field(default=None, max_length=200, examples=[["en", "zh"]])
    timeout_seconds: float | None = Field(
        default=None, gt=0, le=3600, description="For a whole answer, or each part of a streamed one.", examples=[120.0]
    )
    max_concurrency: int | None = Field(
        default=None, ge=1, le=1 << 31, description="Calls at once; more wait.", examples=[8]
    )
    replace: bool = Field(default=False, description="In place of an added model of that name.", examples=[False])


class TrialView(ApiModel):
    """How a model did."""

    name: str
    said: str = Field(description="Its answer.", examples=["Hello!"])
    prompt_tokens: int
    completion_tokens: int
    cost_micro_usd: int | None
    duration_ms: int
    learned: dict[str, Any] = Field(
        description="What its server needs, and what its entry says from now on.", examples=[{}]
    )


class RemovedModel(ApiModel):
    """A model that was removed."""

    name: str


@router.post(
    "/models",
    operation_id="add_model",
    summary="Add a model",
    status_code=201,
    responses=responses(Unauthenticated, ScopeMissing, NotFound, Conflict, Invalid, *BODY_ERRORS),
)
async def add_model(request: Request, caller: MayOperate, new: NewModel) -> ModelView:
    """Add a model that every workspace of the host may use. Its key is one of the host's own secrets."""
    gateway = host_of(request).gateway
    entry = entry_of_string(
        new.model_dump(exclude={"replace"}, exclude_none=True), *await gateway.known_of(new.litellm)
    )
    await asyncio.to_thread(gateway.registry.add, entry, replace=new.replace)
    await _audit(request, caller, "model.add", entry.name)
    return ModelView.of(entry, present=True)


@router.delete(
    "/models/{model:path}",
    operation_id="remove_model",
    summary="Remove a model",
    responses=responses(Unauthenticated, ScopeMissing, NotFound, Invalid),
)
async def remove_model(request: Request, caller: MayOperate, model: ModelName) -> RemovedModel:
    """Forget an added model. One of `config.toml`, or a built-in one, stays."""
    await asyncio.to_thread(host_of(request).gateway.registry.remove, model)
    await _audit(request, caller, "model.remove", model)
    return RemovedModel(name=model)


@router.post(
    "/model-trials/{model:path}",
    operation_id="test_model",
    summary="Test a model",
    responses=responses(
        *(Unauthenticated, ScopeMissing, NotFound, Invalid, QuotaExceeded, LlmasosError, ModelUnavailable, TimedOut)
    ),
)
async def test_model(request: Request, caller: MayOperate, model: ModelName) -> TrialView:
    """Ask a model for a few words, which may cost a little."""
    trial = await try_model(host_of(request).gateway, model, caller.principal.locale)
    await _audit(request, caller, "model.test", model)
    return TrialView(
        name=model,
        said=trial.said,
        prompt_tokens=trial.used.prompt_tokens,
        completion_tokens=trial.used.completion_tokens,
        cost_micro_usd=trial.used.cost_micro_usd,
        duration_ms=trial.duration_ms,
        learned=trial.learned,
    )


async def _audit(request: Request, caller: Caller, event: str, model: str) -> None:
    def write() -> None:
        with host_of(request).database.write() as session:
            record(session, Line(caller.principal.workspace, caller.principal.user, event, detail={"model": model}))

    await asyncio.to_thread(write)
