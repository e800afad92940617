"""The protocol between the host and a runner.

Frames on a SOCK_STREAM socketpair: four bytes, the length of the rest in bytes, big-endian, unsigned;
then one JSON object. Its key `t` names the message. Both sides use this module; the host also decodes every
frame strictly into the same shapes, since a runner is not trusted.

The host sends `start` once, then `call`, `cancel`, `reply`. A runner sends `ready` once, then `syscall` and `done`.
An invocation is known by the id that the host issued on this connection. A runner of kind `compile` or `bytecode` does
the one task that `start` names, and ends; the first sends `compiled` or `refused` before.

This module imports the standard library alone: a native runner has nothing else.
"""

from __future__ import annotations

import errno
import json
import struct
from pathlib import Path
from typing import Any, Final, Literal, NotRequired, TypedDict, cast

# The most text that one call carries between an app and its host, either way; requests, inputs and the arguments of
# host calls share it. A prompt of a MiB is over 200,000 tokens: more is a mistake or an attack.
MAX_PAYLOAD_BYTES: Final = 1 << 20
# JSON text inside a JSON frame: a control character needs seven bytes. One MiB remains for the log and the envelope.
MAX_FRAME_BYTES: Final = 8 * MAX_PAYLOAD_BYTES
LENGTH: Final = struct.Struct(">I")

# How much fuel a second of one core burns, to turn a manifest's `cpu_seconds` into fuel and, for a guest that was
# ended while it computed (the engine keeps no count then), its processor time into fuel. Measured: a Python
# component in an endless loop burns 3.7 thousand million units a second on a machine with both cores busy.
FUEL_PER_CPU_SECOND: Final = 4_000_000_000

# The exit code of a compile runner that found no room for its output: the system's own number for it.
EXIT_DISK_FULL: Final = errno.ENOSPC

Json = Any  # one JSON value, already decoded


class Limits(TypedDict):
    """What one invocation may use inside its runner."""

    memory_bytes: int
    fuel: int
    wall_seconds: float
    log_bytes: int
    output_bytes: int


class CompileTask(TypedDict):
    """The task of a runner of kind `compile`: its two inherited descriptors, and its limits."""

    input_fd: int
    output_fd: int
    cpu_seconds: int
    memory_bytes: int
    output_bytes: int


class BytecodeTask(TypedDict):
    """What a runner of kind `bytecode` does: compile the sources in `folder`, which will stand at `final`."""

    folder: str
    final: str
    output_fd: int
    cpu_seconds: int
    memory_bytes: int
    output_bytes: int


class BuildLimits(TypedDict):
    """How far `launch.py` confines a program that builds something."""

    read: list[str]
    run: list[str]
    """Also read."""
    write: list[str]
    """Folders in which it makes and removes what it likes."""
    network: bool
    memory_bytes: int
    cpu_seconds: int
    file_bytes: int


class WheelSource(TypedDict):
    """A wheel to fetch, into a file that is named by its hash."""

    name: str
    url: str
    sha256: str


class FetchTask(TypedDict):
    """What `fetch.py` reads from its standard input."""

    folder: str
    wheels: list[WheelSource]
    max_bytes: int
    """Of all the wheels."""


class UnpackTask(TypedDict):
    """What `wheels.py` reads from its standard input."""

    folder: str
    """It holds the wheels, each in a file that is named by its hash."""
    wheels: list[WheelSource]
    target: str
    max_bytes: int
    """Of all that is unpacked."""
    max_files: int


class BuildFailure(TypedDict):
    """What `fetch.py` and `wheels.py` print if they fail."""

    reason: Literal["network", "hash", "size", "name", "link", "clash", "broken"]
    name: str
    """The wheel's."""
    said: str
    """The entry of the wheel, or the error of the network."""


def python_sources(folder: Path) -> list[Path]:
    """The Python files of a folder, in the order in which a runner of kind `bytecode` writes their bytecode."""
    return sorted(path for path in folder.rglob("*.py") if path.is_file() and not path.is_symlink())


