"""Threads for runs, made when needed, up to a limit; one of them reads the host's messages.

The thread that reads a call runs it: a thread that must be woken costs more than a short call does. Another reads on
once the run has taken a moment or waits for the host. Of the threads that rest, the one used last is next: the
standard library's pool wakes its threads in turn, so that a hundred short runs in sequence would touch a hundred
stacks; here they touch one.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

# A guest may use 512 KiB of its thread's stack (wasmtime's default), under Python's own frames. Only what is touched
# costs memory.
STACK_BYTES: Final = 2 << 20
# How long a run may keep its thread from reading: far below what a caller notices, far above a short call.
PATIENCE_SECONDS: Final = 0.001
# After so many moments without a call, nobody looks until there is one.
_QUIET_MOMENTS: Final = 50
# How often `watch` looks whether a run must end: a fifth of what a person notices.
_WATCH_SECONDS: Final = 0.02

Task = Callable[[], None]


class Workers:
    """Reads tasks and runs them on at most `limit` threads; what is beyond waits in order.

    Args:
        limit: How many tasks run at once.
        next_task: Waits for the next task; None when there will be no more. Called by one thread at a time.
        watch: Called now and then while tasks run.
    """

    def __init__(
        self,
        limit: int,
        next_task: Callable[[], Task | None],
        *,
        watch: Callable[[], None] | None = None,
    ) -> None:
        self._limit = limit
        self._next_task = next_task
        self._watch = watch
        self._lock = threading.Lock()
        self._running = 0
        self._resting: list[threading.Lock] = []
        self._waiting: deque[Task] = deque()
        self._threads = 0
        # The thread that runs a task though it is its turn to read, and how many such there were.
        self._holder: tuple[int, int] | None = None
        self._held = 0
        self._asleep = False
        self._stir = threading.Event()
        self._ended = False
        self._fault: BaseException | None = None

    def serve(self) -> None:
        """Read and run until there are no more tasks. The thread that calls it only looks after the others.

        Raises:
            BaseException: What `next_task` raised.
        """
        self._start_thread()
        quiet, before, watched = 0, None, 0.0
        while not self._ended:
            if quiet < _QUIET_MOMENTS:
                time.sleep(PATIENCE_SECONDS)
            else:
                self._sleep()
            holder = self._holder
            if holder is not None and holder == before:
                self._pass_on(holder)
            quiet = quiet + 1 if holder is None else 0
            before = holder
            if self._watch is not None and self._running and (now := time.monotonic()) - watched >= _WATCH_SECONDS:
                watched = now
                self._watch()
        if self._fault is not None:
            raise self._fault

    def yield_reading(self) -> None:
        """Let another thread read on: the run of this one waits for the host."""
        holder = self._holder
        if holder is not None and holder[0] == threading.get_ident():
            self._pass_on(holder)

    def _sleep(self) -> None:
        self._asleep = True
        if self._holder is None and not self._ended:
            self._stir.wait(_WATCH_SECONDS if self._watch is not None and self._running else None)
        self._stir.clear()
        self._asleep = False

    def _start_thread(self) -> None:
        self._threads += 1
        threading.Thread(target=self._loop, name=f"run-{self._threads}", daemon=True).start()

    def _loop(self) -> None:
        turn = threading.Lock()
        turn.acquire()
        thread = threading.get_ident()
        while True:
            try:
                task = self._read(thread)
            except BaseException as error:  # told by the thread that waits in `serve`
                self._fault = error
                task = None
            if task is None:
                self._ended = True
                self._stir.set()
                return
            task()
            while not self._reads_on(thread):
                with self._lock:
                    task = self._waiting.popleft() if self._waiting else None
                    if task is None:
                        self._running -= 1
                        self._resting.append(turn)
                if task is None:
                    turn.acquire()
                    break
                task()

    def _read(self, thread: int) -> Task | None:
        """The next task for this thread; None at the end."""
        while (task := self._next_task()) is not None:
            with self._lock:
                if self._running < self._limit:
                    self._running += 1
                    self._held += 1
                    self._holder = (thread, self._held)
                    break
                self._waiting.append(task)
        else:
            return None
        if self._asleep:
            self._stir.set()
        return task

    def _reads_on(self, thread: int) -> bool:
        """Whether it is still this thread's turn to read; then its task is counted as ended."""
        with self._lock:
            if self._holder is None or self._holder[0] != thread:
                return False
            self._holder = None
            self._running -= 1
            return True

    def _pass_on(self, holder: tuple[int, int]) -> None:
        """Let another thread read, if it is still the holder's turn."""
        with self._lock:
            if self._holder != holder:
                return
            self._holder = None
            successor = self._resting.pop() if self._resting else None
        if successor is None:
            self._start_thread()
        else:
            successor.release()
