"""Runs a native app: a pluggy plugin of the entry-point group `llmasos.apps`, in the app's own environment.

It is loaded after this process confined itself. Invocations run at once, each on a thread; what the app keeps in
memory they share, as in any Python program. An invocation that must end is interrupted between two lines of Python;
one that is deep in machine code ends with the process, which the host kills.
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
from llmasos_runner.protocol import FUEL_PER_CPU_SECOND
from llmasos_runner.runs import Ended
from llmasos_sdk.errors import AppError, CapabilityNotDeclared, from_tag
from llmasos_sdk.hooks import GROUP, MOMENTS, plugin_manager
from llmasos_sdk.messages import Message, to_text
from llmasos_sdk.messages import message as _

if TYPE_CHECKING:
    from llmasos_runner.protocol import Call, Done, Failure
    from llmasos_runner.runs import Run

_MESSAGE_CHARACTERS: Final = 4000

# The moments of an installation, beside the actions, whose names begin with a letter.
LIFECYCLE: Final = frozenset(f"@{moment}" for moment in MOMENTS)


class Interrupted(BaseException):
    """Raised in an app's thread when its run is over; no `except Exception` of the app holds it up."""


class NativeHost:
    """The SDK's port to the host, over the run's connection. An app may use it from threads of its own."""

    def __init__(self, run: Run, capabilities: frozenset[str]) -> None:
        self._run = run
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
        with self._lock:
            try:
                reply = self._run.call(capability, function, list(arguments))
            except Ended:
                raise Interrupted from None
        if "error" in reply:
            raise from_tag(reply["error"]["tag"], reply["error"]["message"])
        return reply.get("value")


class NativeRunner:
    """One app, loaded once, and its runs."""

    def __init__(self) -> None:
        self._manager = plugin_manager()
        self._fault: Message | None = None
        self._active: dict[int, Run] = {}
        self._lock = threading.Lock()
        self._printed = _Printed(self._run_of_this_thread)
        # Opened while there is a /proc. getrusage would tell the most that the host held when it started this process.
        self.statm = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)

    def load(self, paths: list[str]) -> None:
        """Import the app from its environment. A fault is kept, and is every call's answer.

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
        except BaseException as error:  # SystemExit and what else an import may raise
            self._fault = _("The app cannot be loaded: {error}", error=hints.told(error))

    def execute(self, run: Run, call: Call) -> Done:
        """Run one invocation from its start to its end; never raises."""
        thread = threading.get_ident()
        run.computed_before = began = time.thread_time()
        answer: str | Failure
        try:
            with self._lock:
                self._active[thread] = run
            answer = self._answer(run, call)
            self._leave(thread)
        except Interrupted:
            # Before anything is called, so that no second one can have been raised.
            run.unwound = True
            self._leave(thread)
            answer = run.reason or {"tag": "cancelled", "message": to_text(_("It was cancelled."))}
        fuel = int((time.thread_time() - began) * FUEL_PER_CPU_SECOND)
        done: Done = {
            "t": "done",
            "id": run.id,
            "fuel": fuel,
            "memory_bytes": self._memory_bytes(),
            "log": run.log.text(),
        }
        if isinstance(answer, str):
            done["output"] = answer
        else:
            done["error"] = answer
        return done

    def _answer(self, run: Run, call: Call) -> str | Failure:
        if self._fault is not None:
            return _failure("app-failed", self._fault)
        try:
            output = self._call(NativeHost(run, frozenset(call["capabilities"])), call["action"], call["input"])
        except AppError as error:
            return _failure_of(error)
        except Interrupted:
            raise
        except BaseException as error:  # SystemExit, and an app's own BaseException
            said = _("The app ended itself instead of answering: {error}", error=hints.told(error))
            return _failure("app-failed", said)
        if (size := len(output.encode(errors="replace"))) > run.limits["output_bytes"]:
            limit = run.limits["output_bytes"]
            return _failure(
                "resource-limit",
                _("The app's answer has {size} bytes, and it may have {limit}.", size=size, limit=limit),
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
        """What the process holds now, for itself and shared with others; all of its runs together."""
        return int(os.pread(self.statm, 256, 0).split()[1]) * resource.getpagesize()

    def _run_of_this_thread(self) -> Run | None:
        run = self._active.get(threading.get_ident())
        if run is None and len(self._active) == 1:  # a thread that the app started
            return next(iter(self._active.values()), None)
        return run

    def _leave(self, thread: int) -> None:
        """End the run's hold on its thread, and take back an interruption that has not struck yet."""
        with self._lock:
            run = self._active.pop(thread, None)
            if run is not None and run.reason is not None:
                _interrupt(thread, None)

    def watch(self) -> None:
        """Interrupt the runs that must end."""
        with self._lock:
            for thread, run in self._active.items():
                _hold_to_its_compute(thread, run)
                # Again each time: an app may have caught the one before.
                if run.is_over() and not run.unwound:
                    _interrupt(thread, Interrupted)


def _hold_to_its_compute(thread: int, run: Run) -> None:
    used = time.clock_gettime(time.pthread_getcpuclockid(thread)) - run.computed_before
    if used * FUEL_PER_CPU_SECOND > run.limits["fuel"]:
        allowed = run.limits["fuel"] / FUEL_PER_CPU_SECOND
        said = _(
            "The app computed longer than the {allowed:.3g} s of cpu_seconds: raise cpu_seconds under [limits].",
            allowed=allowed,
        )
        run.end("invalid", said, "resource-limit")


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
    """What the app prints, into the log of the run that printed it; outside of one, to the host's."""

    def __init__(self, run_of_this_thread: Callable[[], Run | None]) -> None:
        self._run_of_this_thread = run_of_this_thread

    def writable(self) -> bool:
        return True

    def write(self, text: str, /) -> int:
        data = text.encode(errors="replace")
        run = self._run_of_this_thread()
        if run is not None:
            run.log.write(data)
        else:
            os.write(2, data)
        return len(text)


def entry_points(paths: list[str]) -> Iterator[str]:
    """What the environment's packages name in the group `llmasos.apps`, such as `app:app`.

    As pluggy's own loader finds them, without the 3 MiB of modules that importlib.metadata holds for ever after.
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
    """The paths to app code in the first frame."""
    return [str(path) for path in native.get("paths", ())]
