"""Runs actions, each in its caller's task, which the caller, another request or the host's end can stop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Protocol

from llmasos.bundles.actions import Action
from llmasos.errors import NotFound, Unavailable
from llmasos.i18n import _, render
from llmasos.invocations.actions import InputRejected, action_named, check_input, check_output, checked, encode_input
from llmasos.invocations.lifecycle import Invocations
from llmasos.invocations.result import InvocationResult
from llmasos.kernel.grants import intersect_all
from llmasos.kernel.invocation import (
    Event,
    EventSink,
    InstalledApp,
    Invocation,
    InvocationLimits,
    Json,
    Principal,
    discard,
    new_id,
)
from llmasos.runtimes.runtime import Program, Runtime


class Stopping(Unavailable):
    """The host is stopping; what was used is settled, run it again in a moment."""

    code = "stopping"


def not_installed(app_id: str) -> NotFound:
    """The error for an app that is not installed, and for one that the caller may not see."""
    return NotFound(
        _(
            "No app {app!r} is installed here; `llmasos list` shows what is, `llmasos install` adds one.",
            app=app_id[:128],
        ),
    )


@dataclass(frozen=True, slots=True)
class Runnable:
    """The current release of an app: its identity in the kernel, its program, its actions, its limits."""

    app: InstalledApp
    program: Program
    actions: Mapping[str, Action]
    limits: InvocationLimits
    lifecycle_events: frozenset[str] = frozenset()
    """Those that it has a hook for, such as `@install`."""


class Runnables(Protocol):
    """Finds installed apps."""

    def runnable(self, workspace: str, app_id: str) -> Runnable:
        """Find the current release of an installed app, in about a millisecond.

        Raises:
            NotFound: The workspace has no such installation.
        """
        ...

    def code(self, found: Runnable) -> Path:
        """Return the code that a runtime prepares, complete and as it was installed.

        Raises:
            Unavailable: It is gone or damaged.
        """
        ...


# A user waits at a prompt, which a hook of an app that is being removed must not delay for long.
LIFECYCLE_EVENT_SECONDS: Final = 30.0


@dataclass(slots=True, eq=False)
class _Active:
    """A running action. `stopped` is set once the host has ended it."""

    task: asyncio.Task[object]
    ended: asyncio.Future[None]
    stopped: bool = False


@dataclass(frozen=True, slots=True)
class _RunOptions:
    """Of `ActionRunner.run`."""

    emit: EventSink = discard
    parent: Invocation | None = None
    on_start: Callable[[Invocation], None] | None = None
    id: str | None = None


class ActionRunner:
    """Runs actions of installed apps."""

    def __init__(self, invocations: Invocations, runnables: Runnables, runtime_of: Callable[[str], Runtime]) -> None:
        """Run what `runnables` finds, as `invocations`, in the runtime of its kind."""
        self._invocations = invocations
        self._runnables = runnables
        self._runtime_of = runtime_of
        self._active: set[_Active] = set()
        self._stopping = False

    @property
    def active(self) -> int:
        """How many actions run now."""
        return len(self._active)

    def action(self, workspace: str, app_id: str, name: str) -> Action:
        """Find an action of an installed app.

        Raises:
            NotFound: There is no such app, or no such action.
        """
        return action_named(self._runnables.runnable(workspace, app_id).actions, name)

    def actions_of(self, workspace: str, app_id: str) -> Mapping[str, Action]:
        """The actions of an installed app, by name.

        Raises:
            NotFound: There is no such app.
        """
        return self._runnables.runnable(workspace, app_id).actions

    async def run(
        self,
        principal: Principal,
        app_id: str,
        action: str,
        value: Json,
        emit: EventSink = discard,
        *,
        parent: Invocation | None = None,
        on_start: Callable[[Invocation], None] | None = None,
        id_: str | None = None,
    ) -> InvocationResult:
        """Run an action until its end is committed. Cancelling the task ends the app and settles its use.

        Args:
            principal: Who runs it, and pays.
            app_id: An installed app.
            action: One of its actions.
            value: The input, a decoded JSON value.
            emit: Receives chunks, progress and notices while it runs.
            parent: The invocation whose app calls this one.
            on_start: Receives the invocation once it is admitted; a failure before that means it never began.
            id_: The id that it gets, made by `new_id`.

        Raises:
            LlmasosError: Why it could not start, or how it failed.
        """
        return await self._stoppable(
            lambda: self._run(principal, app_id, action, value, _RunOptions(emit, parent, on_start, id_))
        )

    async def tell(self, principal: Principal, app_id: str, event: str, value: Json) -> None:
        """Notify an app of a lifecycle event, if it has a hook for the event.

        Only this calls hooks: `run` finds actions alone, whoever calls.

        Args:
            principal: Who installs, changes or removes it, and pays.
            app_id: An installed app.
            event: Such as `@install`.
            value: The hook's argument, a JSON object.

        Raises:
            LlmasosError: How its hook failed.
        """
        found = self._runnables.runnable(principal.workspace, app_id)
        if event not in found.lifecycle_events:
            return
        seconds = min(found.limits.wall_seconds, LIFECYCLE_EVENT_SECONDS)
        found = replace(found, limits=replace(found.limits, wall_seconds=seconds))
        hook = Action(event, {"type": "object"}, {}, streaming=False, raw={})
        await self._stoppable(lambda: self._execute(principal, found, hook, value, _RunOptions()))

    async def _stoppable(self, work: Callable[[], Coroutine[Any, Any, InvocationResult]]) -> InvocationResult:
        """Await the work in this task, and end it if the host stops."""
        if self._stopping:
            raise Stopping
        active = _Active(_this_task(), asyncio.get_running_loop().create_future())
        self._active.add(active)
        try:
            return await work()
        except asyncio.CancelledError:
            if active.stopped:
                active.task.uncancel()
                raise Stopping from None
            raise
        finally:
            self._active.discard(active)
            active.ended.set_result(None)

    async def _run(
        self, principal: Principal, app_id: str, name: str, value: Json, options: _RunOptions
    ) -> InvocationResult:
        found = self._runnables.runnable(principal.workspace, app_id)
        if options.parent is not None:
            found = _within(found, options.parent)
        return await self._execute(principal, found, action_named(found.actions, name), value, options)

    async def _execute(
        self, principal: Principal, found: Runnable, action: Action, value: Json, options: _RunOptions
    ) -> InvocationResult:
        try:
            taken = await checked(lambda steps: check_input(action, value, steps))
        except InputRejected as error:
            raise _with_config_hint(error, found) from None
        text = encode_input(taken)
        runtime = self._runtime_of(found.program.kind)
        shown: list[Event] = []
        if not await runtime.is_ready(found.program):
            # Before the invocation begins, so that it does not count as the app's own time.
            shown = [await self._prepare(runtime, found, principal, options.emit)]
        notices: list[str] = []

        async def noted(event: Event) -> None:
            if event.kind == "notice":
                notices.append(event.text)
            await options.emit(event)

        asked = Invocation(
            *(principal, found.app, action.name, found.limits, options.parent, noted),
            id=options.id or new_id(),
            input_json=text,
        )
        async with self._invocations.begin(asked, shown) as invocation:
            if options.on_start is not None:
                options.on_start(invocation)
            ended = await runtime.call(found.program, invocation, action.name, text)
            invocation.measured(ended.fuel, ended.memory_bytes, ended.log)
            limit = invocation.limits.output_bytes
            text = ended.output_or_raise()
            output = await checked(lambda steps: check_output(action, text, limit, steps))
            invocation.output_json = text
        return InvocationResult(invocation.id, output, invocation.usage, tuple(notices))

    async def _prepare(self, runtime: Runtime, found: Runnable, principal: Principal, emit: EventSink) -> Event:
        """Prepare an installed app that is not ready: the host was upgraded, or the prepared code was deleted.

        Returns:
            The notice of it.
        """
        app = f"{found.app.id} {found.app.version}"
        said = render(_("Preparing {app} for this version of LLMasOS (once)", app=app), principal.locale)
        notice = Event("notice", said)
        await emit(notice)
        await runtime.prepare(found.program, await asyncio.to_thread(self._runnables.code, found))
        return notice

    async def stop(self) -> None:
        """Refuse new runs, end what runs, and wait until it is settled. Idempotent."""
        self._stopping = True
        for active in self._active:
            if not active.stopped:
                active.stopped = True
                active.task.cancel()
        ends = [active.ended for active in self._active]
        if ends:
            await asyncio.wait(ends)


def _within(found: Runnable, parent: Invocation) -> Runnable:
    """Limit a callee to its caller: to what both were granted, and to the caller's remaining time."""
    app, limits = found.app, found.limits
    if parent.app is not None:
        app = replace(app, grants=intersect_all(app.grants, parent.app.grants))
    left = parent.deadline_monotonic - time.monotonic()
    return replace(found, app=app, limits=replace(limits, wall_seconds=max(0.001, min(limits.wall_seconds, left))))


def _this_task() -> asyncio.Task[object]:
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - a coroutine runs in a task
    return task


def _with_config_hint(error: InputRejected, found: Runnable) -> InputRejected:
    """Add how to set the field, if it is one of the app's settings and not an input of the action."""
    set_at_install = [fault.field for fault in error.faults if fault.field in found.app.config]
    if not set_at_install:
        return error
    name = set_at_install[0]
    command = f"llmasos install {found.app.id} -c {name}=…"
    return InputRejected(
        _(
            "{error}. {name} is one of the app's settings, for all its runs: {command}",
            error=error.message,
            name=name,
            command=command,
        ),
        faults=error.faults,
    )
