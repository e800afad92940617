"""WASI 0.2 with nothing in it.

A guest finds clocks, randomness, an output that is kept as its log, an input that is at its end, and nothing else:
no files, environment, arguments, sockets or terminals. wasmtime's own implementation is not linked at all, for two
reasons: what is not there cannot be misconfigured, and a guest that sleeps in it blocks its thread beyond any
deadline, while here a sleep ends with the invocation.

A function that is not in `FUNCTIONS` traps when a guest calls it, with its name: it needs something that a guest
cannot have, such as a file.
"""

# pyright: reportUnknownLambdaType=false, reportUnknownArgumentType=false, reportUnknownMemberType=false
# What a guest passes is checked by the engine against the component's own types, not by Python's.

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from typing import Any, Final

from llmasos_runner.convert import Case, Err, Handle, Ok
from llmasos_runner.invocation import Ended, GuestInvocation

# Kinds of resources. Whatever else a component imports as a resource gets `OTHER`, which nothing ever makes.
POLLABLE: Final = 1
OUTPUT: Final = 2
INPUT: Final = 3
ERROR: Final = 4
NETWORK: Final = 5
OTHER: Final = 99
RESOURCES: Final = {
    "pollable": POLLABLE, "output-stream": OUTPUT, "input-stream": INPUT, "error": ERROR, "network": NETWORK,
}  # fmt: skip

# The most random bytes per call: a guest's memory limit limits nothing on this side.
MAX_RANDOM_BYTES: Final = 1 << 20
# How much a guest may write before it asks again, as in wasmtime.
WRITE_BYTES: Final = 1 << 20
# A pollable's number is the time in milliseconds from the clock's zero at which it is ready; 0: always. Thirty-two
# bits of them are 49 days, longer than a runner lives; a later one is the last.
_LAST_POLL: Final = (1 << 32) - 1

_VERSION: Final = re.compile(r"@0\.2\.\d+$")
_zero: Final = time.monotonic()

WasiFunction = Callable[..., Any]


def interface_of(import_name: str) -> str | None:
    """The WASI 0.2 interface that an import names, without its version, or None."""
    return _VERSION.sub("", import_name) if import_name.startswith("wasi:") and _VERSION.search(import_name) else None


def function(interface: str, name: str) -> WasiFunction:
    """Return what serves a WASI function: (invocation, *arguments) to its result."""
    return FUNCTIONS.get((interface, name)) or _absent(interface, name)


class Absent(Exception):
    """The guest called a part of WASI that it does not have."""


def _absent(interface: str, name: str) -> WasiFunction:
    def call(_invocation: GuestInvocation, *_arguments: Any) -> Any:
        raise Absent(f"{interface}#{name} is not available to an app")

    return call


def _ready_at(number: int) -> float:
    return 0.0 if number == 0 else _zero + number / 1000


def _pollable(at: float) -> Handle:
    return Handle(POLLABLE, max(0, min(int((at - _zero) * 1000 + 1), _LAST_POLL)))


def _block(invocation: GuestInvocation, pollable: Handle) -> None:
    invocation.sleep(max(0.0, _ready_at(pollable.rep) - time.monotonic()))


def _poll(invocation: GuestInvocation, pollables: list[Handle]) -> list[int]:
    if not pollables:
        raise Absent("wasi:io/poll#poll of nothing never returns")
    _block(invocation, min(pollables, key=lambda one: one.rep))
    now = time.monotonic()
    return [index for index, one in enumerate(pollables) if _ready_at(one.rep) <= now]


def _write(invocation: GuestInvocation, _stream: Handle, data: bytes) -> Ok:
    invocation.log.write(data)
    return Ok()


def _write_zeroes(invocation: GuestInvocation, _stream: Handle, length: int) -> Ok:
    invocation.log.write(bytes(min(length, WRITE_BYTES)))
    return Ok()


def _exit(invocation: GuestInvocation, code: int) -> None:
    invocation.exit_code = code
    raise Ended


def _random_bytes(_invocation: GuestInvocation, length: int) -> bytes:
    if length > MAX_RANDOM_BYTES:
        raise Absent(f"{length} random bytes at once are over the limit of {MAX_RANDOM_BYTES}")
    return os.urandom(length)


def _random_u64(_invocation: GuestInvocation) -> int:
    return int.from_bytes(os.urandom(8), "little")


def _wall_now(_invocation: GuestInvocation) -> dict[str, int]:
    seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
    return {"seconds": seconds, "nanoseconds": nanoseconds}


def _nothing(_invocation: GuestInvocation, *_arguments: Any) -> None:
    return None


def _empty(_invocation: GuestInvocation, *_arguments: Any) -> list[Any]:
    return []


def _ok(_invocation: GuestInvocation, *_arguments: Any) -> Ok:
    return Ok()


