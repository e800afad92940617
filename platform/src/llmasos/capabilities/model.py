"""The model capability: text, data and embeddings from the models that the installation grants."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from pydantic import ValidationError

from llmasos.bundles.manifest import ModelPermission
from llmasos.capabilities.pictures import SendHttp, with_pictures_inlined
from llmasos.errors import PermissionNotGranted
from llmasos.gateway.gateway import Gateway
from llmasos.gateway.plan import CallPlan
from llmasos.gateway.request import EmbedRequest, GenerateRequest, Shape, invalid_request, parse_request
from llmasos.gateway.routing import EVERYTHING, Reach
from llmasos.gateway.steps import ModelCaller
from llmasos.gateway.stream import AnswerStream
from llmasos.gateway.usage import Spent
from llmasos.i18n import _
from llmasos.kernel.calls import OpenStream
from llmasos.kernel.capability import ContractFunction, Operation, OperationResult, PreparedCall
from llmasos.kernel.guest_calls import json_argument, json_text
from llmasos.kernel.invocation import Event, Invocation, Json
from llmasos.quotas.meters import Demand, Used

AnswerT = TypeVar("AnswerT")
RequestT = TypeVar("RequestT", bound=Shape)


@dataclass(frozen=True, slots=True)
class Generate(Operation[dict[str, Any]]):
    """A whole answer of a model: a chat completion."""

    request: GenerateRequest
    capability: ClassVar[str] = "model"
    function: ClassVar[str] = "generate"


@dataclass(frozen=True, slots=True)
class GenerateStream(Operation[OpenStream[dict[str, Any]]]):
    """An answer of a model as it is generated: chat-completion chunks."""

    request: GenerateRequest
    capability: ClassVar[str] = "model"
    function: ClassVar[str] = "open"


@dataclass(frozen=True, slots=True)
class Embed(Operation[dict[str, Any]]):
    """Embeddings of texts: {"data": [{"embedding", "index"}], "model", "usage"}."""

    request: EmbedRequest
    capability: ClassVar[str] = "model"
    function: ClassVar[str] = "embed"


@dataclass(frozen=True, slots=True)
class CountTokens(Operation[int]):
    """The number of tokens in a text, as counted by the model that would be selected."""

    text: str
    capability: ClassVar[str] = "model"
    function: ClassVar[str] = "count-tokens"


class ModelCapability:
    """The capability `model`."""

    name: str = "model"
    audited: bool = True
    contract: Mapping[str, ContractFunction] = {
        "generate": ContractFunction(lambda arguments: Generate(_parsed(GenerateRequest, arguments)), json_text),
        "open": ContractFunction(lambda arguments: GenerateStream(_parsed(GenerateRequest, arguments)), json_text),
        "embed": ContractFunction(lambda arguments: Embed(_parsed(EmbedRequest, arguments)), json_text),
        "count-tokens": ContractFunction.plain(CountTokens, tuple[str]),
    }

    def __init__(self, gateway: Gateway, send_http: SendHttp | None = None) -> None:
        """`send_http` fetches the pictures that an app names by address; without it they are refused."""
        self._gateway = gateway
        self._send_http = send_http

    def prepare(self, invocation: Invocation, operation: Operation[Any]) -> PreparedCall[Any]:
        """Check a call against the grant; without an app, the user may use every model.

        Raises:
            Denied: The grant does not allow it.
            ModelUnavailable: No model is available for it.
        """
        grant: ModelPermission | None = None
        if invocation.app is not None:
            permission = invocation.app.grants[self.name]
            if not isinstance(permission, ModelPermission):
                raise PermissionNotGranted(
                    _("The grant for the capability model is of another kind; reinstall the app."),
                )
            grant = permission
        match operation:
            case Generate(request):
                return self._generation(invocation, grant, request).whole()
            case GenerateStream(request):
                return self._generation(invocation, grant, request).parts()
            case Embed(request):
                return self._embedding(grant, request)
            case CountTokens(text):

                async def count(_granted: Demand) -> OperationResult[int]:
                    return OperationResult(await self._gateway.count_tokens(text, reach=_reach(grant)))

                return PreparedCall(count)
            case _:
                raise TypeError(operation)

    def _generation(
        self, invocation: Invocation, grant: ModelPermission | None, request: GenerateRequest
    ) -> _Generation:
        plan = self._plan(invocation, grant, request)
        return _Generation(self._gateway, invocation, plan, request, self._send_http)

    def _plan(self, invocation: Invocation, grant: ModelPermission | None, request: GenerateRequest) -> CallPlan:
        if grant is not None and not grant.tiers and not grant.models:
            raise _not_granted('tiers = ["fast"]')
        if grant is not None and request.tier is not None and request.tier not in grant.tiers:
            raise _not_granted(f'tiers = ["{request.tier}"]')
        principal = invocation.principal
        return self._gateway.plan(
            request,
            reach=_reach(grant),
            max_tokens=grant.max_output_tokens if grant else None,
            locale=principal.locale,
            caller=ModelCaller(principal.workspace, principal.user, invocation.app.id if invocation.app else None),
        )

    def _embedding(self, grant: ModelPermission | None, request: EmbedRequest) -> PreparedCall[dict[str, Any]]:
        if grant is not None and not grant.embeddings:
            raise _not_granted("embeddings = true")
        # A grant for embeddings covers any embedding model; a model named in the call must be granted by name or tier.
        reach = _reach(grant) if request.model is not None else EVERYTHING
        plan = self._gateway.plan_embedding(request, reach=reach)
        spent = Spent()

        async def embed(_granted: Demand) -> OperationResult[dict[str, Any]]:
            answer = await self._gateway.embed(plan, spent=spent)
            return OperationResult(answer.value, answer.used)

        detail = {"model": plan.entry.name, "texts": len(request.input)}
        return PreparedCall(embed, plan.demand, detail, lambda _: plan.used_at_most() if spent.pending else spent.used)


class _Generation:
    """One call of a model between its plan and its answer."""

    def __init__(
        self,
        gateway: Gateway,
        invocation: Invocation,
        plan: CallPlan,
        request: GenerateRequest,
        send_http: SendHttp | None,
    ) -> None:
        self._gateway = gateway
        self._send_http = send_http
        self._invocation = invocation
        self._plan = plan
        self._task = request.task
        self._spent = Spent()
        self._stream: AnswerStream | None = None

    def whole(self) -> PreparedCall[dict[str, Any]]:
        """Call for a whole answer."""
        return self._prepared(self._generate)

    def parts(self) -> PreparedCall[OpenStream[dict[str, Any]]]:
        """Call for a stream."""
        return self._prepared(self._open)

    def _prepared(self, execute: Callable[[Demand], Awaitable[OperationResult[AnswerT]]]) -> PreparedCall[AnswerT]:
        plan = self._plan
        detail = {"model": plan.entry.name, "max_tokens": plan.max_tokens, "task": self._task}
        measure = self._measure if self._gateway.can_measure(plan) else None
        return PreparedCall(execute, plan.demand, detail, self._used, measure)

    def _used(self, granted: Demand) -> Used:
        """What the provider charged before the call failed or was cancelled.

        If the provider has not reported its use yet, the whole reservation is charged, since it may still be
        generating.
        """
        if self._stream is not None:
            return self._stream.used
        if self._spent.pending:
            return self._spent.earlier + self._plan.used_at_most(granted)
        return self._spent.total

    async def _measure(self) -> Demand:
        self._plan = await self._gateway.measured(self._plan)
        return self._plan.demand

    async def _fetch_pictures(self) -> None:
        if self._send_http is not None:
            self._plan = await with_pictures_inlined(self._plan, self._invocation, self._send_http)

    async def _generate(self, granted: Demand) -> OperationResult[dict[str, Any]]:
        await self._fetch_pictures()
        limit = self._plan.granted_tokens(granted)
        answer = await self._gateway.generate(self._plan, max_tokens=limit, spent=self._spent)
        await show_notices(self._invocation, answer.value["llmasos"]["notices"])
        return OperationResult(answer.value, answer.used)

    async def _open(self, granted: Demand) -> OperationResult[OpenStream[dict[str, Any]]]:
        await self._fetch_pictures()
        limit = self._plan.granted_tokens(granted)
        stream = await self._gateway.stream(self._plan, max_tokens=limit, spent=self._spent)
        self._stream = stream
        try:
            await show_notices(self._invocation, stream.notices)
        except BaseException:
            await stream.close()
            raise
        return OperationResult(stream=_NoticedStream(stream, self._invocation))


class _NoticedStream:
    """A streamed answer that emits the notices of its last part."""

    def __init__(self, stream: AnswerStream, invocation: Invocation) -> None:
        self._stream = stream
        self._invocation = invocation

    @property
    def used(self) -> Used:
        """What was used; exact once the stream ended."""
        return self._stream.used

    async def read(self) -> dict[str, Any] | None:
        """The next part, or None at the end."""
        part = await self._stream.read()
        if part is not None and "llmasos" in part:
            await show_notices(self._invocation, part["llmasos"]["notices"][len(self._stream.notices) :])
        return part

    async def close(self) -> None:
        """Stop the generation. Safe to call twice."""
        await self._stream.close()


async def show_notices(invocation: Invocation, notices: Iterable[str]) -> None:
    """Show the user an answer's notices."""
    for text in notices:
        await invocation.emit(Event("notice", text))


