"""Threads that run tasks, started when they are needed, up to a limit; the calling thread reads the host's messages.

Of the threads that rest, the one that was used last runs the next task. The standard library's pool wakes its threads
in turn, so that a hundred short runs in sequence would touch a hundred stacks; here they touch one.
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
# How often `watch` looks for runs that must end: a fifth of what a person notices.
_WATCH_SECONDS: Final = 0.02

Task = Callable[[], None]


class Workers:
    """Reads tasks and runs them on at most `limit` threads; the others wait in order.

    Args:
        limit: How many tasks run at once.
        read: Waits for one message, for so many seconds at most, and returns the task that it is, or None. Raises
            EOFError when there will be no more.
        watch: Called now and then while tasks run.
    """

    def __init__(
        self, limit: int, read: Callable[[float | None], Task | None], *, watch: Callable[[], None] | None = None
    ) -> None:
        self._limit = limit
        self._read = read
        self._watch = watch
        self._lock = threading.Lock()
        self._queue: deque[Task] = deque()
        self._resting: list[threading.Lock] = []
        self._threads = 0

    def serve(self) -> None:
        """Read and run until there are no more tasks.

        Raises:
            Exception: What `read` raised, but for EOFError.
        """
        watched = 0.0
        while True:
            watches = self._watch is not None and len(self._resting) < self._threads
            try:
                task = self._read(_WATCH_SECONDS if watches else None)
            except EOFError:
                return
            if task is not None:
                self._run(task)
            if self._watch is not None and (now := time.monotonic()) - watched >= _WATCH_SECONDS:
                watched = now
                self._watch()

    def _run(self, task: Task) -> None:
        with self._lock:
            self._queue.append(task)
            if self._resting:
                self._resting.pop().release()
            elif self._threads < self._limit:
                self._threads += 1
                threading.Thread(target=self._work, name=f"run-{self._threads}", daemon=True).start()

    def _work(self) -> None:
        turn = threading.Lock()
        turn.acquire()
        while True:
            with self._lock:
                task = self._queue.popleft() if self._queue else None
                if task is None:
                    self._resting.append(turn)
            if task is None:
                turn.acquire()
            else:
                task()
