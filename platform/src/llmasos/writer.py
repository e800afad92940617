"""The process's one writer: small writes from every thread and task, many in one commit.

A commit costs the same for one write as for a hundred, so what comes while one commit runs shares the next. Each
write runs in a savepoint of its own: one that fails takes nothing of the others with it. Writes run in the order in
which they were submitted.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections.abc import Callable, Generator, Hashable, Iterable, Sequence
from datetime import date, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar, cast

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from llmasos.db import WriteSession
from llmasos.errors import Unavailable

if TYPE_CHECKING:
    from llmasos.db import Database

logger = logging.getLogger(__name__)

SqlValue: TypeAlias = str | int | float | bool | datetime | date | bytes | None
Row: TypeAlias = tuple[Any, ...]
T = TypeVar("T")

# A hot write takes about 50 µs, so a full batch holds the lock for 3 ms; sixteen processes in turn, for 50.
BATCH = 64
# Past this many waiting writes, new ones are refused: at 20,000 a second they would wait for longer than a second.
MAX_WAITING = 20_000
# How long a writer asks for a lock that another program (a backup, a shell) holds, before it gives up.
BUSY_SECONDS = 30.0


class Transaction:
    """An open write transaction on the driver's own connection, for statements too hot for the ORM.

    Statements are the SQL that SQLite and PostgreSQL share, with `?` for parameters. `memo` lasts as long as the
    transaction: it saves repeated reads of what no other transaction can change meanwhile.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.is_sqlite = connection.dialect.name == "sqlite"
        self.memo: dict[Hashable, Any] = {}
        self._cursor = cast("Any", connection.connection.driver_connection).cursor()
        self._marks = connection.dialect.paramstyle
        self.for_update = "" if self.is_sqlite else " FOR UPDATE"

    @classmethod
    def of(cls, session: WriteSession) -> Transaction:
        """The transaction that a session has open, after what it still held back is written."""
        session.flush()
        return cls(session.connection())

    def run(self, sql: str, *values: SqlValue) -> int:
        """Execute a statement; how many rows it touched."""
        self._cursor.execute(_marked(sql, self._marks), values)
        return cast("int", self._cursor.rowcount)

    def run_many(self, sql: str, rows: Iterable[Sequence[SqlValue]]) -> int:
        """Execute a statement once a row; how many rows they touched together."""
        self._cursor.executemany(_marked(sql, self._marks), rows)
        return cast("int", self._cursor.rowcount)

    def all(self, sql: str, *values: SqlValue) -> list[Row]:
        """Every row that a statement answers."""
        self._cursor.execute(_marked(sql, self._marks), values)
        return cast("list[Row]", self._cursor.fetchall())

    def one(self, sql: str, *values: SqlValue) -> Row | None:
        """The first row that a statement answers."""
        rows = self.all(sql, *values)
        return rows[0] if rows else None

    def session(self) -> WriteSession:
        """A session inside this transaction; flush it before the end. It cannot commit."""
        return WriteSession(self.connection, join_transaction_mode="rollback_only")

    def moment(self, at: datetime) -> SqlValue:
        """A moment, in UTC, as its column keeps it."""
        return at.replace(tzinfo=None).isoformat(sep=" ", timespec="microseconds") if self.is_sqlite else at

    def day(self, day: date) -> SqlValue:
        """A day as its column keeps it."""
        return day.isoformat() if self.is_sqlite else day

    def undo(self) -> None:
        """Take back what this write did so far; it goes on from its start."""
        self.run("ROLLBACK TO SAVEPOINT write_of_batch")
        self.memo.clear()


@lru_cache(maxsize=512)
def _marked(sql: str, marks: str) -> str:
    return sql if marks == "qmark" else sql.replace("%", "%%").replace("?", "%s")


