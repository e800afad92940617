"""Frames to a runner, and from it, decoded as strictly as they can be: a runner is not trusted.

Beyond the types: no unknown field, no NaN, no lone surrogate, no number out of range, nothing nested (no argument of
the contract is), and no key twice. Two decoders that each keep another of two equal keys are how one message comes to
mean two things; so a frame must be exactly as long as its decoded keys and values are when written compactly.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Annotated, Final, TypeAlias

import msgspec

from llmasos_runner.protocol import HEADER, MAX_FRAME_BYTES, FrameError, framed

Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Name: TypeAlias = Annotated[str, msgspec.Meta(max_length=200)]
Line: TypeAlias = Annotated[str, msgspec.Meta(max_length=20_000)]
Argument: TypeAlias = str | float | int | bool | None


class Message(msgspec.Struct, tag_field="t", forbid_unknown_fields=True, omit_defaults=True):
    """What every message is."""


class Ready(Message, tag="ready"):
    """As in `protocol.Ready`."""

    pid: Count
    engine: Name
    walls: Annotated[list[Name], msgspec.Meta(max_length=64)]


class Syscall(Message, tag="syscall"):
    """As in `protocol.Syscall`."""

    id: Name
    seq: Count
    capability: Name
    function: Name
    arguments: Annotated[list[Argument], msgspec.Meta(max_length=16)]


class Failure(msgspec.Struct, forbid_unknown_fields=True):
    """As in `protocol.Failure`."""

    tag: Name
    message: Line
    zh: Line = ""
    code: Name | None = None


class Done(Message, tag="done"):
    """As in `protocol.Done`."""

    id: Name
    fuel: Count
    memory_bytes: Count
    log: str
    output: str | None = None
    error: Failure | None = None


class Compiled(Message, tag="compiled"):
    """As in `protocol.Compiled`."""

    imports: list[str]
    exports: list[str]


class Refused(Message, tag="refused"):
    """As in `protocol.Refused`."""

    message: Line


Incoming: TypeAlias = Ready | Syscall | Done | Compiled | Refused


class ProtocolFault(Exception):
    """A runner broke the protocol; the message says how."""


_decoder: Final[msgspec.json.Decoder[Incoming]] = msgspec.json.Decoder(Incoming)
_keys: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_encoder: Final = msgspec.json.Encoder()


def encode(message: object) -> bytes:
    """One message to a runner as a frame: `protocol.encode` with the host's faster library.

    Raises:
        FrameError: It is over `MAX_FRAME_BYTES`, or a text in it is no Unicode.
    """
    try:
        body = _encoder.encode(message)
    except UnicodeEncodeError as error:
        raise FrameError(f"a text holds what is no character: {error.reason}") from error
    return framed(body)


def decode(body: bytes | memoryview) -> Incoming:
    """One message.

    Raises:
        ProtocolFault: It is none.
    """
    try:
        message = _decoder.decode(body)
        # What is written as this library writes it has neither, and that is soon told.
        if _encoder.encode(message) == body:
            return message
        # {"key":value,…}: two braces, and for each member two quotes, a colon and a comma but for the last.
        compact = 1 + sum(len(key) + len(memoryview(value)) + 4 for key, value in _keys.decode(body).items())
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolFault(f"it sent what is no message: {str(error)[:200]}") from error
    if compact != len(body):
        raise ProtocolFault("it sent a message with a key twice, or with spaces between")
    return message


class FrameReader:
    """Cuts a stream into frames. Holds at most one frame and what arrived with it."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Incoming]:
        """Take what arrived, and give each message that is whole.

        Raises:
            ProtocolFault: A frame is too long, or no message.
        """
        buffer = self._buffer
        buffer += data
        start = 0
        try:
            while len(buffer) - start >= HEADER.size:
                (length,) = struct.unpack_from(">I", buffer, start)
                if length > MAX_FRAME_BYTES:
                    raise ProtocolFault(f"it sent a frame of {length} bytes; the limit is {MAX_FRAME_BYTES}")
                end = start + HEADER.size + length
                if len(buffer) < end:
                    return
                body = bytes(memoryview(buffer)[start + HEADER.size : end])
                start = end
                yield decode(body)
        finally:
            del buffer[:start]
