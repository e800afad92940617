"""How an action ended. It needs no host, so a program that calls a server imports nothing else."""

from __future__ import annotations

from dataclasses import dataclass

from llmasos.kernel.invocation import InvocationUsage, Json


@dataclass(frozen=True, slots=True)
class InvocationResult:
    """What an action returned, and what it used."""

    id: str
    output: Json
    usage: InvocationUsage
    notices: tuple[str, ...] = ()
    """What the caller should know of the answer, such as that its model is not fit for the task."""

    @property
    def model(self) -> str | None:
        """The model that was used last, if any."""
        return self.usage.model
