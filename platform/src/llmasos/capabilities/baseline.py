"""The capabilities that need no grant: output to an app's own caller, a log, its configuration."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal, TypeAlias

from llmasos.errors import Invalid, ResourceLimit
from llmasos.i18n import _
from llmasos.kernel.capability import ContractFunction, Operation, OperationResult, PreparedCall
from llmasos.kernel.guest_calls import json_text
from llmasos.kernel.invocation import Event, Invocation, Json
from llmasos.quotas.meters import Demand

# One line under a progress bar.
MAX_PROGRESS_MESSAGE: Final = 500
Level: TypeAlias = Literal["debug", "info", "warning", "error"]


@dataclass(frozen=True, slots=True)
class ShowChunk(Operation[None]):
    """Shows a part of the answer to the caller."""

    text: str
    capability: ClassVar[str] = "output"
    function: ClassVar[str] = "chunk"


@dataclass(frozen=True, slots=True)
class ShowProgress(Operation[None]):
    """Shows how far the run is, from 0 to 1, and one line about it."""

    fraction: float
    message: str
    capability: ClassVar[str] = "output"
    function: ClassVar[str] = "progress"


@dataclass(frozen=True, slots=True)
class WriteLog(Operation[None]):
    """Adds a line to the invocation's log."""

    level: Level
    message: str
    capability: ClassVar[str] = "log"
    function: ClassVar[str] = "write"


@dataclass(frozen=True, slots=True)
class AppConfig:
    """What an app may know of its environment."""

    values: Mapping[str, Json]
    """What the installer chose."""
    locale: str
    now_ms: int
    """A component without WASI has no clock."""
    seed: str
    """Differs in each invocation; nothing secret may rest on it."""
    granted: tuple[str, ...]
    """The capabilities that it may use, besides the baseline ones."""


@dataclass(frozen=True, slots=True)
class ReadConfig(Operation[AppConfig]):
    """Reads the installer's choices and the caller's language."""

    capability: ClassVar[str] = "config"
    function: ClassVar[str] = "read"


class OutputCapability:
    """`output`: what the invocation shows its caller while it runs, up to `limits.output_bytes`."""

    name: str = "output"
    audited: bool = False
    contract: Mapping[str, ContractFunction] = {
        "chunk": ContractFunction.plain(ShowChunk, tuple[str]),
        "progress": ContractFunction.plain(ShowProgress, tuple[float, str]),
    }

    def prepare(self, invocation: Invocation, operation: Operation[Any]) -> PreparedCall[None]:
        """Prepare an event.

        Raises:
            Invalid: The fraction is not from 0 to 1.
        """
        match operation:
            case ShowChunk(text):
                event = Event("chunk", text=text)
            case ShowProgress(fraction, message):
                if not (math.isfinite(fraction) and 0 <= fraction <= 1):
                    raise Invalid(_("output.progress takes a fraction from 0 to 1."))
                event = Event("progress", text=message[:MAX_PROGRESS_MESSAGE], fraction=fraction)
            case _:
                raise TypeError(operation)

        async def show(_granted: Demand) -> OperationResult[None]:
            # An empty chunk counts as well, since every event has a cost.
            size = len(event.text.encode(errors="surrogatepass")) + 8
            if invocation.output_bytes + size > invocation.limits.output_bytes:
                raise ResourceLimit(
                    _(
                        "The app showed more than the {output_bytes:,} bytes that one run may show.",
                        output_bytes=invocation.limits.output_bytes,
                    ),
                )
            invocation.output_bytes += size
            await invocation.emit(event)
            return OperationResult()

        return PreparedCall(show)


class LogCapability:
    """`log`: lines kept with the invocation, up to `limits.log_bytes`; the log says if more were left out."""

    name: str = "log"
    audited: bool = False
    contract: Mapping[str, ContractFunction] = {"write": ContractFunction.plain(WriteLog, tuple[Level, str])}

    def prepare(self, invocation: Invocation, operation: Operation[Any]) -> PreparedCall[None]:
        """Prepare a line."""
        match operation:
            case WriteLog(level, message):
                pass
            case _:
                raise TypeError(operation)

        async def write(_granted: Demand) -> OperationResult[None]:
            invocation.add_log(f"{level.upper()} {message}\n")
            return OperationResult()

        return PreparedCall(write)


class ConfigCapability:
    """`config`: the installer's choices and the caller's language."""

    name: str = "config"
    audited: bool = False
    contract: Mapping[str, ContractFunction] = {"read": ContractFunction.plain(ReadConfig, tuple[()], json_text)}

    def prepare(self, invocation: Invocation, operation: Operation[Any]) -> PreparedCall[AppConfig]:
        """Prepare the configuration."""

        async def read(_granted: Demand) -> OperationResult[AppConfig]:
            values: Mapping[str, Json] = invocation.app.config if invocation.app else {}
            now_ms = time.time_ns() // 1_000_000
            granted = tuple(sorted(invocation.app.grants)) if invocation.app else ()
            return OperationResult(AppConfig(dict(values), invocation.principal.locale, now_ms, invocation.id, granted))

        return PreparedCall(read)
