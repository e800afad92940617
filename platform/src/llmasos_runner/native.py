"""Runs a native app: a pluggy plugin of the entry-point group `llmasos.apps`, in the app's own environment.

It is loaded after this process confined itself. Invocations run at once, each on a thread; they share what
the app keeps in memory, as in any Python program. An invocation that must end is interrupted between two lines of
Python; one that is deep in machine code ends with the process, which the host kills.
"""

from __future__ import annotations

import ctypes
import io
import json
import os
import resource
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from llmasos_runner import hints
from llmasos_runner.invocation import Ended
from llmasos_runner.protocol import FUEL_PER_CPU_SECOND
from llmasos_sdk.errors import AppError, CapabilityNotDeclared, from_tag
from llmasos_sdk.hooks import GROUP, LIFECYCLE_EVENTS, plugin_manager
from llmasos_sdk.host import carried
from llmasos_sdk.messages import Message, to_text
from llmasos_sdk.messages import message as _

if TYPE_CHECKING:
    from llmasos_runner.invocation import GuestInvocation
    from llmasos_runner.protocol import Call, Done, Failure

_MESSAGE_CHARACTERS: Final = 4000

# The lifecycle events of an installation, beside the actions, whose names begin with a letter.
LIFECYCLE: Final = frozenset(f"@{event}" for event in LIFECYCLE_EVENTS)


class Interrupted(BaseException):
    """Raised in an app's thread when its invocation is over; no `except Exception` of the app stops it."""


class NativeHost:
    """The SDK's port to the host, over the invocation's connection. An app may use it from threads of its own."""

    def __init__(self, invocation: GuestInvocation, capabilities: frozenset[str]) -> None:
        self._invocation = invocation
        self._capabilities = capabilities
        self._lock = threading.Lock()

    @property
    def capabilities(self) -> frozenset[str]:
        """As in `Host.capabilities`."""
        return self._capabilities

    def call(self, capability: str, function: str, *arguments: Any) -> Any:
        """As in `Host.call`."""
        if capability not in self._capabilities:
            raise CapabilityNotDeclared(f"llmapp.toml does not declare {capability}")
        values = carried(capability, function, arguments)
        with self._lock:
            try:
                reply = self._invocation.call(capability, function, values)
            except Ended:
                raise Interrupted from None
        if "error" in reply:
            raise from_tag(reply["error"]["tag"], reply["error"]["message"])
        return reply.get("value")


class NativeRunner:
    """One app, loaded once, and its invocations."""

    def __init__(self) -> None:
        self._manager = plugin_manager()
        self._fault: Message | None = None
        self._active: dict[int, GuestInvocation] = {}
        self._lock = threading.Lock()
        self._printed = _Printed(self._invocation_of_this_thread)
        # Opened while /proc is still mounted. getrusage would also count the host's memory at this process's start.
        self.statm = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)

    def load(self, paths: list[str]) -> None:
        """Import the app from its environment. A fault is kept, and every call then fails with it.

        Args:
            paths: Its site-packages.
        """
        sys.path.extend(paths)
        sys.stdout = sys.stderr = self._printed
        try:
            named = list(entry_points(paths))
            if len(named) == 1:
                self._manager.register(_plugin(named[0]), "app")
            else:
                self._fault = _(
                    "The app's environment holds {count} apps in {group}, and it must hold one.",
                    count=len(named),
                    group=GROUP,
                )
        except BaseException as error:  # an import may raise anything, SystemExit too
            self._fault = _("The app cannot be loaded: {error}", error=hints.described(error))

    def execute(self, invocation: GuestInvocation, call: Call) -> Done:
        """Run one invocation from its start to its end; never raises."""
        thread = threading.get_ident()
        invocation.computed_before = began = time.thread_time()
        answer: str | Failure
        try:
            with self._lock:
                self._active[thread] = invocation
            answer = self._answer(invocation, call)
            self._leave(thread)
        except Interrupted:
            # Before anything else is called, so that no second interruption can be raised.
            invocation.unwound = True
            self._leave(thread)
            answer = invocation.reason or {
                "tag": "cancelled",
                "message": to_text(_("It was cancelled.")),
                "code": "cancelled",
            }
        fuel = int((time.thread_time() - began) * FUEL_PER_CPU_SECOND)
        done: Done = {
            "t": "done",
            "id": invocation.id,
            "fuel": fuel,
            "memory_bytes": self._memory_bytes(),
            "log": invocation.log.text(),
        }
        if isinstance(answer, str):
            done["output"] = answer
        else:
            done["error"] = answer
        return done

    def _answer(self, invocation: GuestInvocation, call: Call) -> str | Failure:
        if self._fault is not None:
            return _failure("app-failed", self._fault)
        try:
            output = self._call(NativeHost(invocation, frozenset(call["capabilities"])), call["action"], call["input"])
        except AppError as error:
            return _failure_of(error)
        except Interrupted:
            raise
        except BaseException as error:  # SystemExit, and an app's own BaseException
            said = _("The app ended itself instead of answering: {error}", error=hints.described(error))
            return _failure("app-failed", said)
        if (size := len(output.encode(errors="replace"))) > invocation.limits["output_bytes"]:
            limit = invocation.limits["output_bytes"]
            return _failure(
                "resource-limit",
                _("The app returned {size} bytes; the limit is {limit}.", size=size, limit=limit),
            )
        return output

    def _call(self, host: NativeHost, action: str | None, input_json: str) -> str:
        hook = self._manager.hook
        if action is None:
            return json.dumps(hook.actions(), ensure_ascii=False)
        if action in LIFECYCLE:
            getattr(hook, action[1:])(host=host, **json.loads(input_json or "{}"))
            return "null"
        return str(hook.call(host=host, action=action, input_json=input_json))

    def _memory_bytes(self) -> int:
        """The resident memory of the process, of all its invocations together."""
        return int(os.pread(self.statm, 256, 0).split()[1]) * resource.getpagesize()

    def _invocation_of_this_thread(self) -> GuestInvocation | None:
        invocation = self._active.get(threading.get_ident())
        if invocation is None and len(self._active) == 1:  # a thread that the app started
            return next(iter(self._active.values()), None)
        return invocation

    def _leave(self, thread: int) -> None:
        """Detach the invocation from its thread, and cancel an interruption that was not delivered yet."""
        with self._lock:
            invocation = self._active.pop(thread, None)
            if invocation is not None and invocation.reason is not None:
                _interrupt(thread, None)

    def watch(self) -> None:
        """Interrupt the invocations that must end."""
        with self._lock:
            for thread, invocation in self._active.items():
                _hold_to_its_compute(thread, invocation)
                # Again each time: an app may have caught the one before.
                if invocation.is_over() and not invocation.unwound:
                    _interrupt(thread, Interrupted)


