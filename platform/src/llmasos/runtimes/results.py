"""What a runner's `done` means to the host: a result, or the error of the right class with the result on it."""

from __future__ import annotations

import re
from typing import Final

import msgspec

from llmasos import errors
from llmasos.errors import AppFailed, ComponentRejected, Invalid, LlmasosError, ResourceLimit, Unavailable
from llmasos.kernel.invocation import InvocationLimits
from llmasos.runtimes.frames import Done, Failure
from llmasos.runtimes.runtime import CallResult
from llmasos_runner.protocol import Limits

_BY_CODE: Final[dict[str, type[LlmasosError]]] = {
    cls.code: cls for cls in (AppFailed, ResourceLimit, ComponentRejected, Unavailable)
}


def result_of(done: Done) -> CallResult:
    """The result of an invocation that ended.

    Raises:
        LlmasosError: It ended with an error, or with what is no JSON; its `result` has the fuel, memory and log.
    """
    result = measured(done)
    if done.error is not None:
        raise with_result(_error(done.error), result)
    try:
        msgspec.json.decode(result.output)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise with_result(
            AppFailed(f"The app's answer is not JSON: {error}.", zh=f"应用的返回值不是 JSON：{error}。"), result
        ) from error
    return result


def measured(done: Done) -> CallResult:
    """What it answered and used, error or not."""
    return CallResult(done.output or "", done.fuel, done.memory_bytes, done.log)


def with_result(error: LlmasosError, result: CallResult) -> LlmasosError:
    """The error, carrying what the invocation used."""
    error.result = result
    return error


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
    if failure.code is not None:
        return _BY_CODE.get(failure.code, Unavailable)(failure.message, zh=zh)
    return errors.BY_TAG.get(failure.tag, Invalid)(failure.message, zh=zh)
