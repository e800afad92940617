"""Calls to other apps: the callee runs with what both were granted, and the first caller pays.

Bounded by depth, and by refusing an app that is already in the chain of callers: a cycle would continue until the depth
or the quota ended it, for nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Protocol

from llmasos.bundles.manifest import AppsPermission
from llmasos.errors import Denied, Invalid
from llmasos.i18n import _
from llmasos.kernel.capability import ContractFunction, Operation, OperationResult, PreparedCall
from llmasos.kernel.guest_calls import json_text, parse_json
from llmasos.kernel.invocation import Event, EventSink, Invocation, Json, Principal
from llmasos.quotas.meters import Demand

# No app and no action has a longer name. The audit log truncates an invented one to this.
MAX_NAME: Final = 128


class ActionResult(Protocol):
    """How the callee ended."""

    @property
    def output(self) -> Json:
        """The callee's output."""
        ...


class AppRunner(Protocol):
    """Runs an action of an installed app."""

    async def __call__(
        self, principal: Principal, app_id: str, action: str, value: Json, emit: EventSink, *, parent: Invocation | None
    ) -> ActionResult:
        """Run an action to its end, as part of `parent`."""
        ...


def callers(invocation: Invocation) -> Iterator[str]:
    """The apps in the chain, the caller first."""
    step: Invocation | None = invocation
    while step is not None:
        if step.app is not None:
            yield step.app.id
        step = step.parent


@dataclass(frozen=True, slots=True)
class CallAction(Operation[Json]):
    """Runs an action of another app; returns its output."""

    app_id: str
    action: str
    input: Json
    capability: ClassVar[str] = "apps"
    function: ClassVar[str] = "call"


def _decode(arguments: list[Json]) -> CallAction:
    match arguments:
        case [str(app_id), str(action), str(text)]:
            return CallAction(app_id, action, parse_json(text))
        case _:
            raise Invalid(
                _("apps.call takes an app, an action and its input as JSON text."),
            )


class AppsCapability:
    """The capability `apps`. `depth` is the largest length of a chain of apps."""

    name: str = "apps"
    audited: bool = True
    contract: Mapping[str, ContractFunction] = {"call": ContractFunction(_decode, json_text)}

    def __init__(self, runner: AppRunner, depth: int) -> None:
        self._runner = runner
        self._depth = depth

    def prepare(self, invocation: Invocation, operation: Operation[Any]) -> PreparedCall[Json]:
        """Check the callee against the grant and the chain of callers."""
        match operation:
            case CallAction(app_id, action, value):
                pass
            case _:
                raise TypeError(operation)
        grant = invocation.app.grants.get(self.name) if invocation.app else None
        if isinstance(grant, AppsPermission) and app_id not in grant.apps:
            raise Denied(
                _(
                    'the app may not call {app!r}; its manifest would ask for it with apps = ["{app}"], and name '
                    "it in [dependencies]",
                    app=app_id[:128],
                ),
            )
        chain = list(callers(invocation))
        if app_id in chain:
            raise Denied(
                _(
                    "{app} already runs further up in this chain of calls ({chain})",
                    app=app_id,
                    chain=" < ".join(chain),
                ),
            )
        if len(chain) >= self._depth:
            raise Denied(
                _(
                    "apps call each other at most {depth} deep; an operator sets it with LLMASOS_CALL_DEPTH",
                    depth=self._depth,
                ),
            )

        async def notices(event: Event) -> None:
            # Its notices reach the user; its chunks are for the caller, which decides what to show.
            if event.kind == "notice":
                await invocation.emit(event)

        async def call(_granted: Demand) -> OperationResult[Json]:
            result = await self._runner(invocation.principal, app_id, action, value, notices, parent=invocation)
            return OperationResult(result.output)

        return PreparedCall(call, detail={"app": app_id[:MAX_NAME], "action": action[:MAX_NAME]})
