"""How large and how deep the arguments of a host call may be. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

from llmasos.errors import Invalid
from llmasos.kernel.invocation import Json

# A prompt of a MiB is over 200,000 tokens; more than that in one call is a mistake or an attack.
MAX_ARGUMENT_BYTES = 1 << 20
# The contract's longest function takes five; structure is inside JSON strings, not in arguments.
MAX_ARGUMENTS = 8
# Requests of models nest messages, parts, tools and schemas: real ones stay under twenty.
MAX_DEPTH = 64
# Streams that an invocation may have open at once: each holds a reservation and a connection.
MAX_STREAMS = 16


def check_arguments(arguments: list[Json]) -> None:
    """Hold the arguments of a call against the limits.

    Raises:
        Invalid: They are too many, too large, or too deep.
    """
    if len(arguments) > MAX_ARGUMENTS:
        raise Invalid(
            f"A host call takes at most {MAX_ARGUMENTS} arguments; this one has {len(arguments)}.",
            zh=f"主机调用最多接受 {MAX_ARGUMENTS} 个参数，此次有 {len(arguments)} 个。",
        )
    room = MAX_ARGUMENT_BYTES
    level: list[Json] = arguments
    for _depth in range(MAX_DEPTH):
        below: list[Json] = []
        for value in level:
            room -= _size(value)
            if room < 0:
                raise Invalid(
                    f"The arguments of a host call may be {MAX_ARGUMENT_BYTES:,} bytes; send less at once.",
                    zh=f"主机调用的参数最多 {MAX_ARGUMENT_BYTES:,} 字节：请减少单次发送的内容。",
                )
            below.extend(_inside(value))
        if not below:
            return
        level = below
    raise Invalid(
        f"The arguments of a host call may nest {MAX_DEPTH} deep; send a flatter value.",
        zh=f"主机调用的参数最多嵌套 {MAX_DEPTH} 层：请发送更扁平的值。",
    )


def _size(value: Json) -> int:
    """About as many bytes as it takes as JSON, what is inside it left out."""
    if isinstance(value, str):
        return len(value.encode(errors="surrogatepass")) + 2
    if isinstance(value, dict):
        return sum(_size(key) + 1 for key in cast("dict[str, Json]", value)) + 2
    return 8


def _inside(value: Json) -> Iterable[Json]:
    if isinstance(value, dict):
        return cast("dict[str, Json]", value).values()
    return cast("Iterable[Json]", value) if isinstance(value, list) else ()
