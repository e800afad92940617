"""Ends a guest that computes: at its deadline, or when it was cancelled, within one tick.

wasmtime's Python package has no public epoch callback; the C function `wasmtime_store_epoch_deadline_callback` is
stable and in its bindings. A thread raises the engine's epoch every tick while guests run; each guest then asks its
own invocation whether it is over. It works on code that instantiates too, so an endless start function ends as well.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, Final

import wasmtime

from llmasos_runner.engine_abi import CONTINUE, EPOCH_CALLBACK, NO_FINALIZER, ffi, new_error

# A person does not notice 10 ms, and a hundred wake-ups a second cost a busy runner nothing measurable.
TICK_SECONDS: Final = 0.010


# After so many ticks without a guest it rests until there is one. Waking it for each guest would cost a short one a
# tenth of its time.
_QUIET_TICKS: Final = 100


class Ticker:
    """Raises the engine's epoch while at least one guest runs, and for a second after."""

    def __init__(self, engine: wasmtime.Engine) -> None:
        self._engine = engine
        self._running = 0
        self._resting = True
        self._lock = threading.Lock()
        self._busy = threading.Event()
        self._closed = False
        self._thread = threading.Thread(target=self._tick, name="ticker", daemon=True)

    def start(self) -> None:
        """Start ticking; to be called once the process is confined, since threads made before are not."""
        self._thread.start()

    def __enter__(self) -> None:
        with self._lock:
            self._running += 1
            if self._resting:
                self._resting = False
                self._busy.set()

    def __exit__(self, *_exception: object) -> None:
        with self._lock:
            self._running -= 1

    def close(self) -> None:
        """Stop, and wait until the thread has left the engine."""
        self._closed = True
        self._busy.set()
        self._thread.join()

    def _tick(self) -> None:
        quiet = 0
        while not self._closed:
            quiet = 0 if self._running else quiet + 1
            if quiet > _QUIET_TICKS and self._rests():
                self._busy.wait()
                quiet = 0
            time.sleep(TICK_SECONDS)
            self._engine.increment_epoch()

    def _rests(self) -> bool:
        with self._lock:
            self._resting = self._running == 0
            if self._resting:
                self._busy.clear()
            return self._resting and not self._closed


def watch(store: wasmtime.Store, callback: Any) -> None:
    """Have `callback`, made by `on_tick`, asked at each tick while the store's guest computes."""
    ffi.wasmtime_store_epoch_deadline_callback(store.ptr(), callback, None, NO_FINALIZER)
    store.set_epoch_deadline(1)


def on_tick(is_over: Callable[[], bool]) -> Any:
    """A C callback that traps the guest if `is_over` returns True; it is called on the guest's own thread.

    It must be kept alive as long as a store may call it.
    """

    def callback(_context: Any, _data: Any, delta: Any, kind: Any) -> int:
        try:
            if is_over():
                return new_error("the invocation is over")
            delta[0] = 1
            kind[0] = CONTINUE
            return 0
        except BaseException:  # an exception cannot cross the engine; ending the guest is the safe choice
            return new_error("the invocation is over")

    return EPOCH_CALLBACK(callback)
