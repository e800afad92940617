"""A write that was submitted, and its waiters."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Generator, Iterable
from typing import Any, Generic, TypeVar, cast

from llmasos.database.transaction import Transaction

logger = logging.getLogger(__name__)

T = TypeVar("T")


class PendingWrite(Generic[T]):
    """A write that was submitted. `await` it in a task, or call `result()` in a thread: both wait for the commit."""

    __slots__ = (
        "_done",
        "_error",
        "_finished",
        "_lock",
        "_loop",
        "_then",
        "_value",
        "_waiter",
        "announce",
        "batched",
        "final",
        "work",
    )

    def __init__(
        self,
        work: Callable[[Transaction], T],
        batched: bool = False,
        final: bool = False,
        announce: Callable[[Transaction], object] | None = None,
    ) -> None:
        self.work = work
        self.batched = batched
        self.final = final
        self.announce = announce
        self._lock = threading.Lock()
        self._value: T | None = None
        self._error: BaseException | None = None
        self._done = False
        self._finished: threading.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._then: Callable[[T], object] | None = None

    @property
    def done(self) -> bool:
        """Whether it was committed, or has failed."""
        return self._done

    def result(self, timeout_seconds: float | None = None) -> T:
        """Wait for the commit and return the write's value.

        Raises:
            TimeoutError: It was not committed in time, but still may be.
            Exception: What the write raised; then nothing of it was written. A final write may still be written later.
        """
        with self._lock:
            if not self._done and self._finished is None:
                self._finished = threading.Event()
        if self._finished is not None and not self._finished.wait(timeout_seconds):
            raise TimeoutError
        return self._outcome()

    def __await__(self) -> Generator[Any, None, T]:
        if not self._done:
            with self._lock:
                if not self._done:
                    self._loop = asyncio.get_running_loop()
                    self._waiter = self._loop.create_future()
            if self._waiter is not None:
                yield from self._waiter
        return self._outcome()

    def then(self, action: Callable[[T], object]) -> None:
        """Call `action` with its value once it is committed; never if it fails."""
        with self._lock:
            if not self._done:
                self._then = action
                return
        if self._error is None:
            action(cast("T", self._value))

    def _outcome(self) -> T:
        if self._error is not None:
            raise self._error
        return cast("T", self._value)

    # The queue alone uses the rest.

    def reset(self) -> None:
        """Discard the outcome of an attempt that was rolled back."""
        if not self._done:
            self._value = self._error = None

    def succeed(self, value: T) -> None:
        """Record that it ran and is to be committed."""
        self._value = value

    def fail(self, error: BaseException) -> None:
        """Record that it raised, or was not committed."""
        self._error = self._error or error

    def finish(self) -> tuple[asyncio.AbstractEventLoop, asyncio.Future[None]] | None:
        """Wake a waiting thread; return the waiting task's future, to be woken with others of its loop."""
        with self._lock:
            if self._done:
                return None
            self._done = True
        if self._finished is not None:
            self._finished.set()
        if self._then is not None and self._error is None:
            self._then(cast("T", self._value))
        return (self._loop, self._waiter) if self._loop is not None and self._waiter is not None else None


def resolve(batch: Iterable[PendingWrite[Any]]) -> None:
    """Wake all waiters; one wake-up for each loop, since each is a system call."""
    loops: dict[asyncio.AbstractEventLoop, list[asyncio.Future[None]]] = {}
    for pending in batch:
        waiting = pending.finish()
        if waiting is not None:
            loops.setdefault(waiting[0], []).append(waiting[1])
    for loop, waiters in loops.items():
        try:
            loop.call_soon_threadsafe(_wake, waiters)
        except RuntimeError:
            logger.debug("a loop closed before its %d writes were done", len(waiters))


def _wake(waiters: list[asyncio.Future[None]]) -> None:
    for waiter in waiters:
        if not waiter.done():
            waiter.set_result(None)
