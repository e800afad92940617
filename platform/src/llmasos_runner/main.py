"""The entry point of a runner process: `python -I -S main.py <descriptor>`.

The order matters. The interpreter starts bare: no `site`, so no `.pth` file runs; no environment; no path of an app.
The host's first frame says what this runner is for. It then imports what is ours and heavy, while it may still read
files; has the system kill it when the host ends; confines itself for good; informs the host; and only then accepts
paths to app code.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import select
import socket
import struct
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from llmasos_runner.invocation import GuestInvocation
    from llmasos_runner.protocol import Call, Start

_RECEIVE_BYTES: Final = 1 << 16


def main() -> None:
    """Serve the host on the inherited socket until it closes it."""
    _be_killed_first()
    connection = socket.socket(fileno=int(sys.argv[1]))
    start = _first_frame(connection)
    # Last, so that nothing there can replace a module of the standard library.
    sys.path.extend(start["search_path"])
    _die_with_the_host(connection)
    serve = {"component": _components, "compile": _compile, "native": _native, "bytecode": _bytecode}[start["kind"]]
    serve(connection, start)
    # Not sys.exit: daemon threads may still unwind, and nothing here needs the interpreter's own shutdown.
    os._exit(0)


def _be_killed_first() -> None:
    # If the machine runs out of memory, the system ends a runner and not the host.
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:  # noqa: PTH123 -- no pathlib yet
        file.write("1000")


def _die_with_the_host(connection: socket.socket) -> None:
    from llmasos_runner.confinement.kernel import die_with_parent  # noqa: PLC0415

    # An app that keeps this process from noticing that its connection closed must not outlive the host.
    die_with_parent()
    closed = select.poll()
    closed.register(connection, 0)  # POLLHUP is always reported
    if closed.poll(0):  # the host ended before the line above
        raise SystemExit("the host is gone")


def _first_frame(connection: socket.socket) -> Start:
    # As in `protocol.take_frame`, which cannot be imported before this frame gives its path.
    (length,) = struct.unpack(">I", connection.recv(4, socket.MSG_WAITALL))
    start: Start = json.loads(connection.recv(length, socket.MSG_WAITALL))
    return start


class HostConnection:
    """The connection to the host: whole messages in both directions."""

    def __init__(self, connection: socket.socket) -> None:
        from llmasos_runner.protocol import encode, take_frame  # noqa: PLC0415 -- known once the first frame was read

        self._encode = encode
        self._take = take_frame
        self._connection = connection
        self._lock = threading.Lock()
        self._received = bytearray()
        self._readable = select.poll()
        self._readable.register(connection, select.POLLIN)

    def send(self, message: object) -> None:
        """Send one message, from any thread.

        Raises:
            FrameError: It is larger than a frame.
            OSError: The host is gone.
        """
        frame = self._encode(message)
        with self._lock:
            self._connection.sendall(frame)

    def receive(self, seconds: float | None) -> dict[str, Any] | None:
        """Return the host's next message, or None after the timeout. Only one thread calls it.

        Raises:
            EOFError: The host closed.
            FrameError: The host broke the protocol.
            OSError: The connection failed.
        """
        while (message := self._take(self._received)) is None:
            if seconds is not None and not self._readable.poll(seconds * 1000):
                return None
            data = self._connection.recv(_RECEIVE_BYTES)
            if not data:
                raise EOFError
            self._received += data
        return message


def _confine(connection: socket.socket, start: Start, *kept: int) -> list[str]:
    """Confine this process for good. If the system cannot, `ready` reports that components run in WebAssembly alone."""
    from llmasos_runner import confinement  # noqa: PLC0415

    profile = {"read": start["search_path"], **start["confine"], "keep_fds": [connection.fileno(), *kept]}
    try:
        return confinement.apply(profile)
    except confinement.ConfinementMissing:
        if start["kind"] in {"native", "bytecode"}:
            raise
        return []


def _compile(connection: socket.socket, start: Start) -> None:
    from llmasos_runner import compile as compiling  # noqa: PLC0415

    task = start.get("compile")
    if task is None:
        raise SystemExit("a compile runner was started without a task")
    # First, since a confined process cannot change its limits.
    compiling.limit_itself(task)
    _confine(connection, start, task["input_fd"], task["output_fd"])
    # This process has one task, and an install waits for it: compile on every core.
    os.environ.pop("RAYON_NUM_THREADS", None)
    HostConnection(connection).send(compiling.compile_component(task))


def _bytecode(connection: socket.socket, start: Start) -> None:
    from llmasos_runner import bytecode  # noqa: PLC0415

    task = start.get("bytecode")
    if task is None:
        raise SystemExit("a bytecode runner was started without a task")
    bytecode.limit_itself(task)
    _confine(connection, start, task["output_fd"])
    bytecode.compile_all(task)


def _native(connection: socket.socket, start: Start) -> None:
    from llmasos_runner.native import NativeRunner, environment_paths  # noqa: PLC0415
    from llmasos_runner.workers import STACK_BYTES  # noqa: PLC0415

    runner = NativeRunner()
    paths = environment_paths(start.get("native", {}))
    # Without a profile, an operator trusts the app by name, since the system cannot confine it.
    mechanisms = _confine(connection, start, runner.statm) if start["confine"] else []
    threading.stack_size(STACK_BYTES)
    runner.load(paths)
    host = HostConnection(connection)
    host.send({"t": "ready", "pid": os.getpid(), "engine": "python", "confinement": mechanisms})
    serve_calls(host, start["threads"], runner.execute, watch=runner.watch)


def _components(connection: socket.socket, start: Start) -> None:
    from llmasos_runner.component import ComponentRunner  # noqa: PLC0415
    from llmasos_runner.engine_abi import ENGINE_VERSION  # noqa: PLC0415
    from llmasos_runner.workers import STACK_BYTES  # noqa: PLC0415

    runner = ComponentRunner()
    mechanisms = _confine(connection, start)
    # Only now may there be threads: confinement does not cover those that exist before.
    threading.stack_size(STACK_BYTES)
    runner.ticker.start()
    host = HostConnection(connection)
    host.send({"t": "ready", "pid": os.getpid(), "engine": ENGINE_VERSION, "confinement": mechanisms})
    serve_calls(host, start["threads"], runner.execute)


def serve_calls(
    host: HostConnection,
    threads: int,
    execute: Callable[[GuestInvocation, Call], Any],
    *,
    watch: Callable[[], None] | None = None,
) -> None:
    """Read the host's messages until it closes; each call runs by `execute`, at most `threads` of them at once.

    Args:
        host: The connection that calls come from and replies go to.
        threads: The most calls at once.
        execute: Runs one call to its end.
        watch: Ends invocations that must end; called now and then, as `Workers` says.
    """
    from llmasos_runner.invocation import GuestInvocation  # noqa: PLC0415
    from llmasos_runner.workers import Workers  # noqa: PLC0415
    from llmasos_sdk.messages import message as _  # noqa: PLC0415 - found only behind the search path
    from llmasos_sdk.messages import to_text  # noqa: PLC0415

    invocations: dict[str, GuestInvocation] = {}

    def work(invocation: GuestInvocation, call: Call) -> None:
        done = execute(invocation, call)
        del invocations[invocation.id]
        try:
            host.send(done)
        except OSError:
            return  # the host is gone, which the thread that reads notices
        except Exception as error:  # a result that cannot be sent must still end the invocation
            failure = {
                "tag": "invalid",
                "code": "resource-limit",
                "message": to_text(_("The result cannot be sent: {error}.", error=error)),
            }
            host.send({**{key: done[key] for key in ("t", "id", "fuel", "memory_bytes")}, "log": "", "error": failure})

    def next_call(seconds: float | None) -> Callable[[], None] | None:
        message = host.receive(seconds)
        if message is None:
            return None
        if message["t"] == "call":
            call: Any = message
            invocation = invocations[call["id"]] = GuestInvocation(call["id"], call["limits"], host.send)
            return functools.partial(work, invocation, call)
        # Anything else for an invocation that has just ended is late.
        if (running := invocations.get(message["id"])) is not None:
            if message["t"] == "reply":
                running.answer(message)
            elif message["t"] == "cancel":
                reason = message["reason"]
                was = _("It was cancelled.") if reason == "cancelled" else _("It took too long.")
                running.end(reason, was)
        return None

    workers = Workers(threads, next_call, watch=watch)
    workers.serve()
    for invocation in list(invocations.values()):
        invocation.end("cancelled", _("The host is gone."))


if __name__ == "__main__":
    main()
