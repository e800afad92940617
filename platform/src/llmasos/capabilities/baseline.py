"""What every app has without a grant: output to its own caller, a log, its configuration."""

from __future__ import annotations

import json
import math
import time
from typing import Final

from llmasos.capabilities.plain import PlainOperation
from llmasos.errors import Invalid, ResourceLimit
from llmasos.kernel.capability import Immediate, Json
from llmasos.kernel.invocation import Event, Invocation

# A line under a progress bar.
MAX_PROGRESS_MESSAGE: Final = 500
LEVELS: Final = frozenset({"debug", "info", "warning", "error"})


class OutputCapability:
    """`output`: what the invocation shows its caller while it runs, up to `limits.output_bytes`."""

    name = "output"
    functions = frozenset({"chunk", "progress"})
    audited = False

    def prepare(self, invocation: Invocation, function: str, arguments: list[Json]) -> PlainOperation:
        """Decode a call.

        Raises:
            Invalid: The arguments are not what the contract says.
        """
        match function, arguments:
            case "chunk", [str(text)]:
                event = Event("chunk", text=text)
            case "progress", [float() | int() as fraction, str(text)] if not isinstance(fraction, bool):
                if not (math.isfinite(fraction) and 0 <= fraction <= 1):
                    raise Invalid(
                        "output.progress takes a fraction from 0 to 1.", zh="output.progress 的进度应为 0 到 1。"
                    )
                event = Event("progress", text=text[:MAX_PROGRESS_MESSAGE], fraction=float(fraction))
            case _:
                raise Invalid(
                    "output has chunk(text) and progress(fraction, message).",
                    zh="output 提供 chunk(text) 和 progress(fraction, message)。",
                )

        async def show() -> None:
            # An empty one counts as well: events cost something even where they say nothing.
            size = len(event.text.encode(errors="surrogatepass")) + 8
            if invocation.output_bytes + size > invocation.limits.output_bytes:
                raise ResourceLimit(
                    f"The app showed more than the {invocation.limits.output_bytes:,} bytes that one run may show.",
                    zh=f"应用的输出超过了单次运行 {invocation.limits.output_bytes:,} 字节的上限。",
                )
            invocation.output_bytes += size
            await invocation.emit(event)

        return PlainOperation(show)


class LogCapability:
    """`log`: lines kept with the invocation, up to `limits.log_bytes`; more are left out, and the log says so."""

    name = "log"
    functions = frozenset({"write"})
    audited = False

    def prepare(self, invocation: Invocation, function: str, arguments: list[Json]) -> Immediate:
        """Decode a call.

        Raises:
            Invalid: The arguments are not what the contract says.
        """
        match arguments:
            case [str(level), str(message)] if level in LEVELS:
                pass
            case _:
                raise Invalid(
                    f"log.write takes a level ({', '.join(sorted(LEVELS))}) and a message.",
                    zh=f"log.write 接受级别（{', '.join(sorted(LEVELS))}）和消息。",
                )

        return Immediate(lambda: invocation.add_log(f"{level.upper()} {message}\n"))


class ConfigCapability:
    """`config`: what the installer chose, and the caller's language."""

    name = "config"
    functions = frozenset({"read"})
    audited = False

    def prepare(self, invocation: Invocation, function: str, arguments: list[Json]) -> Immediate:
        """Decode a call.

        Raises:
            Invalid: It has arguments.
        """
        if arguments:
            raise Invalid("config.read takes no arguments.", zh="config.read 不接受参数。")

        def read() -> str:
            values = dict(invocation.app.config) if invocation.app else {}
            told = {
                "values": values,
                "locale": invocation.principal.locale,
                # A component without WASI has no clock and no chance of its own. The id is random, and differs in
                # each invocation; nothing secret may rest on it.
                "now_ms": time.time_ns() // 1_000_000,
                "seed": invocation.id,
            }
            return json.dumps(told, ensure_ascii=False)

        return Immediate(read)
