"""What a runner's `done` means to the host: a result, or the error of the right class with the result on it."""

from __future__ import annotations

from typing import Final

import msgspec

from llmasos import errors
from llmasos.errors import AppFailed, ComponentRejected, Invalid, LlmasosError, ResourceLimit, Unavailable
from llmasos.kernel.invocation import RunLimits
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


def limits_message(limits: RunLimits, wall_seconds: float) -> Limits:
    """The limits as a frame holds them, with the wall time that is left."""
    return {
        "memory_bytes": limits.memory_bytes,
        "fuel": limits.fuel,
        "wall_seconds": wall_seconds,
        "log_bytes": limits.log_bytes,
        "output_bytes": limits.output_bytes,
    }


def _error(failure: Failure) -> LlmasosError:
    if failure.code is not None:
        return _BY_CODE.get(failure.code, Unavailable)(failure.message, zh=failure.zh)
    return errors.BY_TAG.get(failure.tag, Invalid)(failure.message, zh=failure.zh)
