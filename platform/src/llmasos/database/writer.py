"""The process's one writer: small writes from every thread and task, many in one commit.

Each write runs in a savepoint of its own: one that fails takes nothing of the others with it. One that only fills
buffers (`Transaction.buffer`) needs none; they are written before the next savepoint and at the end of the batch.
Writes run in the order in which they were submitted.

Two ways lead to a commit. Where nobody else writes, the hot writes of a task are committed by its own event loop, at
once: a commit to SQLite's log takes 50 µs and waits for no disk, a hand-over to another thread and back takes several
times that. What nobody waits for lingers for a moment, and shares the commit of the next write that somebody does
wait for. Where another process or thread is writing, or much is waiting, or the disk was slow a moment ago, the
writer's thread takes over, and what comes while one of its commits runs shares the next.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from llmasos.database.pending import Pending, resolve
from llmasos.database.transaction import Row, SqlValue, Transaction
from llmasos.errors import Unavailable
from llmasos.machine import told_of_database

if TYPE_CHECKING:
    from llmasos.database.engine import Database

__all__ = ["Pending", "Row", "SqlValue", "Transaction", "Writer"]

logger = logging.getLogger(__name__)

T = TypeVar("T")

# A hot write takes about 50 µs, so a full batch holds the lock for 3 ms; sixteen processes in turn, for 50.
BATCH = 64
# An event loop spends at most a millisecond on writing before it looks at anything else.
BATCH_OF_LOOP = 16
# Past this many waiting writes, new ones are refused: at 20,000 a second they would wait for longer than a second.
MAX_WAITING = 20_000
# How long a write that nobody waits for may wait for one that it can share a commit with.
LINGER_SECONDS = 0.02
# A commit that took an event loop so long met a slow disk: for a while the thread does them.
SLOW_SECONDS, SLOW_FOR_SECONDS = 0.02, 1.0
# How often a database that takes no writes is tried again.
AGAIN_SECONDS = 1.0
# Moving the log into the database waits for the disk several times, 5 ms and more each: rarely, so that it costs a
# write 10 µs, and by the thread. So many writes fill about 16 MiB. SQLite itself comes in only where large values
# filled the log before.
CHECKPOINT_WRITES, CHECKPOINT_PAGES = 1200, 8000
_MOVE_LOG = "PRAGMA wal_checkpoint(PASSIVE)"


class _Periodic:
    def __init__(self, seconds: float, work: Callable[[Transaction], object]) -> None:
        self.seconds = seconds
        self.work = work
        self.due = time.monotonic() + seconds


class Writer:
    """Runs submitted writes, in order, many in one commit. `Database.writer` holds the process's only one."""

    def __init__(self, database: Database) -> None:
        self.lock = threading.Lock()
        self._database = database
        self._queue: deque[Pending[Any]] = deque()
        self._signals: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._periodic: list[_Periodic] = []
        self._closed = False
        # Who is in the gate may take from the queue and use the connection; nobody else.
        self._transaction: Transaction | None = None
        self._since_checkpoint = 0
        self._loops_may = database.gate.is_of_file
        self._loops_may_from = 0.0
        self._committed_by: asyncio.AbstractEventLoop | None = None
        self._turn_waits = False
        # Whether the last commit failed, and something waits for the next.
        self._fails = False
        self._linger_of: asyncio.AbstractEventLoop | None = None
        self._linger_timer: asyncio.TimerHandle | None = None
        self._thread = threading.Thread(target=self._serve, name="llmasos-writer", daemon=True)
        self._thread.start()

    def submit(
        self,
        work: Callable[[Transaction], T],
        *,
        essential: bool = False,
        hot: bool = False,
        buffered: bool = False,
    ) -> Pending[T]:
        """Queue a write; it runs in the writer's thread, or, if it is hot, in an event loop's.

        Args:
            work: Gets the transaction; what it returns is the value of the pending.
            essential: Never refused for a long queue: it frees what others wait for.
            hot: It takes microseconds, whatever it is given.
            buffered: It writes by `Transaction.buffer` alone, and fails, if it does, before it changes anything:
                on SQLite it needs no savepoint. On PostgreSQL any statement may fail for what others do.

        Raises:
            Unavailable: Too many writes wait, or the writer is closed.
        """
        if self._closed:
            raise Unavailable("The host is closing; try again when it runs.", zh="主机正在关闭：请在其运行后重试。")
        if not essential and len(self._queue) > MAX_WAITING:
            raise Unavailable(
                "Too many writes wait for the database; try again in a few seconds.",
                zh="等待写入数据库的请求过多：请几秒后重试。",
            )
        pending = Pending(self, work, hot, buffered)
        self._queue.append(pending)
        if not (hot and self._loops_may and self._linger()):
            self.wake()
        return pending

    def post(
        self, work: Callable[[Transaction], object], *, hot: bool = False, buffered: bool = False
    ) -> Pending[object]:
        """Queue a write that nobody waits for, and that must not be lost; the log is told if it fails.

        While the database takes no writes (the disk is full, another program holds it) it is tried again and again,
        before all that was queued after it.
        """
        pending = self.submit(_reported(work), essential=True, hot=hot, buffered=buffered)
        pending.posted = True
        return pending

    def post_soon(self, work: Callable[[Transaction], object]) -> Pending[object]:
        """`post` a hot, buffered write; the running loop commits it in its next turn instead of a moment later."""
        pending = self.post(work, hot=True, buffered=True)
        loop = asyncio.get_running_loop()
        loop.call_soon(self.hurry, loop)
        return pending

    def catch_up(self) -> None:
        """Commit what is queued, so that who reads next sees it; where another process writes, after it."""
        while self._queue:
            if not self._commit_here(_running_loop()):
                self.wake()
                break

    async def drained(self) -> None:
        """Wait until what is queued is committed, or has failed."""
        # Also where the queue is empty: the thread may be in the middle of a commit.
        with suppress(Unavailable):
            await self.submit(_nothing, essential=True, hot=True, buffered=True)

    def every(self, seconds: float, work: Callable[[Transaction], object]) -> Callable[[], None]:
        """Run a write again and again, also while nothing else happens. Answers a function that ends it."""
        periodic = _Periodic(seconds, work)
        self._periodic.append(periodic)
        # The thread may be in an endless wait that was begun when there was nothing periodic.
        self.wake()

        def end() -> None:
            if periodic in self._periodic:
                self._periodic.remove(periodic)

        return end

    def close(self) -> None:
        """Commit what is queued, and end the thread. Safe to call twice."""
        self._closed = True
        self.wake()
        if self._thread is not threading.current_thread():
            self._thread.join()
        late = tuple(self._queue)
        self._queue.clear()
        for pending in late:
            pending.fail(
                Unavailable(
                    "The host closed before it was written; try again when it runs.",
                    zh="写入之前主机已关闭：请在其运行后重试。",
                )
            )
        resolve(late)

    # The half of the event loops.

    def hurry(self, loop: asyncio.AbstractEventLoop) -> None:
        """A task of this loop waits for what it submitted.

        The first of a turn of the loop is committed at once; the others of that turn share one commit after it.
        """
        if self._committed_by is loop:
            self._turn_waits = True
        elif self._commit_here(loop):
            self._committed_by = loop
            loop.call_soon(self._end_turn, loop)
        else:
            self.wake()

    def wake(self) -> None:
        """Have the thread commit what is queued."""
        self._signals.put(None)

    def _end_turn(self, loop: asyncio.AbstractEventLoop) -> None:
        self._committed_by = None
        if self._turn_waits:
            self._turn_waits = False
            if not self._commit_here(loop):
                self.wake()

    def _linger(self) -> bool:
        """Have this thread's loop see to the queue in a moment; False where it has none."""
        loop = _running_loop()
        if loop is None:
            return False
        if self._linger_of is not loop:
            self._linger_of = loop
            self._linger_timer = loop.call_later(LINGER_SECONDS, self._end_linger, loop)
        return True

    def _end_linger(self, loop: asyncio.AbstractEventLoop) -> None:
        self._linger_of = self._linger_timer = None
        if self._queue and not self._commit_here(loop):
            self.wake()

    def _commit_here(self, loop: asyncio.AbstractEventLoop | None) -> bool:
        """Commit the hot writes that are first in the queue; False where that cannot be done at once, or failed."""
        began = time.monotonic()
        if not self._loops_may or self._since_checkpoint >= CHECKPOINT_WRITES or began < self._loops_may_from:
            return False
        if not self._database.gate.enter_at_once():
            return False
        batch: list[Pending[Any]] = []
        try:
            transaction = self._transaction
            if transaction is None or not transaction.begins():
                return False
            while self._queue and self._queue[0].hot and len(batch) < BATCH_OF_LOOP:
                batch.append(self._queue.popleft())
            self._run(transaction, batch)
        except BaseException as error:
            self._fail(batch, error)
            if not isinstance(error, Exception):
                raise
        finally:
            self._database.gate.leave()
            resolve(batch, loop)
        ended = time.monotonic()
        if ended - began > SLOW_SECONDS:
            self._loops_may_from = ended + SLOW_FOR_SECONDS
        if self._queue or self._since_checkpoint >= CHECKPOINT_WRITES:
            self.wake()
        elif self._linger_of is loop and self._linger_timer is not None:
            # It would wake the loop for nothing.
            self._linger_timer.cancel()
            self._linger_of = self._linger_timer = None
        return not self._fails

    # The half of the thread.

    def _serve(self) -> None:
        while True:
            self._wait()
            self._queue.extend(self._due())
            while self._queue:
                self._commit_in_thread()
                if self._fails and not self._closed:
                    break
            if self._since_checkpoint >= CHECKPOINT_WRITES and self._database.is_sqlite:
                self._checkpoint()
            if self._closed and not self._queue:
                break
        with self._database.gate:
            self._disconnect()

    def _wait(self) -> None:
        wait: float | None = None
        if self._periodic:
            wait = max(0.0, min(each.due for each in tuple(self._periodic)) - time.monotonic())
        if self._fails:
            wait = min(wait or AGAIN_SECONDS, AGAIN_SECONDS)
        with suppress(queue.Empty):
            self._signals.get(timeout=wait)
            while True:
                self._signals.get_nowait()

    def _due(self) -> list[Pending[Any]]:
        now = time.monotonic()
        due = [each for each in tuple(self._periodic) if each.due <= now]
        for each in due:
            each.due = now + each.seconds
        return [Pending(self, _reported(each.work)) for each in due]

    def _commit_in_thread(self) -> None:
        batch: list[Pending[Any]] = []
        with self._database.gate:
            try:
                if self._transaction is None:
                    self._transaction = self._connect()
                self._transaction.begin_in_turn()
                self._take(batch)
                self._run(self._transaction, batch)
            except BaseException as error:
                self._take(batch)
                self._fail(batch, error)
        resolve(batch)

    def _take(self, batch: list[Pending[Any]]) -> None:
        while self._queue and len(batch) < BATCH:
            batch.append(self._queue.popleft())

    def _checkpoint(self) -> None:
        """Move the log into the database, so that it can begin anew.

        The most of it is moved while others write; then only what they added keeps them waiting.
        """
        self._since_checkpoint = 0
        try:
            with self._database.engine.connect() as connection:
                connection.exec_driver_sql(_MOVE_LOG)
            with self._database.gate:
                transaction = self._transaction
                if transaction is None:
                    return
                _busy, pages, moved = transaction.all(_MOVE_LOG)[0]
                if pages == moved:
                    # The first write to a log that begins anew waits for the disk: here, not in somebody's call.
                    (version,) = transaction.all("PRAGMA user_version")[0]
                    transaction.run(f"PRAGMA user_version = {version}")
        except Exception as error:
            if "locked" not in str(error):
                logger.exception("the log of the database could not be moved into it; trying again later")

    # What both do, in the gate.

    def _run(self, transaction: Transaction, batch: list[Pending[Any]]) -> None:
        for pending in batch:
            pending.attempt(transaction)
        transaction.commit()
        self._since_checkpoint += len(batch)
        if self._fails:
            self._fails = False
            logger.warning("the database takes writes again")

    def _fail(self, batch: list[Pending[Any]], error: BaseException) -> None:
        """Tell who waits, and take from the batch what is tried again."""
        told, may_pass = told_of_database(error)
        posted = [pending for pending in batch if pending.posted]
        if posted and may_pass and not self._closed:
            if not self._fails:
                logger.error("the database takes no writes; those that nobody waits for are tried again: %s", told)
            self._fails = True
            self._queue.extendleft(reversed(posted))
            batch[:] = [pending for pending in batch if not pending.posted]
        elif posted:
            logger.error("%d writes that nobody waits for are lost: %s", len(posted), told)
        for pending in batch:
            pending.fail(told)
        self._disconnect()

    def _connect(self) -> Transaction:
        transaction = Transaction(self._database.engine.connect())
        if transaction.is_sqlite:
            # An event loop cannot wait for a lock; the thread asks again by itself.
            transaction.run("PRAGMA busy_timeout = 0")
            transaction.run(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
        return transaction

    def _disconnect(self) -> None:
        if self._transaction is not None:
            connection, self._transaction = self._transaction.connection, None
            # Its settings are its own: it does not go back to the pool.
            connection.invalidate()
            connection.close()


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _nothing(_transaction: Transaction) -> None:
    """The write of who waits for those before it."""


def _reported(work: Callable[[Transaction], object]) -> Callable[[Transaction], object]:
    """Nobody waits for it: the log is told where it fails."""

    def run(transaction: Transaction) -> object:
        try:
            return work(transaction)
        except Exception:
            logger.exception("a write in the background failed")
            raise

    return run
