"""Threads for runs, made when needed, up to a limit; one of them reads the host's messages.

The thread that reads a call runs it, and a run that is alone reads the answers to its own calls: a thread that must be
woken costs more than a short call does. Another reads on once a run has kept its thread from reading for a moment, or
is no longer alone. Of the threads that rest, the one used last is next: the standard library's pool wakes its threads
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
# How long a run may keep its thread from reading: far below what a caller notices, far above a short call.
PATIENCE_SECONDS: Final = 0.001
# As long as each run is another one than the moment before, moments grow: each look costs the runs a little.
_LONGEST_MOMENT_SECONDS: Final = 0.008
# After so many moments without a run, nobody looks until there is one.
_QUIET_MOMENTS: Final = 50
# How often `watch` looks whether a run must end: a fifth of what a person notices.
_WATCH_SECONDS: Final = 0.02

Task = Callable[[], None]


class Workers:
    """Reads tasks and runs them on at most `limit` threads; what is beyond waits in order.

    Args:
        limit: How many tasks run at once.
        read: Waits for one message, so many seconds at most: the task that it is, or None; raises EOFError when there
            will be no more. Called by one thread at a time.
        watch: Called now and then while tasks run, with the thread that reads within its task, if one does: an
            exception that is raised in it from outside would lose what it reads. None begins to meanwhile.
    """

    def __init__(
        self,
        limit: int,
        read: Callable[[float | None], Task | None],
        *,
        watch: Callable[[int | None], None] | None = None,
    ) -> None:
        self._limit = limit
        self._read = read
        self._watch = watch
        self._lock = threading.Lock()
        self._running = 0
        self._resting: list[threading.Lock] = []
        self._queue: deque[Task] = deque()
        self._threads = 0
        # The thread that runs a task though it is its turn to read, and how many such there were.
        self._holder: tuple[int, int] | None = None
        self._held = 0
        # The thread that reads, or passes the reading on, within its task; one that waits in its task for another to.
        self._shielded: int | None = None
        self._waiter: int | None = None
        self._asleep = False
        self._stir = threading.Event()
        self._ended = False
        self._fault: BaseException | None = None

    def serve(self) -> None:
        """Read and run until there are no more tasks. The thread that calls it only looks after the others.

        Raises:
            BaseException: What `read` raised, but for EOFError.
        """
        self._start_thread()
        moment, quiet, before, watched = PATIENCE_SECONDS, 0, None, 0.0
        while not self._ended:
            if quiet < _QUIET_MOMENTS:
                time.sleep(moment)
            else:
                self._sleep()
                moment = PATIENCE_SECONDS
            holder = self._holder
            if holder is None:
                quiet += 1
            elif holder == before:
                self._pass_on(holder)
                moment, quiet = PATIENCE_SECONDS, 0
            else:
                moment, quiet = min(2 * moment, _LONGEST_MOMENT_SECONDS), 0
            before = holder
            if self._watch is not None and self._running and (now := time.monotonic()) - watched >= _WATCH_SECONDS:
                watched = now
                with self._lock:
                    self._watch(self._shielded)
        if self._fault is not None:
            raise self._fault

    def wait(self, news: threading.Lock, seconds: float) -> None:
        """Wait within a task, as in `runs.Wait`."""
        thread = threading.get_ident()
        try:
            with self._lock:
                holder = self._holder
                holds = holder is not None and holder[0] == thread
                alone = self._running == 1 and not self._queue
                if holds:
                    # What was raised here before strikes at the next call, before anything is read.
                    self._shielded = thread
                elif alone:
                    self._waiter = thread
            if holder is not None and holds:
                if alone:
                    self._read_within(holder, seconds)
                    return
                self._pass_on(holder)
        finally:
            if self._shielded == thread:
                self._shielded = None
        try:
            news.acquire(timeout=seconds)
        finally:
            self._waiter = None

    def _read_within(self, holder: tuple[int, int], seconds: float) -> None:
        """Read one message for the task of this thread, which holds the reading; another runs what is a new task."""
        with self._lock:
            if self._holder != holder:
                return
            self._holder = None
        task = self._message(seconds)
        if task is not None:
            self._queue.append(task)
        if self._ended:
            return
        with self._lock:
            holder = self._hold(holder[0])
        if task is not None:
            self._pass_on(holder)

    def _message(self, seconds: float | None) -> Task | None:
        """Read one message. At the end, and after a fault that the thread in `serve` tells, nobody reads again."""
        try:
            return self._read(seconds)
        except EOFError:
            pass
        except Exception as error:
            self._fault = error
        self._ended = True
        self._stir.set()
        return None

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
            task = self._next(thread, turn)
            while task is not None:
                task()
                if self._reads_on(thread):
                    break
                task = self._queued(turn)
            else:
                turn.acquire()

    def _next(self, thread: int, turn: threading.Lock) -> Task | None:
        """Read until there is a task for this thread; None when its turn to read is over, and it rests."""
        told = False
        while not self._ended:
            with self._lock:
                if self._queue and self._running < self._limit:
                    self._running += 1
                    self._hold(thread)
                    return self._queue.popleft()
                if told and self._waiter is not None and self._running == 1:
                    # Its answer has come, most likely, and it reads the next one by itself.
                    self._hold(self._waiter)
                    self._waiter = None
                    self._resting.append(turn)
                    return None
            task = self._message(None)
            if task is not None:
                self._queue.append(task)
            told = task is None
        return None

    def _queued(self, turn: threading.Lock) -> Task | None:
        """The task that waited longest; None when none does, and this thread rests."""
        with self._lock:
            if self._queue:
                return self._queue.popleft()
            self._running -= 1
            self._resting.append(turn)
            return None

    def _hold(self, thread: int) -> tuple[int, int]:
        """Note that the thread runs a task though it is its turn to read. The lock is held."""
        self._held += 1
        self._holder = holder = (thread, self._held)
        if self._asleep:
            self._stir.set()
        return holder

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
