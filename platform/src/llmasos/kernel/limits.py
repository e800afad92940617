"""Limits on the size of one call of an app, and on the depth of its JSON. Pure."""

from __future__ import annotations

import re
from typing import Final

from llmasos.errors import Invalid
from llmasos.i18n import _
from llmasos.kernel.invocation import Json
from llmasos_runner.protocol import MAX_PAYLOAD_BYTES

# The contract's longest function takes five arguments; structure is inside JSON text.
MAX_ARGUMENTS: Final = 8
# Model requests nest messages, parts, tools and schemas: real ones stay under twenty levels.
MAX_DEPTH: Final = 64
# Streams that an invocation may have open at once: each holds a reservation and a connection.
MAX_STREAMS: Final = 16

_BRACKETS: Final = re.compile(r'"(?:[^"\\]|\\.)*+"|[\[{\]}]')


def check_arguments(arguments: list[Json]) -> None:
    """Check the arguments of a call against the limits.

    Raises:
        Invalid: They are too many or too large, or one is neither text, number nor flag.
    """
    if len(arguments) > MAX_ARGUMENTS:
        raise Invalid(
            _(
                "A host call takes at most {max_arguments} arguments; this one has {count}.",
                max_arguments=MAX_ARGUMENTS,
                count=len(arguments),
            ),
        )
    if not all(value is None or isinstance(value, str | int | float) for value in arguments):
        raise Invalid(_("An argument is a text, a number or a flag."))
    size = sum(len(value.encode(errors="surrogatepass")) for value in arguments if isinstance(value, str))
    check_payload(size)


def check_payload(size_bytes: int) -> None:
    """Check the size of one call's payload against the limit.

    Raises:
        Invalid: It is too large.
    """
    if size_bytes > MAX_PAYLOAD_BYTES:
        raise Invalid(
            _(
                "One call carries at most {max_payload_bytes:,} bytes, this one has {size_bytes:,}; send less at once.",
                max_payload_bytes=MAX_PAYLOAD_BYTES,
                size_bytes=size_bytes,
            ),
        )


def check_json_depth(text: str) -> None:
    """Check JSON text against the limit of depth, before it is parsed.

    Raises:
        Invalid: It nests too deep.
    """
    # Counting is quicker than scanning, and nearly all texts have few brackets.
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
                _("JSON may nest {max_depth} deep; send a flatter value.", max_depth=MAX_DEPTH),
            )
