"""The process's one queue of small writes: every thread and task submits to it, and one thread commits many at once.

Writes run in the order of submission. A failing write does not affect others: ordinary writes run in
savepoints, and if a whole batch fails, each of its writes is retried in a transaction of its own.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from enum import Enum
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine

from llmasos.database.dialect import Dialect, Gate
from llmasos.database.pending_write import PendingWrite, resolve
from llmasos.database.transaction import Transaction, TransactionEnded
from llmasos.errors import LlmasosError, Unavailable
from llmasos.i18n import _
from llmasos.machine import known, told_of_database

logger = logging.getLogger(__name__)

T = TypeVar("T")

# A batched write takes about 20 µs, so a full batch holds SQLite's lock for 5 ms.
BATCH = 256
# Past this many waiting writes, new ones are refused: at 20,000 a second they would wait for over a second.
MAX_WAITING = 20_000
# How often a database that refuses writes is retried.
RETRY_SECONDS = 1.0


class WriteKind(Enum):
    """How a write runs, and what happens to it if it cannot."""

    ORDINARY = "ordinary"
    """Any statements, in a savepoint. It is refused while too many writes wait."""
    HOUSEKEEPING = "housekeeping"
    """The same, but never refused: it frees what others wait for."""
    BATCHED = "batched"
    """Only adds to the transaction's buffers; if it refuses, it raises a LlmasosError before it adds anything."""
    FINAL = "final"
    """A batched write of what happened already: never refused, and retried until the database takes it."""


class _Periodic:
    def __init__(self, seconds: float, work: Callable[[Transaction], object]) -> None:
        self.seconds = seconds
        self.work = work
        self.due_monotonic = time.monotonic() + seconds


