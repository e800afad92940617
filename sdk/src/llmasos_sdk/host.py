"""The port between the SDK and the transport of its calls to a host.

Three things implement it: the imports of a component, the socket of a native runner, and the fakes of
`llmasos_sdk.testing`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Final, Protocol, TypeAlias

from llmasos_sdk.messages import well_formed

JsonValue: TypeAlias = "str | int | float | bool | None | list[JsonValue] | dict[str, JsonValue]"

# Every app has these; they reach only the invocation's own caller.
BASELINE_CAPABILITIES = frozenset({"output", "log", "config"})


class Host(Protocol):
    """Carries a capability call to the host, and its result back."""

    @property
    def capabilities(self) -> frozenset[str]:
        """The capabilities that the manifest declared, the baseline ones included."""
        ...

    def call(self, capability: str, function: str, *arguments: JsonValue) -> JsonValue:
        """Call a host function by its WIT name, with its WIT parameters in order.

        Raises:
            AppError: The case of the contract's `error` variant that the host returned.
        """
        ...


# The parameters of each host function, as in llmasos.wit.
PARAMETERS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "output.chunk": ("text",),
        "output.progress": ("number", "text"),
        "log.write": ("text", "text"),
        "config.read": (),
        "model.generate": ("text",),
        "model.open": ("text",),
        "model.read": ("count",),
        "model.close": ("count",),
        "model.embed": ("text",),
        "model.count-tokens": ("text",),
        "storage.get": ("text",),
        "storage.put": ("text", "text", "flag"),
        "storage.compare-and-set": ("text", "count?", "text", "flag"),
        "storage.delete": ("text",),
        "storage.keys": ("text", "text?", "count"),
        "http.request": ("text",),
        "secrets.names": (),
        "apps.call": ("text", "text", "text"),
    }
)
_FITS: Final[Mapping[str, Callable[[object], bool]]] = MappingProxyType(
    {
        "text": lambda value: isinstance(value, str),
        "flag": lambda value: isinstance(value, bool),
        "number": lambda value: isinstance(value, (int, float)) and math.isfinite(value),
        "count": lambda value: isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 64,
    }
)


def carried(capability: str, function: str, arguments: Iterable[JsonValue]) -> list[JsonValue]:
    """The arguments of a call as the contract carries them, with no half of a character in a text.

    A component aborts at an argument of another type, so each is checked before.

    Raises:
        TypeError: An argument is of another type.
    """
    named = f"{capability}.{function}"
    parameters = PARAMETERS.get(named, ())
    values: list[JsonValue] = []
    for at, (kind, value) in enumerate(zip(parameters, arguments, strict=True), start=1):
        if not (value is None and kind.endswith("?")) and not _FITS[kind.removesuffix("?")](value):
            raise TypeError(f"{named}: argument {at} is a {kind.removesuffix('?')}, not {value!r:.60}")
        values.append(well_formed(value) if isinstance(value, str) else value)
    return values
