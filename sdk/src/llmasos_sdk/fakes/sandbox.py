"""Runs an action in the sandbox of `llmasos test --sandbox`, over the fakes of the test.

The command runs the app, and listens on a Unix socket for the calls of the tests; `llmasos.authoring.sandboxed_calls`
says what crosses it.
"""

from __future__ import annotations

import json
import socket
from typing import Any, Final

from llmasos_sdk.errors import AppError, AppFailed, Unavailable, from_tag
from llmasos_sdk.host import Host
from llmasos_sdk.messages import to_text

SOCKET_VARIABLE: Final = "LLMASOS_TEST_SANDBOX"


def call_in_sandbox(path: str, action: str, input_json: str, host: Host) -> str:
    """Run an action, and return its output as JSON text. What it printed is printed here.

    Args:
        path: Of the command's socket.
        action: The action, or a lifecycle event such as `@install`.
        input_json: A JSON object.
        host: Serves the host calls of the app.

    Raises:
        AppError: The error that the host would return to its caller.
    """
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        with connection.makefile("rw", encoding="utf-8", newline="\n") as stream:

            def send(message: dict[str, Any]) -> None:
                stream.write(json.dumps(message) + "\n")
                stream.flush()

            send({"action": action, "input": input_json})
            for line in stream:
                told = json.loads(line)
                if "call" in told:
                    send(_served(host, *told["call"]))
                    continue
                print(told["log"], end="")  # noqa: T201 (pytest shows it with a failure)
                if told["error"] is not None:
                    raise _error(**told["error"])
                return str(told["output"])
    raise Unavailable("the sandbox has ended: run `llmasos test --sandbox` again")


def _served(host: Host, capability: str, function: str, arguments: list[Any]) -> dict[str, Any]:
    """The answer to a host call.

    Raises:
        AppFailed: The fake failed with an error of its own, which ends the call as it does without the sandbox.
    """
    try:
        return {"value": host.call(capability, function, *arguments)}
    except AppError as error:
        return {"error": {"tag": error.tag, "message": to_text(error.message)}}
    except Exception as error:
        raise AppFailed(f"the app failed: {type(error).__name__}: {error}") from error


def _error(tag: str, message: str) -> AppError:
    """The error, of which only the case was transferred. A failed app is recognised by its message."""
    return AppFailed(message) if message.startswith("the app failed: ") else from_tag(tag, message)
