"""Threads for runs: made when needed, up to a limit, and the one used last is used next.

The standard library's pool wakes its threads in turn, so that a hundred short runs in sequence would touch a hundred
stacks; here they touch one.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Final

# A guest may use 512 KiB of its thread's stack (wasmtime's default), under Python's own frames. Only what is touched
# costs memory.
STACK_BYTES: Final = 2 << 20

Task = Callable[[], None]


class Workers:
    """Runs tasks on at most `limit` threads; what is beyond waits in order."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._idle: list[_Worker] = []
        self._waiting: deque[Task] = deque()
        self._threads: list[threading.Thread] = []

    def submit(self, task: Task) -> None:
        """Run `task` as soon as a thread is free."""
        with self._lock:
            if self._idle:
                self._idle.pop().give(task)
            elif len(self._threads) < self._limit:
                worker = _Worker(self._next)
                worker.give(task)
                thread = threading.Thread(target=worker.loop, name=f"run-{len(self._threads)}", daemon=True)
                self._threads.append(thread)
                thread.start()
            else:
                self._waiting.append(task)

    def _next(self, worker: _Worker) -> Task | None:
        """Another task for a worker that is free; None once it is noted as idle."""
        with self._lock:
            if self._waiting:
                return self._waiting.popleft()
            self._idle.append(worker)
            return None


class _Worker:
    def __init__(self, next_task: Callable[[_Worker], Task | None]) -> None:
        self._next_task = next_task
        self._task: Task | None = None
        self._given = threading.Lock()
        self._given.acquire()

    def give(self, task: Task) -> None:
        self._task = task
        self._given.release()

    def loop(self) -> None:
        while True:
            self._given.acquire()
            task, self._task = self._task, None
            while task is not None:
                task()
                task = self._next_task(self)