class Pending(Generic[T]):
    """A write that was submitted. `await` it in a task, or call `result()` in a thread: both wait for the commit."""

    __slots__ = ("_done", "_error", "_finished", "_loop", "_then", "_value", "_waiter", "_writer", "work")

    def __init__(self, writer: Writer, work: Callable[[Transaction], T]) -> None:
        self.work = work
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
        if self._finished is not None and not self._finished.wait(timeout_seconds):
            raise TimeoutError
        return self._outcome()

    def __await__(self) -> Generator[Any, None, T]:
        with self._writer.lock:
            if not self._done:
                self._loop = asyncio.get_running_loop()
                self._waiter = self._loop.create_future()
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
        """Run it in a savepoint."""
        transaction.run("SAVEPOINT write_of_batch")
        try:
            self._value = self.work(transaction)
        except BaseException as error:
            self._error = error
            transaction.run("ROLLBACK TO SAVEPOINT write_of_batch")
            # It may remember rows that no longer are.
            transaction.memo.clear()
        transaction.run("RELEASE SAVEPOINT write_of_batch")

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
        self._queue: queue.SimpleQueue[Pending[Any] | None] = queue.SimpleQueue()
        self._periodic: list[_Periodic] = []
        self._closed = False
        self._thread = threading.Thread(target=self._serve, name="llmasos-writer", daemon=True)
        self._thread.start()

    def submit(self, work: Callable[[Transaction], T], *, essential: bool = False) -> Pending[T]:
        """Queue a write; it runs in the writer's thread.

        Args:
            work: Gets the transaction; what it returns is the value of the pending.
            essential: Never refused for a long queue: it frees what others wait for.

        Raises:
            Unavailable: Too many writes wait, or the writer is closed.
        """
        if self._closed:
            raise Unavailable("The host is closing; try again when it runs.")
        if not essential and self._queue.qsize() > MAX_WAITING:
            raise Unavailable("Too many writes wait for the database; try again in a few seconds.")
        pending = Pending(self, work)
        self._queue.put(pending)
        return pending

    def post(self, work: Callable[[Transaction], object]) -> Pending[object]:
        """Queue a write that nobody waits for, and that must not be refused; the log is told if it fails."""
        return self.submit(_reported(work), essential=True)

    def every(self, seconds: float, work: Callable[[Transaction], object]) -> Callable[[], None]:
        """Run a write again and again, also while nothing else happens. Answers a function that ends it."""
        periodic = _Periodic(seconds, work)
        self._periodic.append(periodic)
        # The thread may be in an endless wait that was begun when there was nothing periodic.
        self._queue.put(Pending(self, lambda _transaction: None))

        def end() -> None:
            if periodic in self._periodic:
                self._periodic.remove(periodic)

        return end

    def close(self) -> None:
        """Commit what is queued, and end the thread. Safe to call twice."""
        if not self._closed:
            self._closed = True
            self._queue.put(None)
        if self._thread is not threading.current_thread():
            self._thread.join()

    def _serve(self) -> None:
        connection: Connection | None = None
        open_ = True
        while open_:
            batch, open_ = self._take()
            batch += self._due()
            if not batch:
                continue
            try:
                if connection is None:
                    connection = self._database.engine.connect()
                self._commit(connection, batch)
            except BaseException as error:
                if not isinstance(error, DBAPIError | OSError) and not _is_driver_error(error):
                    logger.exception("a batch of %d writes failed", len(batch))
                for pending in batch:
                    pending.fail(Unavailable(f"The database does not take writes: {_first_line(error)}"))
                if connection is not None:
                    connection.invalidate()
                    connection.close()
                    connection = None
            _resolve(batch)
        if connection is not None:
            connection.close()

    def _take(self) -> tuple[list[Pending[Any]], bool]:
        """What waits, at most a batch; and whether the writer stays open."""
        wait: float | None = None
        if self._periodic:
            wait = max(0.0, min(each.due for each in tuple(self._periodic)) - time.monotonic())
        batch: list[Pending[Any]] = []
        try:
            while len(batch) < BATCH:
                item = self._queue.get(timeout=wait) if not batch else self._queue.get_nowait()
                if item is None:
                    return batch + self._rest(), False
                batch.append(item)
        except queue.Empty:
            pass
        return batch, True

    def _rest(self) -> list[Pending[Any]]:
        rest: list[Pending[Any]] = []
        while not self._queue.empty():
            item = self._queue.get_nowait()
            if item is not None:
                rest.append(item)
        return rest

    def _due(self) -> list[Pending[Any]]:
        now = time.monotonic()
        due = [each for each in tuple(self._periodic) if each.due <= now]
        for each in due:
            each.due = now + each.seconds
        return [Pending(self, _reported(each.work)) for each in due]

    def _commit(self, connection: Connection, batch: list[Pending[Any]]) -> None:
        with self._database.gate:
            connection.begin()
            transaction = Transaction(connection)
            if transaction.is_sqlite:
                _begin_immediately(transaction)
            for pending in batch:
                pending.attempt(transaction)
            connection.commit()


def _reported(work: Callable[[Transaction], object]) -> Callable[[Transaction], object]:
    """Nobody waits for it: the log is told where it fails."""

    def run(transaction: Transaction) -> object:
        try:
            return work(transaction)
        except Exception:
            logger.exception("a write in the background failed")
            raise

    return run


def _begin_immediately(transaction: Transaction) -> None:
    # The connection waits by itself (busy_timeout); what remains is a lock in the middle of recovery, which it
    # reports at once.
    give_up = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            transaction.run("BEGIN IMMEDIATE")
        except Exception as error:
            if "locked" not in str(error) or time.monotonic() > give_up:
                raise
            time.sleep(0.005)
        else:
            return


def _is_driver_error(error: BaseException) -> bool:
    return any(cls.__name__ == "Error" and cls.__module__ in {"sqlite3", "psycopg"} for cls in type(error).__mro__)


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def _resolve(batch: list[Pending[Any]]) -> None:
    """Wake everyone who waits; one wake-up a loop, since each is a system call."""
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
