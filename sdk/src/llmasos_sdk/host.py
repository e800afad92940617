"""The port between the SDK and whatever carries its calls to a host.

Three things implement it: the imports of a component, the socket of a native runner, and the fakes of
`llmasos_sdk.testing`.
"""

from __future__ import annotations

from typing import Protocol, TypeAlias

JsonValue: TypeAlias = "str | int | float | bool | None | list[JsonValue] | dict[str, JsonValue]"

# Every app has these; they reach nothing but the invocation's own caller.
BASELINE_CAPABILITIES = frozenset({"output", "log", "config"})


class Host(Protocol):
    """Carries a call of a capability to the host, and its answer back."""

    @property
    def capabilities(self) -> frozenset[str]:
        """The capabilities that the manifest declared, the baseline ones included."""
        ...

    def call(self, capability: str, function: str, *arguments: JsonValue) -> JsonValue:
        """Call a host function by its WIT name, with its WIT parameters in order.

        Raises:
            AppError: The case of the contract's `error` variant that the host answered with.
        """
        ...