def _reach(grant: ModelPermission | None) -> Reach:
    return EVERYTHING if grant is None else Reach(grant.tiers, grant.models)


def _not_granted(line: str) -> PermissionNotGranted:
    return PermissionNotGranted(
        _(
            "The installation does not grant this use of models. The manifest would ask for it "
            'with:\n[[permissions]]\ncapability = "model"\n{line}',
            line=line,
        ),
    )


def _parsed(shape: type[RequestT], arguments: list[Json]) -> RequestT:
    return parse_request(shape, json_argument(arguments))


def generation(request: Mapping[str, Any]) -> Generate:
    """Build the operation of a program's request.

    Raises:
        Invalid: A field is unknown or has an invalid value.
    """
    return Generate(_validated(GenerateRequest, request))


def streamed_generation(request: Mapping[str, Any]) -> GenerateStream:
    """The operation of a request that a program made; raises as `generation`."""
    return GenerateStream(_validated(GenerateRequest, request))


def embedding(request: Mapping[str, Any]) -> Embed:
    """The operation of a request that a program made; raises as `generation`."""
    return Embed(_validated(EmbedRequest, request))


def _validated(shape: type[RequestT], request: Mapping[str, Any]) -> RequestT:
    try:
        return shape.model_validate(request)
    except ValidationError as error:
        raise invalid_request(error) from error
