"""Runs the calls that a project's tests make: the app in its runner, and what it calls of its host in the test.

`llmasos_sdk.testing.call`, in Python and JavaScript, connects to the socket once for each call and sends one line of
JSON, `{"action", "input"}`. It then gets `{"call": [capability, function, arguments]}` for each host call, and returns
`{"value"}` or `{"error": {"tag", "message"}}`; and at the end it gets `{"output", "error", "log"}`.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

from llmasos.authoring.describe import Runners
from llmasos.authoring.development import DevelopedApp
from llmasos.errors import BY_TAG, Cancelled, LlmasosError, Unavailable
from llmasos.i18n import from_text
from llmasos.kernel.invocation import Invocation, Json, Principal
from llmasos.runtimes.kinds import Runtimes
from llmasos.runtimes.runtime import CallOutcome, RuntimeKind
from llmasos.settings import Settings
from llmasos_runner.protocol import MAX_FRAME_BYTES

SOCKET_VARIABLE: Final = "LLMASOS_TEST_SANDBOX"


@asynccontextmanager
async def sandboxed_calls(path: Path, settings: Settings) -> AsyncGenerator[Path]:
    """Build a project, and run the calls of its tests until the block ends; yields the path of the socket.

    Args:
        path: The project's folder.
        settings: The home, and the limits of runners.

    Raises:
        LlmasosError: It has faults, does not build, or describes no actions.
    """
    connections: dict[str, _Connection] = {}

    async def handle(invocation: Invocation, capability: str, function: str, arguments: list[Json]) -> Json:
        return await connections[invocation.id].call_host(capability, function, arguments)

    with (
        DevelopedApp(path, settings, None) as app,
        tempfile.TemporaryDirectory(prefix="llmasos-test-") as folder,
    ):
        components = RuntimeKind("wasm", lambda context: app.components(context.handler))
        runtimes = Runners(settings, handle, components)

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                with suppress(ConnectionError):
                    await _serve(app, runtimes, connections, _Connection(reader, writer))
            finally:
                writer.close()

        try:
            await app.load(runtimes)
            socket = Path(folder) / "calls"
            server = await asyncio.start_unix_server(serve, socket, limit=MAX_FRAME_BYTES)
            try:
                yield socket
            finally:
                server.close()
        finally:
            await runtimes.close()


class _Connection:
    """To one test, for one call."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def receive(self) -> dict[str, Any] | None:
        """What the test sends next; None if it has left."""
        line = await self._reader.readline()
        return json.loads(line) if line.endswith(b"\n") else None

    async def send(self, message: dict[str, Json]) -> None:
        self._writer.write(json.dumps(message).encode() + b"\n")
        await self._writer.drain()

    async def call_host(self, capability: str, function: str, arguments: list[Json]) -> Json:
        """Call a fake of the test.

        Raises:
            LlmasosError: What the fake raised; or `Cancelled`, if the test has left.
        """
        await self.send({"call": [capability, function, arguments]})
        answer = await self.receive()
        if answer is None:
            raise Cancelled
        error = answer.get("error")
        if error is not None:
            raise BY_TAG.get(error["tag"], Unavailable)(from_text(error["message"]))
        return answer["value"]


async def _serve(
    app: DevelopedApp, runtimes: Runtimes, connections: dict[str, _Connection], connection: _Connection
) -> None:
    """Run one call."""
    request = await connection.receive()
    if request is None:
        return
    runnable = app.runnable
    invocation = Invocation(Principal(), runnable.app, request["action"], runnable.limits)
    connections[invocation.id] = connection
    try:
        runtime = runtimes.of(runnable.program.kind)
        outcome = await runtime.call(runnable.program, invocation, request["action"], request["input"])
    except LlmasosError as error:
        outcome = CallOutcome(error=error)
    finally:
        del connections[invocation.id]
    await connection.send(_end(outcome))


def _end(outcome: CallOutcome) -> dict[str, Json]:
    error = outcome.error
    if isinstance(error, asyncio.CancelledError):
        raise error
    told = error and {"tag": outcome.returned_tag or error.tag, "message": str(error.message)}
    return {"output": outcome.output, "error": told, "log": outcome.log}