def _hold_to_its_compute(thread: int, invocation: GuestInvocation) -> None:
    used = time.clock_gettime(time.pthread_getcpuclockid(thread)) - invocation.computed_before
    if used * FUEL_PER_CPU_SECOND > invocation.limits["fuel"]:
        allowed = invocation.limits["fuel"] / FUEL_PER_CPU_SECOND
        said = _(
            "The app computed longer than the {allowed:.3g} s of cpu_seconds: raise cpu_seconds under [limits].",
            allowed=allowed,
        )
        invocation.end("invalid", said, "resource-limit")


def _interrupt(thread: int, error: type[BaseException] | None) -> None:
    raised = ctypes.py_object(error) if error is not None else ctypes.py_object()
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), raised)


def _failure(code: str, said: Message) -> Failure:
    return {"tag": "invalid", "code": code, "message": to_text(said)}


def _failure_of(error: AppError) -> Failure:
    if isinstance(error.__cause__, MemoryError):
        return _failure(
            "resource-limit",
            _("The app used more memory than it may use: raise memory_mib under [limits]."),
        )
    hint = hints.of(error.__cause__) if error.__cause__ is not None else None
    said = error.message if isinstance(error.message, Message) else error.message[:_MESSAGE_CHARACTERS]
    if hint is not None:
        said = _("{said} {hint}", said=said, hint=hint)
    return {"tag": error.tag, "message": to_text(said)}


class _Printed(io.TextIOBase):
    """What the app prints: into the log of the invocation that printed it, or else to the host."""

    def __init__(self, invocation_of_this_thread: Callable[[], GuestInvocation | None]) -> None:
        self._invocation_of_this_thread = invocation_of_this_thread

    def writable(self) -> bool:
        return True

    def write(self, text: str, /) -> int:
        data = text.encode(errors="replace")
        invocation = self._invocation_of_this_thread()
        if invocation is not None:
            invocation.log.write(data)
        else:
            os.write(2, data)
        return len(text)


def entry_points(paths: list[str]) -> Iterator[str]:
    """Yield what the environment's packages name in the group `llmasos.apps`, such as `app:app`.

    Finds them as pluggy's own loader does, without the 3 MiB of modules that importlib.metadata keeps loaded.
    """
    for path in paths:
        for file in sorted(Path(path).glob("*.dist-info/entry_points.txt")):
            group = ""
            for line in map(str.strip, file.read_text(encoding="utf-8").splitlines()):
                if line.startswith("["):
                    group = line.strip("[] ")
                elif group == GROUP and "=" in line and not line.startswith(("#", ";")):
                    yield line.partition("=")[2].strip()


def _plugin(reference: str) -> object:
    module, _, attributes = reference.partition(":")
    found: Any = import_module(module.strip())
    for name in filter(None, attributes.strip().split(".")):
        found = getattr(found, name)
    return found


def environment_paths(native: Mapping[str, Any]) -> list[str]:
    """Return the paths to app code in the first frame."""
    return [str(path) for path in native.get("paths", ())]
