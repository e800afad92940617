"""How large what an app sends in one call may be, and how deep its JSON. Pure."""

from __future__ import annotations

import re
from typing import Final

from llmasos.errors import Invalid
from llmasos.kernel.invocation import Json
from llmasos_runner.protocol import MAX_PAYLOAD_BYTES

# The contract's longest function takes five arguments; structure is inside JSON text.
MAX_ARGUMENTS: Final = 8
# Requests of models nest messages, parts, tools and schemas: real ones stay under twenty.
MAX_DEPTH: Final = 64
# Streams that an invocation may have open at once: each holds a reservation and a connection.
MAX_STREAMS: Final = 16

_BRACKETS: Final = re.compile(r'"(?:[^"\\]|\\.)*+"|[\[{\]}]')


def check_arguments(arguments: list[Json]) -> None:
    """Hold the arguments of a call against the limits.

    Raises:
        Invalid: They are too many or too large, or one is neither text, number nor flag.
    """
    if len(arguments) > MAX_ARGUMENTS:
        raise Invalid(
            f"A host call takes at most {MAX_ARGUMENTS} arguments; this one has {len(arguments)}.",
            zh=f"主机调用最多接受 {MAX_ARGUMENTS} 个参数，此次有 {len(arguments)} 个。",
        )
    if not all(value is None or isinstance(value, str | int | float) for value in arguments):
        raise Invalid("An argument is a text, a number or a flag.", zh="参数只能是文本、数字或布尔值。")
    size = sum(len(value.encode(errors="surrogatepass")) for value in arguments if isinstance(value, str))
    check_payload(size)


def check_payload(size_bytes: int) -> None:
    """Hold what crosses in one call against the limit.

    Raises:
        Invalid: It is too large.
    """
    if size_bytes > MAX_PAYLOAD_BYTES:
        raise Invalid(
            f"One call carries at most {MAX_PAYLOAD_BYTES:,} bytes, this one has {size_bytes:,}; send less at once.",
            zh=f"一次调用最多携带 {MAX_PAYLOAD_BYTES:,} 字节，此次有 {size_bytes:,} 字节：请减少单次发送的内容。",
        )


def check_json_depth(text: str) -> None:
    """Hold JSON text against the limit of depth, before it is parsed.

    Raises:
        Invalid: It nests too deep.
    """
    # Counting is quicker than looking, and nearly all texts have few brackets.
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return
    depth = 0
    for token in _BRACKETS.finditer(text):
        match text[token.start()]:
            case "[" | "{":
                depth += 1
            case "]" | "}":
                depth -= 1
            case _:
                continue
        if depth > MAX_DEPTH:
            raise Invalid(
                f"JSON may nest {MAX_DEPTH} deep; send a flatter value.",
                zh=f"JSON 最多嵌套 {MAX_DEPTH} 层：请发送更扁平的值。",
            )