class Start(TypedDict):
    """The first frame to a runner: its purpose. It confines itself before it replies."""

    t: Literal["start"]
    kind: Literal["component", "native", "compile", "bytecode"]
    search_path: list[str]
    confine: dict[str, Json]
    threads: int
    native: NotRequired[dict[str, Json]]
    compile: NotRequired[CompileTask]
    bytecode: NotRequired[BytecodeTask]


class Ready(TypedDict):
    """The runner is confined and serves calls. `confinement` names the mechanisms."""

    t: Literal["ready"]
    pid: int
    engine: str
    confinement: list[str]


class Call(TypedDict):
    """Run an action, or `describe` if `action` is None.

    `program` is the path of a compiled component; empty for a native runner.
    """

    t: Literal["call"]
    id: str
    program: str
    action: str | None
    input: str
    capabilities: list[str]
    limits: Limits


class Cancel(TypedDict):
    """End an invocation now."""

    t: Literal["cancel"]
    id: str
    reason: Literal["cancelled", "timeout"]


class Syscall(TypedDict):
    """The app calls a host function. `seq` counts the calls of one invocation."""

    t: Literal["syscall"]
    id: str
    seq: int
    capability: str
    function: str
    arguments: list[Json]


class Failure(TypedDict):
    """A case of the contract's `error` variant.

    `code` is one of the host's (see `llmasos.errors`) if the runner found the fault; without it, the app returned it.
    `message` is text, or a message that the host renders; see `llmasos_sdk.messages.to_text`.
    """

    tag: str
    message: str
    code: NotRequired[str]


class Reply(TypedDict):
    """The host's reply to a syscall: a `value`, or an `error`."""

    t: Literal["reply"]
    id: str
    seq: int
    value: NotRequired[Json]
    error: NotRequired[Failure]


class Done(TypedDict):
    """An invocation ended, with the JSON text that the action returned, or an `error`."""

    t: Literal["done"]
    id: str
    output: NotRequired[str]
    error: NotRequired[Failure]
    fuel: int
    memory_bytes: int
    log: str


class Compiled(TypedDict):
    """The component is compiled and written; this is what it imports and exports."""

    t: Literal["compiled"]
    imports: list[str]
    exports: list[str]


class Refused(TypedDict):
    """The host does not run it as a component; `message` gives the reason in one line."""

    t: Literal["refused"]
    message: str


# Made once: `json.dumps` would make an encoder for each message, and `json.loads` would guess the encoding.
_encode: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode
_decode: Final = json.JSONDecoder().raw_decode


class FrameError(Exception):
    """The other side broke the protocol."""


def encode(message: object) -> bytes:
    """Encode a message as a frame.

    Raises:
        FrameError: It is over `MAX_FRAME_BYTES`.
    """
    text = _encode(message)
    try:
        return framed(text.encode())
    except UnicodeEncodeError:
        # Half a surrogate pair has no place in UTF-8: two halves are joined, and one alone becomes U+FFFD.
        return framed(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode())


def framed(body: bytes) -> bytes:
    """Add the header to an encoded message.

    Raises:
        FrameError: It is over `MAX_FRAME_BYTES`.
    """
    if len(body) > MAX_FRAME_BYTES:
        raise FrameError(f"a message of {len(body)} bytes is over the limit of {MAX_FRAME_BYTES}")
    return LENGTH.pack(len(body)) + body


def take_frame(received: bytearray) -> dict[str, Json] | None:
    """Take the first message out of the bytes that were received; return None while it is not whole.

    Raises:
        FrameError: The frame is too large or is not a JSON object.
    """
    if len(received) < LENGTH.size:
        return None
    (length,) = LENGTH.unpack_from(received)
    if length > MAX_FRAME_BYTES:
        raise FrameError(f"a frame of {length} bytes is over the limit of {MAX_FRAME_BYTES}")
    end = LENGTH.size + length
    if len(received) < end:
        return None
    body = received[LENGTH.size : end]
    del received[:end]
    try:
        message: Json = _decode(body.decode())[0]
    except ValueError as error:
        raise FrameError("a frame is not JSON") from error
    if not isinstance(message, dict):
        raise FrameError("a frame is not a JSON object")
    return cast("dict[str, Json]", message)
