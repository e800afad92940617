"""The model capability: text, data and embeddings from the models that the installation grants."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from llmasos.bundles.manifest import ModelPermission
from llmasos.errors import Invalid, PermissionNotGranted
from llmasos.gateway.answers import Spent
from llmasos.gateway.gateway import AnswerStream, Gateway
from llmasos.gateway.request import EmbedRequest, GenerateRequest
from llmasos.gateway.select import EVERYTHING, Reach
from llmasos.gateway.steps import Caller
from llmasos.kernel.capability import Operation, Outcome, Used
from llmasos.kernel.invocation import Event, Invocation, Json
from llmasos.quotas.meters import Demand
from llmasos.validation import in_both

RequestT = TypeVar("RequestT", bound=BaseModel)

# 8 MiB: a long document with two pictures in it. A component's memory ends at about the same.
MAX_REQUEST_CHARACTERS = 8 << 20


@dataclass(slots=True)
class ModelOperation:
    """One decoded call of a model."""

    demand: Demand
    detail: Mapping[str, Json]
    run: Callable[[Demand], Awaitable[Outcome]]
    spent: Spent = field(default_factory=Spent)
    stream: AnswerStream | None = None
    measure: Callable[[], Awaitable[Demand]] | None = None
    """Counts the prompt exactly, where the model can."""

    @property
    def used(self) -> Used:
        """What the provider used before the call failed or was cancelled, as far as it told."""
        return self.spent.used if self.stream is None else self.stream.used

    async def execute(self, granted: Demand) -> Outcome:
        """Call the model, within `granted`."""
        return await self.run(granted)


class ModelCapability:
    """Functions generate, open, embed and count-tokens; requests and answers are JSON text, as in the contract."""

    name = "model"
    functions = frozenset({"generate", "open", "embed", "count-tokens"})
    audited = True

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def prepare(self, invocation: Invocation, function: str, arguments: list[Json]) -> Operation:
        """Decode a call and hold it against the grant; without an app, the user may use every model.

        Raises:
            Invalid: The request is not what the contract says.
            Denied: The grant does not reach so far.
            ModelUnavailable: No model is there for it.
        """
        grant: ModelPermission | None = None
        if invocation.app is not None:
            permission = invocation.app.grants[self.name]
            if not isinstance(permission, ModelPermission):
                raise PermissionNotGranted(
                    "The grant for the capability model is of another kind; reinstall the app.",
                    zh="能力 model 的授权属于另一类型：请重新安装应用。",
                )
            grant = permission
        match function, arguments:
            case "generate" | "open", [str() as text]:
                return self._generation(invocation, grant, function, _parsed(GenerateRequest, text))
            case "embed", [str() as text]:
                return self._embedding(grant, _parsed(EmbedRequest, text))
            case "count-tokens", [str() as text]:
                return self._count(grant, text)
            case _:
                raise Invalid(
                    f"model.{function} takes one text; see the interface `model` in llmasos.wit.",
                    zh=f"model.{function} 接受一段文本；参见 llmasos.wit 中的接口 `model`。",
                )

    def _generation(
        self, invocation: Invocation, grant: ModelPermission | None, function: str, request: GenerateRequest
    ) -> Operation:
        if grant is not None and not grant.tiers and not grant.models:
            raise _not_granted('tiers = ["fast"]')
        if grant is not None and request.tier is not None and request.tier not in grant.tiers:
            raise _not_granted(f'tiers = ["{request.tier}"]')
        plan = self._gateway.plan(
            request,
            reach=_reach(grant),
            max_tokens=grant.max_output_tokens if grant else None,
            locale=invocation.principal.locale,
            caller=Caller(
                invocation.principal.workspace,
                invocation.principal.user,
                invocation.app.id if invocation.app else None,
            ),
        )

        async def measure() -> Demand:
            nonlocal plan
            plan = await self._gateway.measured(plan)
            return plan.demand

        async def show(notices: tuple[str, ...]) -> None:
            for text in notices:
                await invocation.emit(Event("notice", text))

        async def generate(granted: Demand) -> Outcome:
            limit = plan.granted_tokens(granted)
            answer = await self._gateway.generate(plan, max_tokens=limit, spent=operation.spent)
            await show(tuple(answer.value["llmasos"]["notices"]))
            return Outcome(json.dumps(answer.value, ensure_ascii=False), used=answer.used)

        async def start(granted: Demand) -> Outcome:
            operation.stream = stream = await self._gateway.stream(plan, max_tokens=plan.granted_tokens(granted))
            try:
                await show(stream.notices)
            except BaseException:
                await stream.close()
                raise
            return Outcome(stream=JsonStream(stream, show))

        detail = {"model": plan.entry.name, "max_tokens": plan.max_tokens, "task": request.task}
        run = generate if function == "generate" else start
        counts = self._gateway.can_measure(plan)
        operation = ModelOperation(plan.demand, detail, run, measure=measure if counts else None)
        return operation

    def _embedding(self, grant: ModelPermission | None, request: EmbedRequest) -> Operation:
        if grant is not None and not grant.embeddings:
            raise _not_granted("embeddings = true")
        # A grant for embeddings is for whichever model embeds; one that is named must be granted by name or tier.
        reach = _reach(grant) if request.model is not None else EVERYTHING
        plan = self._gateway.plan_embedding(request, reach=reach)

        async def embed(_granted: Demand) -> Outcome:
            answer = await self._gateway.embed(plan, spent=operation.spent)
            return Outcome(json.dumps(answer.value), used=answer.used)

        operation = ModelOperation(plan.demand, {"model": plan.entry.name, "texts": len(request.input)}, embed)
        return operation

    def _count(self, grant: ModelPermission | None, text: str) -> Operation:
        async def count(_granted: Demand) -> Outcome:
            return Outcome(await self._gateway.count_tokens(text, reach=_reach(grant)))

        return ModelOperation(Demand(), {}, count)


class JsonStream:
    """A streamed answer, each part as JSON text."""

    def __init__(self, stream: AnswerStream, show: Callable[[tuple[str, ...]], Awaitable[None]]) -> None:
        self._stream = stream
        self._show = show

    @property
    def used(self) -> Used:
        """What was used; exact once the stream ended."""
        return self._stream.used

    async def read(self) -> Json | None:
        """The next part, or None at the end."""
        part = await self._stream.read()
        if part is None:
            return None
        if "llmasos" in part:
            await self._show(tuple(part["llmasos"]["notices"][len(self._stream.notices) :]))
        return json.dumps(part, ensure_ascii=False)

    async def close(self) -> None:
        """Stop the generation. Safe to call twice."""
        await self._stream.close()


def _reach(grant: ModelPermission | None) -> Reach:
    return EVERYTHING if grant is None else Reach(grant.tiers, grant.models)


def _not_granted(line: str) -> PermissionNotGranted:
    return PermissionNotGranted(
        "The installation does not grant this use of models. The manifest would ask for it with:\n"
        f'[[permissions]]\ncapability = "model"\n{line}',
        zh=f'此安装未授予这种模型用法。可在清单中这样申请：\n[[permissions]]\ncapability = "model"\n{line}',
    )


def _parsed(shape: type[RequestT], text: str) -> RequestT:
    if len(text) > MAX_REQUEST_CHARACTERS:
        raise Invalid(
            f"The request is longer than {MAX_REQUEST_CHARACTERS >> 20} MiB; send less text.",
            zh=f"请求超过 {MAX_REQUEST_CHARACTERS >> 20} MiB：请减少文本。",
        )
    try:
        return shape.model_validate_json(text)
    except ValidationError as error:
        found = [(".".join(str(part) for part in fault["loc"]), *in_both(fault)) for fault in error.errors()[:5]]
        raise Invalid(
            f"The request is not valid: {'; '.join(f'{where}: {en}' for where, en, _ in found)}",
            zh=f"请求无效：{'；'.join(f'{where}：{zh}' for where, _, zh in found)}",
        ) from error
