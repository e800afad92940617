"""A write that was submitted, and who waits for it."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
from collections.abc import Callable, Generator, Iterable
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from llmasos.database.transaction import Transaction

if TYPE_CHECKING:
    from llmasos.database.writer import Writer

logger = logging.getLogger(__name__)

T = TypeVar("T")


class Pending(Generic[T]):
    """A write that was submitted. `await` it in a task, or call `result()` in a thread: both wait for the commit."""

    __slots__ = (
        "_done",
        "_error",
        "_finished",
        "_loop",
        "_then",
        "_value",
        "_waiter",
        "_writer",
        "buffered",
        "hot",
        "posted",
        "work",
    )

    def __init__(
        self, writer: Writer, work: Callable[[Transaction], T], hot: bool = False, buffered: bool = False
    ) -> None:
        self.work = work
        self.hot = hot
        self.buffered = buffered
        self.posted = False
        self._writer = writer
        self._value: T | None = None
        self._error: BaseException | None = None
        self._done = False
        self._finished: threading.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._then: Callable[[T], object] | None = None

    @property
    def done(self) -> bool:
        """Whether it is committed, or has failed."""
        return self._done

    def result(self, timeout_seconds: float | None = None) -> T:
        """Its value, once it is committed.

        Raises:
            TimeoutError: It was not committed in time; it still may be.
            Exception: What the write raised; then nothing of it was written.
        """
        with self._writer.lock:
            if not self._done and self._finished is None:
                self._finished = threading.Event()
        if self._finished is not None:
            self._writer.wake()
            if not self._finished.wait(timeout_seconds):
                raise TimeoutError
        return self._outcome()

    def __await__(self) -> Generator[Any, None, T]:
        if not self._done:
            loop = asyncio.get_running_loop()
            if self.hot:
                self._writer.hurry(loop)
            with self._writer.lock:
                if not self._done:
                    self._loop = loop
                    self._waiter = loop.create_future()
            if self._waiter is not None:
                yield from self._waiter
        return self._outcome()

    def then(self, action: Callable[[T], object]) -> None:
        """Call `action` with its value once it is committed; not at all if it fails."""
        with self._writer.lock:
            if not self._done:
                self._then = action
                return
        if self._error is None:
            action(cast("T", self._value))

    def _outcome(self) -> T:
        if self._error is not None:
            raise self._error
        return cast("T", self._value)

    # The rest is the writer's.

    def attempt(self, transaction: Transaction) -> None:
        """Run it, in a savepoint unless it only fills buffers."""
        if self.buffered and transaction.is_sqlite:
            try:
                self._value = self.work(transaction)
            except sqlite3.Error:
                # The transaction may be gone, and what the others buffered with it.
                raise
            except Exception as error:
                self._error = error
            return
        transaction.open_savepoint()
        try:
            self._value = self.work(transaction)
            transaction.flush()
        except Exception as error:
            self._error = error
            transaction.undo()
        transaction.close_savepoint()

    def fail(self, error: BaseException) -> None:
        """It was not committed."""
        self._error = self._error or error

    def finish(self) -> tuple[asyncio.AbstractEventLoop, asyncio.Future[None]] | None:
        """Wake a waiting thread; answer the waiting task, to be woken with others of its loop."""
        with self._writer.lock:
            self._done = True
        if self._finished is not None:
            self._finished.set()
        if self._then is not None and self._error is None:
            self._then(cast("T", self._value))
        return (self._loop, self._waiter) if self._loop is not None and self._waiter is not None else None


def resolve(batch: Iterable[Pending[Any]], here: asyncio.AbstractEventLoop | None = None) -> None:
    """Wake everyone who waits; one wake-up a loop, since each is a system call, and none for the one that runs this."""
    loops: dict[asyncio.AbstractEventLoop, list[asyncio.Future[None]]] = {}
    for pending in batch:
        waiting = pending.finish()
        if waiting is None:
            continue
        if waiting[0] is here:
            _wake([waiting[1]])
        else:
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
