"""Turns the end of a call, as a runner reported it, into its outcome: an output, or an error of the right class."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import msgspec

from llmasos.errors import AppFailed, Cancelled, ComponentRejected, LlmasosError, ResourceLimit, TimedOut, Unavailable
from llmasos.i18n import _, from_text
from llmasos.json_text import replace_half_characters
from llmasos.kernel.invocation import InvocationLimits
from llmasos.runtimes.frames import FailureFrame
from llmasos.runtimes.runner import CallEnd
from llmasos.runtimes.runtime import CallOutcome
from llmasos_runner.protocol import Limits

_BY_CODE: Final[dict[str, type[LlmasosError]]] = {
    cls.code: cls for cls in (AppFailed, Cancelled, ComponentRejected, ResourceLimit, TimedOut, Unavailable)
}


def outcome_of(end: CallEnd, output_bytes: int) -> CallOutcome:
    """Return the outcome of a call that ended in a runner.

    Args:
        end: How it ended.
        output_bytes: The most that it may return. The runner checks this too, but an app may have taken over its own.
    """
    report = end.report
    if report is None:
        return CallOutcome(error=end.error)
    usage = CallOutcome(fuel=report.fuel, memory_bytes=report.memory_bytes, log=report.log)
    if end.error is not None:
        return replace(usage, error=end.error)
    if report.error is not None:
        returned = report.error.tag if report.error.code is None else None
        return replace(usage, error=_error(report.error), returned_tag=returned)
    output = replace_half_characters(report.output or "")
    if (size := len(output.encode())) > output_bytes:
        too_large = ResourceLimit(
            _("The app returned {size} bytes; the limit is {limit}.", size=size, limit=output_bytes),
        )
        return replace(usage, error=too_large)
    try:
        msgspec.json.decode(output)
    except (msgspec.MsgspecError, RecursionError) as error:
        failure = AppFailed(_("The app's result is not JSON: {error}.", error=error))
        return replace(usage, error=failure)
    return replace(usage, output=output)


def limits_message(limits: InvocationLimits, wall_seconds: float) -> Limits:
    """The limits as a frame holds them, with the time that is left."""
    return {
        "memory_bytes": limits.memory_bytes,
        "fuel": limits.fuel,
        "wall_seconds": wall_seconds,
        "log_bytes": limits.log_bytes,
        "output_bytes": limits.output_bytes,
    }


def _error(failure: FailureFrame) -> LlmasosError:
    # Without a code the app returned the error itself: its tag, such as "quota", is only a claim.
    kind = AppFailed if failure.code is None else _BY_CODE.get(failure.code, Unavailable)
    # The runner and the SDK nest messages at most three deep.
    return kind(from_text(failure.message, depth=3))