class WriteQueue:
    """Runs submitted writes, in order, many in one commit. `Database.write_queue` is the process's only one."""

    def __init__(self, engine: Engine, dialect: Dialect, gate: Gate) -> None:
        self._engine = engine
        self._dialect = dialect
        self._gate = gate
        self._queue: queue.SimpleQueue[PendingWrite[Any] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._closed = False
        self._periodic: list[_Periodic] = []
        # Only the thread uses the rest.
        self._kept: list[PendingWrite[Any]] = []
        self._refused = False
        self._connection: Connection | None = None
        self._writes_since_upkeep = 0
        self._thread = threading.Thread(target=self._serve, name="llmasos-write-queue", daemon=True)
        self._thread.start()

    def submit(
        self,
        work: Callable[[Transaction], T],
        kind: WriteKind = WriteKind.ORDINARY,
        announce: Callable[[Transaction], object] | None = None,
    ) -> PendingWrite[T]:
        """Queue a write. It runs even if the caller ends.

        Args:
            work: Receives the transaction; its return value is the value of the pending write. It may run twice if the
                first transaction was rolled back.
            kind: How it runs, and what happens if it fails.
            announce: For a batched write: tells the buffers what `work` will need, so that the whole batch is read and
                locked at once, in one order.

        Raises:
            Unavailable: Too many writes wait, or the queue is closed.
        """
        may_be_refused = kind in {WriteKind.ORDINARY, WriteKind.BATCHED}
        if may_be_refused and self._queue.qsize() > MAX_WAITING:
            raise Unavailable(
                _("Too many writes wait for the database; try again in a few seconds."),
            )
        pending = PendingWrite(work, kind in {WriteKind.BATCHED, WriteKind.FINAL}, kind is WriteKind.FINAL, announce)
        with self._lock:
            if self._closed:
                raise Unavailable(_("The host is closing; try again when it runs."))
            self._queue.put(pending)
        return pending

    def every(self, seconds: float, work: Callable[[Transaction], object]) -> Callable[[], None]:
        """Run a write periodically, even while nothing else happens. Returns a function that stops it."""
        periodic = _Periodic(seconds, work)
        self._periodic.append(periodic)
        # The thread may be in an unbounded wait that began before anything was periodic.
        self._queue.put(None)

        def end() -> None:
            with suppress(ValueError):
                self._periodic.remove(periodic)

        return end

    def close(self) -> None:
        """Commit what is queued, and end the thread. Safe to call twice."""
        with self._lock:
            self._closed = True
            self._queue.put(None)
        if self._thread is not threading.current_thread():
            self._thread.join()

    # Everything below runs in the thread.

    def _serve(self) -> None:
        while True:
            closing = self._closed  # read first: everything submitted before is in the queue by now
            if batch := self._take():
                self._commit(batch)
            if closing and self._queue.empty():
                break
        self._disconnect()

    def _take(self) -> list[PendingWrite[Any]]:
        """Wait for writes; those kept for a retry come first, in order."""
        batch, self._kept = self._kept, []
        with suppress(queue.Empty):
            taken = self._queue.get(timeout=self._seconds_to_wait(bool(batch)))
            while len(batch) < BATCH:
                if taken is not None:
                    batch.append(taken)
                taken = self._queue.get_nowait()
            if taken is not None:
                batch.append(taken)
        now = time.monotonic()
        for periodic in tuple(self._periodic):
            if periodic.due_monotonic <= now:
                periodic.due_monotonic = now + periodic.seconds
                batch.append(PendingWrite(_logged(periodic.work)))
        return batch

    def _seconds_to_wait(self, keeps: bool) -> float | None:
        if self._closed:
            return 0
        waits = [max(0.0, each.due_monotonic - time.monotonic()) for each in tuple(self._periodic)]
        return min([*waits, RETRY_SECONDS] if keeps else waits, default=None)

    def _commit(self, batch: Sequence[PendingWrite[Any]]) -> None:
        """Run and commit writes in one transaction; if that fails, each in a transaction of its own."""
        began = False
        try:
            with self._gate, self._open() as transaction:
                began = True
                for each in batch:
                    each.reset()
                for run in _runs(batch):
                    _attempt(transaction, run)
        except BaseException as error:
            # The database cannot even begin a transaction: none of them can be written.
            if began and len(batch) > 1:
                for each in batch:
                    self._commit([each])
                return
            self._fail(batch, error)
        else:
            if self._refused and not self._kept:
                self._refused = False
                logger.warning("the database takes writes again")
        resolve(batch)
        self._upkeep(len(batch))

    @contextmanager
    def _open(self) -> Generator[Transaction]:
        connection, transaction_id = self._begin()
        transaction = Transaction(connection)
        committing = False
        try:
            yield transaction
            transaction.flush()
            committing = True
            transaction.run("COMMIT")
        except BaseException:
            try:
                transaction.run("ROLLBACK")
            except Exception:  # the connection is lost, or the transaction ended by itself
                self._disconnect()
                if committing and transaction_id and self._dialect.was_committed(self._engine, transaction_id):
                    logger.warning("the connection broke at a commit, which was made nevertheless")
                    return
            transaction.discard()
            raise

    def _begin(self) -> tuple[Connection, str | None]:
        """Return a connection with an open transaction, and the transaction's id."""
        if (connection := self._connection) is not None:
            try:
                return connection, self._dialect.begin_batch(connection)
            except LlmasosError:
                raise
            except Exception:  # a server may have closed the idle connection
                self._disconnect()
        connection = self._connection = self._dialect.connect_queue(self._engine)
        return connection, self._dialect.begin_batch(connection)

    def _fail(self, batch: Sequence[PendingWrite[Any]], error: BaseException) -> None:
        """Fail the waiters, and keep the final writes for a retry if one may succeed."""
        cause = error.__cause__ if isinstance(error, TransactionEnded) else None
        told, may_pass = told_of_database(cause or error)
        keep = may_pass and not self._closed
        final = [each for each in batch if each.final]
        if final and not keep:
            logger.error("%d writes of what happened are lost: %s", len(final), told)
        elif final and not self._refused:
            logger.error("the database takes no writes; what happened is written when it does: %s", told)
            self._refused = True
        if keep:
            self._kept += final
        for each in batch:
            each.fail(told)

    def _upkeep(self, writes: int) -> None:
        due = self._dialect.upkeep_writes
        self._writes_since_upkeep += writes
        if due is not None and self._writes_since_upkeep >= due and self._connection is not None:
            self._writes_since_upkeep = 0
            self._dialect.upkeep(self._connection, self._gate)

    def _disconnect(self) -> None:
        if self._connection is not None:
            connection, self._connection = self._connection, None
            with suppress(Exception):
                # The connection has settings of its own, so it does not return to the pool.
                connection.invalidate()
                connection.close()


def _runs(batch: Sequence[PendingWrite[Any]]) -> Iterator[Sequence[PendingWrite[Any]]]:
    """Group adjacent batched writes; the others stand alone."""
    start = 0
    for end, each in enumerate(batch):
        if not each.batched:
            if start < end:
                yield batch[start:end]
            yield batch[end : end + 1]
            start = end + 1
    if start < len(batch):
        yield batch[start:]


def _attempt(transaction: Transaction, run: Sequence[PendingWrite[Any]]) -> None:
    for each in run:
        if each.announce is not None:
            each.announce(transaction)
    for each in run:
        if each.batched:
            try:
                each.succeed(each.work(transaction))
            except LlmasosError as refusal:
                each.fail(refusal)
        else:
            # A failure of other writes' buffered changes fails the batch, not this write.
            transaction.flush()
            try:
                with transaction.savepoint():
                    each.succeed(each.work(transaction))
            except TransactionEnded:
                raise
            except Exception as error:
                each.fail(known(error))


def _logged(work: Callable[[Transaction], object]) -> Callable[[Transaction], object]:
    """Log its failure, as it has no waiter."""

    def run(transaction: Transaction) -> object:
        try:
            return work(transaction)
        except Exception:
            logger.exception("a periodic write failed")
            raise

    return run
