"""Turns the end of a call, as a runner reported it, into its outcome: an output, or an error of the right class."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Final

import msgspec

from llmasos.errors import AppFailed, ComponentRejected, LlmasosError, ResourceLimit, Unavailable
from llmasos.i18n import _
from llmasos.kernel.invocation import InvocationLimits
from llmasos.runtimes.frames import Failure
from llmasos.runtimes.runner import CallEnd
from llmasos.runtimes.runtime import CallOutcome
from llmasos_runner.protocol import Limits

_BY_CODE: Final[dict[str, type[LlmasosError]]] = {
    cls.code: cls for cls in (AppFailed, ResourceLimit, ComponentRejected, Unavailable)
}


def outcome_of(end: CallEnd) -> CallOutcome:
    """The outcome of a call that ended in a runner."""
    report = end.report
    if report is None:
        return CallOutcome(error=end.error)
    usage = CallOutcome(fuel=report.fuel, memory_bytes=report.memory_bytes, log=report.log)
    if end.error is not None:
        return replace(usage, error=end.error)
    if report.error is not None:
        return replace(usage, error=_error(report.error))
    output = report.output or ""
    try:
        msgspec.json.decode(output)
    except (msgspec.MsgspecError, RecursionError) as error:
        failure = AppFailed(_("The app's answer is not JSON: {error}.", error=error))
        return replace(usage, error=failure)
    return replace(usage, output=output)


def limits_message(limits: InvocationLimits, wall_seconds: float) -> Limits:
    """The limits as a frame holds them, with the wall time that is left."""
    return {
        "memory_bytes": limits.memory_bytes,
        "fuel": limits.fuel,
        "wall_seconds": wall_seconds,
        "log_bytes": limits.log_bytes,
        "output_bytes": limits.output_bytes,
    }


# The SDK speaks English inside the sandbox. These are its own sentences; what stands after them is the app's.
_OF_THE_SDK: Final = (
    (re.compile(r"\Athe app failed: "), "应用出错："),
    (
        re.compile(r"ctx\.(\w+) is not there: llmapp\.toml does not declare it\. Add:"),
        r"没有 ctx.\1：llmapp.toml 未声明它。请添加：",
    ),
)


def _in_chinese(message: str) -> str:
    for sentence, zh in _OF_THE_SDK:
        message = sentence.sub(zh, message)
    return message


def _error(failure: Failure) -> LlmasosError:
    zh = failure.zh or _in_chinese(failure.message)
    # Without a code the app returned the error itself: it may say "quota" of whatever it likes.
    kind = AppFailed if failure.code is None else _BY_CODE.get(failure.code, Unavailable)
    return kind(failure.message, zh=zh)
