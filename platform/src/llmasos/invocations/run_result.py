"""What a run answers, known without the host: a program that calls a server imports no more than this."""

from __future__ import annotations

from dataclasses import dataclass

from llmasos.kernel.invocation import Json, Usage


@dataclass(frozen=True, slots=True)
class RunResult:
    """How an action ended."""

    id: str
    output: Json
    usage: Usage
    notices: tuple[str, ...] = ()
    """What the caller should know of the answer, such as that its model is not fit for the task."""

    @property
    def model(self) -> str | None:
        """The model that answered, where one did."""
        return self.usage.model
