"""Frames to a runner, and frames from it, which are decoded strictly since a runner is not trusted.

Besides wrong types, the decoder refuses an unknown field, NaN, a lone surrogate, a number out of range, and an
argument that is nested (no argument of the contract is). The host decodes a frame once and passes on only the decoded
values, so that a key given twice cannot mean two things to two readers: the last one counts.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Annotated, Final, TypeAlias

import msgspec

from llmasos_runner import protocol
from llmasos_runner.protocol import LENGTH, MAX_FRAME_BYTES, framed

Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Name: TypeAlias = Annotated[str, msgspec.Meta(max_length=200)]
Line: TypeAlias = Annotated[str, msgspec.Meta(max_length=20_000)]
Argument: TypeAlias = str | float | int | bool | None


class Frame(msgspec.Struct, tag_field="t", forbid_unknown_fields=True):
    """The base of every message."""


class ReadyFrame(Frame, tag="ready"):
    """Mirrors `protocol.Ready`."""

    pid: Count
    engine: Name
    confinement: Annotated[list[Name], msgspec.Meta(max_length=64)]


class SyscallFrame(Frame, tag="syscall"):
    """Mirrors `protocol.Syscall`."""

    id: Name
    seq: Count
    capability: Name
    function: Name
    arguments: Annotated[list[Argument], msgspec.Meta(max_length=16)]


class FailureFrame(msgspec.Struct, forbid_unknown_fields=True):
    """Mirrors `protocol.Failure`."""

    tag: Name
    message: Line
    code: Name | None = None


class DoneFrame(Frame, tag="done"):
    """Mirrors `protocol.Done`."""

    id: Name
    fuel: Count
    memory_bytes: Count
    log: str
    output: str | None = None
    error: FailureFrame | None = None


class CompiledFrame(Frame, tag="compiled"):
    """Mirrors `protocol.Compiled`."""

    imports: list[str]
    exports: list[str]


class RefusedFrame(Frame, tag="refused"):
    """Mirrors `protocol.Refused`."""

    message: Line


Incoming: TypeAlias = ReadyFrame | SyscallFrame | DoneFrame | CompiledFrame | RefusedFrame


class ProtocolFault(Exception):
    """A runner broke the protocol; the message says how."""


_decoder: Final[msgspec.json.Decoder[Incoming]] = msgspec.json.Decoder(Incoming)
_encoder: Final = msgspec.json.Encoder()


def encode(message: object) -> bytes:
    """Encode a message to a runner as a frame: `protocol.encode` with the host's faster library.

    Raises:
        FrameError: It is larger than `MAX_FRAME_BYTES`.
    """
    try:
        return framed(_encoder.encode(message))
    except UnicodeEncodeError:  # a lone surrogate
        return protocol.encode(msgspec.to_builtins(message))


def decode(body: bytes | memoryview) -> Incoming:
    """Decode one message.

    Raises:
        ProtocolFault: It is not a message.
    """
    try:
        return _decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolFault(f"it sent what is no message: {str(error)[:200]}") from error


class FrameReader:
    """Cuts a stream into frames. It buffers at most one frame and what arrived with it."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Incoming]:
        """Add received bytes, and yield each complete message.

        Raises:
            ProtocolFault: A frame is too long, or is not a message.
        """
        buffer = self._buffer
        buffer += data
        start = 0
        try:
            while len(buffer) - start >= LENGTH.size:
                (length,) = struct.unpack_from(">I", buffer, start)
                if length > MAX_FRAME_BYTES:
                    raise ProtocolFault(f"it sent a frame of {length} bytes; the limit is {MAX_FRAME_BYTES}")
                end = start + LENGTH.size + length
                if len(buffer) < end:
                    return
                body = bytes(memoryview(buffer)[start + LENGTH.size : end])
                start = end
                yield decode(body)
        finally:
            del buffer[:start]
