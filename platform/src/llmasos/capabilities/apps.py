"""Calls of other apps: the callee runs with what both were granted, and the first caller pays.

Bounded by depth, and by refusing an app that is already in the chain of callers: a cycle would go on until the depth or
the quota ended it, for nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol

from llmasos.bundles.manifest import AppsPermission
from llmasos.errors import Denied, Invalid
from llmasos.kernel.capability import Operation, Outcome
from llmasos.kernel.invocation import Event, EventSink, Invocation, Json, Principal
from llmasos.quotas.meters import Demand


class Answered(Protocol):
    """What the callee answered."""

    @property
    def output(self) -> Json:
        """Its output."""
        ...


class AppRunner(Protocol):
    """Runs an action of an installed app."""

    async def __call__(
        self, principal: Principal, app_id: str, action: str, value: Json, emit: EventSink, *, parent: Invocation | None
    ) -> Answered:
        """Run it to its end, as part of `parent`."""
        ...


def callers(invocation: Invocation) -> Iterator[str]:
    """The apps in the chain, the one that calls first."""
    step: Invocation | None = invocation
    while step is not None:
        if step.app is not None:
            yield step.app.id
        step = step.parent


@dataclass(frozen=True, slots=True)
class AppsCapability:
    """The capability `apps`. `depth` is how many apps may stand in a chain."""

    runner: AppRunner
    depth: int
    name: str = "apps"
    functions: frozenset[str] = frozenset({"call"})
    audited: bool = True

    def prepare(self, invocation: Invocation, function: str, arguments: list[Json]) -> Operation:
        """Hold the callee against the grant and the chain of callers."""
        match arguments:
            case [str() as app_id, str() as action, str() as text]:
                pass
            case _:
                raise Invalid(
                    f"apps.{function} takes an app, an action and its input as JSON text",
                    zh=f"apps.{function} 接受应用、操作以及 JSON 文本形式的输入",
                )
        try:
            value = json.loads(text)
        except ValueError:
            raise Invalid("the input of an action is JSON", zh="操作的输入须为 JSON") from None
        grant = invocation.app.grants.get(self.name) if invocation.app else None
        if isinstance(grant, AppsPermission) and app_id not in grant.apps:
            raise Denied(
                f'the app may not call {app_id[:128]!r}; its manifest would ask for it with apps = ["{app_id[:128]}"], '
                "and name it in [dependencies]",
                zh=f"应用不得调用 {app_id[:128]!r}；可在其清单中这样申请：apps "
                f'= ["{app_id[:128]}"]，并在 [dependencies] 中列出它',
            )
        chain = list(callers(invocation))
        if app_id in chain:
            raise Denied(
                f"{app_id} already runs further up in this chain of calls ({' < '.join(chain)})",
                zh=f"{app_id} 已在此调用链的上层运行（{' < '.join(chain)}）",
            )
        if len(chain) >= self.depth:
            raise Denied(
                f"apps call each other at most {self.depth} deep; an operator sets it with LLMASOS_CALL_DEPTH",
                zh=f"应用之间最多嵌套调用 {self.depth} 层；管理员可用 LLMASOS_CALL_DEPTH 设置",
            )
        return CallOperation(self.runner, invocation, app_id, action, value)


@dataclass(frozen=True, slots=True)
class CallOperation:
    """One call of another app's action."""

    runner: AppRunner
    invocation: Invocation
    app_id: str
    action: str
    value: Json
    demand: Demand = field(default_factory=Demand)

    @property
    def detail(self) -> Mapping[str, Json]:
        """Which action: never what was given to it."""
        return MappingProxyType({"app": self.app_id, "action": self.action})

    async def execute(self, granted: Demand) -> Outcome:
        """Run it. Its notices reach the user; its chunks are the caller's to show."""
        invocation = self.invocation

        async def notices(event: Event) -> None:
            if event.kind == "notice":
                await invocation.emit(event)

        answered = await self.runner(
            invocation.principal, self.app_id, self.action, self.value, notices, parent=invocation
        )
        return Outcome(json.dumps(answered.output, ensure_ascii=False))