def _closed(_invocation: GuestInvocation, *_arguments: Any) -> Err:
    return Err(Case("closed"))


def _access_denied(_invocation: GuestInvocation, *_arguments: Any) -> Err:
    return Err(Case("access-denied"))


_OUT: Final = "[method]output-stream."
_IN: Final = "[method]input-stream."

FUNCTIONS: Final[dict[tuple[str, str], WasiFunction]] = {
    ("wasi:cli/environment", "get-environment"): _empty,
    ("wasi:cli/environment", "get-arguments"): _empty,
    ("wasi:cli/environment", "initial-cwd"): _nothing,
    ("wasi:cli/exit", "exit"): lambda invocation, status: _exit(invocation, 0 if isinstance(status, Ok) else 1),
    ("wasi:cli/exit", "exit-with-code"): _exit,
    ("wasi:cli/stdin", "get-stdin"): lambda _invocation: Handle(INPUT, 0),
    ("wasi:cli/stdout", "get-stdout"): lambda _invocation: Handle(OUTPUT, 1),
    ("wasi:cli/stderr", "get-stderr"): lambda _invocation: Handle(OUTPUT, 2),
    ("wasi:cli/terminal-stdin", "get-terminal-stdin"): _nothing,
    ("wasi:cli/terminal-stdout", "get-terminal-stdout"): _nothing,
    ("wasi:cli/terminal-stderr", "get-terminal-stderr"): _nothing,
    ("wasi:clocks/monotonic-clock", "now"): lambda _invocation: time.monotonic_ns(),
    ("wasi:clocks/monotonic-clock", "resolution"): lambda _invocation: 1,
    ("wasi:clocks/monotonic-clock", "subscribe-instant"): lambda _invocation, at: _pollable(at / 1e9),
    ("wasi:clocks/monotonic-clock", "subscribe-duration"): lambda _invocation, ns: _pollable(
        time.monotonic() + ns / 1e9
    ),
    ("wasi:clocks/wall-clock", "now"): _wall_now,
    ("wasi:clocks/wall-clock", "resolution"): lambda _invocation: {"seconds": 0, "nanoseconds": 1},
    ("wasi:filesystem/preopens", "get-directories"): _empty,
    ("wasi:filesystem/types", "filesystem-error-code"): _nothing,
    ("wasi:io/error", "[method]error.to-debug-string"): lambda _invocation, _error: "closed",
    ("wasi:io/poll", "[method]pollable.ready"): lambda _invocation, one: _ready_at(one.rep) <= time.monotonic(),
    ("wasi:io/poll", "[method]pollable.block"): _block,
    ("wasi:io/poll", "poll"): _poll,
    ("wasi:io/streams", f"{_OUT}check-write"): lambda _invocation, _stream: Ok(WRITE_BYTES),
    ("wasi:io/streams", f"{_OUT}write"): _write,
    ("wasi:io/streams", f"{_OUT}blocking-write-and-flush"): _write,
    ("wasi:io/streams", f"{_OUT}flush"): _ok,
    ("wasi:io/streams", f"{_OUT}blocking-flush"): _ok,
    ("wasi:io/streams", f"{_OUT}write-zeroes"): _write_zeroes,
    ("wasi:io/streams", f"{_OUT}blocking-write-zeroes-and-flush"): _write_zeroes,
    ("wasi:io/streams", f"{_OUT}subscribe"): lambda _invocation, _stream: Handle(POLLABLE, 0),
    ("wasi:io/streams", f"{_IN}read"): _closed,
    ("wasi:io/streams", f"{_IN}blocking-read"): _closed,
    ("wasi:io/streams", f"{_IN}skip"): _closed,
    ("wasi:io/streams", f"{_IN}blocking-skip"): _closed,
    ("wasi:io/streams", f"{_IN}subscribe"): lambda _invocation, _stream: Handle(POLLABLE, 0),
    ("wasi:random/random", "get-random-bytes"): _random_bytes,
    ("wasi:random/random", "get-random-u64"): _random_u64,
    ("wasi:random/insecure", "get-insecure-random-bytes"): _random_bytes,
    ("wasi:random/insecure", "get-insecure-random-u64"): _random_u64,
    ("wasi:random/insecure-seed", "insecure-seed"): lambda invocation: (
        _random_u64(invocation),
        _random_u64(invocation),
    ),
    ("wasi:sockets/instance-network", "instance-network"): lambda _invocation: Handle(NETWORK, 0),
    ("wasi:sockets/tcp-create-socket", "create-tcp-socket"): _access_denied,
    ("wasi:sockets/udp-create-socket", "create-udp-socket"): _access_denied,
    ("wasi:sockets/ip-name-lookup", "resolve-addresses"): _access_denied,
}
