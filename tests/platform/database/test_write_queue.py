"""The write queue: many writes in one commit, none of which can affect another or be lost."""

import asyncio
import sqlite3
import threading
import time
from pathlib import Path

import pytest
from sqlalchemy import event, text
from waiting import until

from llmasos.database.engine import Database
from llmasos.database.sqlite import CHECKPOINT_WRITES
from llmasos.database.transaction import Transaction
from llmasos.database.write_queue import MAX_WAITING, WriteKind
from llmasos.errors import Conflict, Unavailable


@pytest.fixture
def database(database: Database):
    place = "INTEGER PRIMARY KEY" if is_sqlite(database) else "SERIAL"
    with database.write() as session:
        session.connection().exec_driver_sql(f"CREATE TABLE n (place {place}, v INTEGER UNIQUE)")
    return database


@pytest.fixture
def sqlite_alone(database_kind: str) -> None:
    if database_kind != "sqlite":
        pytest.skip("it is about SQLite's file")


def is_sqlite(database: Database) -> bool:
    return database.engine.dialect.name == "sqlite"


def add(value: int):
    return lambda transaction: transaction.run("INSERT INTO n (v) VALUES (?)", value)


def values(database: Database) -> list[int]:
    with database.read() as session:
        return [row[0] for row in Transaction(session.connection()).all("SELECT v FROM n ORDER BY place")]


async def _awaited(pending):
    return await pending


async def outcomes_of(pending) -> list:
    return await asyncio.gather(*(_awaited(each) for each in pending), return_exceptions=True)


class Held:
    """Keeps the queue's thread busy, so that what is submitted meanwhile shares one commit."""

    def __init__(self, database: Database) -> None:
        self._free = threading.Event()
        self._begun = threading.Event()
        database.write_queue.submit(self._wait)
        self._begun.wait(30)

    def _wait(self, transaction: Transaction) -> None:
        self._begun.set()
        self._free.wait(30)

    def __enter__(self) -> None: ...

    def __exit__(self, *_exc: object) -> None:
        self._free.set()


async def test_writes_run_in_order_and_one_that_fails_harms_no_other(database: Database) -> None:
    def partly(transaction: Transaction) -> None:
        transaction.run("INSERT INTO n (v) VALUES (1000)")
        raise ValueError("mine alone")

    pending = [database.write_queue.submit(partly if n % 3 == 0 else add(n)) for n in range(200)]
    pending.append(database.write_queue.submit(add(1)))
    outcomes = await outcomes_of(pending)
    assert [isinstance(outcome, ValueError) for outcome in outcomes[:200]] == [n % 3 == 0 for n in range(200)]
    assert isinstance(outcomes[200], database.engine.dialect.dbapi.IntegrityError)
    assert values(database) == [n for n in range(200) if n % 3]


def test_threads_wait_for_the_commit(database: Database) -> None:
    seen: list[int] = []

    def work(n: int) -> None:
        database.write_queue.submit(add(n)).result()
        seen.append(database.lookup("SELECT count(*) FROM n WHERE v = ?", n)[0])

    threads = [threading.Thread(target=work, args=(n,)) for n in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [1] * 20


def test_sessions_and_queue_take_turns(database: Database) -> None:
    pending = []
    for n in range(50):
        pending.append(database.write_queue.submit(add(n)))
        with database.write() as session:
            session.connection().exec_driver_sql(f"INSERT INTO n (v) VALUES ({1000 + n})")
    assert [each.result() for each in pending] == [1] * 50
    assert len(values(database)) == 100


async def test_what_was_awaited_is_seen_by_every_reader(database: Database) -> None:
    """10-20: a reader of the same process sees what anybody was told, also while the queue is committing."""
    for n in range(50):
        waiting = [database.write_queue.submit(add(100 * n + i)) for i in range(20)]
        assert await waiting[0] == 1
        assert 100 * n in values(database)
    await outcomes_of(waiting)


@pytest.mark.usefixtures("sqlite_alone")
def test_another_program_that_holds_the_database_is_waited_for(database: Database) -> None:
    other = sqlite3.connect(database.url.removeprefix("sqlite:///"), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    pending = database.write_queue.submit(add(1))
    with pytest.raises(TimeoutError):
        pending.result(timeout_seconds=0.2)
    # Whoever reads does not wait, and nothing spins meanwhile (10-13).
    assert values(database) == []
    other.execute("COMMIT")
    other.close()
    assert pending.result(timeout_seconds=10) == 1


def test_closing_commits_what_is_queued_and_takes_nothing_more(database: Database) -> None:
    queue = database.write_queue
    queue.submit(lambda transaction: time.sleep(0.05))
    pending = [queue.submit(add(n)) for n in range(500)]
    queue.close()
    assert all(each.done for each in pending)
    assert values(database) == list(range(500))
    for kind in WriteKind:
        with pytest.raises(Unavailable):
            queue.submit(add(1), kind)


def test_a_queue_that_is_too_long_refuses_all_but_what_frees_and_what_happened(database: Database) -> None:
    with Held(database):
        for _ in range(MAX_WAITING + 100):
            try:
                database.write_queue.submit(lambda transaction: None)
            except Unavailable as error:
                assert "try again" in error.message
                break
        else:
            pytest.fail("it grew without a bound")
        with pytest.raises(Unavailable):
            database.write_queue.submit(add(1), WriteKind.BATCHED)
        kept = [
            database.write_queue.submit(add(kind), it)
            for kind, it in enumerate((WriteKind.HOUSEKEEPING, WriteKind.FINAL))
        ]
    assert [each.result() for each in kept] == [1, 1]


async def test_periodic_writes_run_also_while_nothing_else_does(database: Database) -> None:
    counted: list[int] = []
    end = database.write_queue.every(0.02, lambda transaction: counted.append(1))
    await until(lambda: len(counted) >= 3)
    end()
    seen = len(counted)
    await asyncio.sleep(0.1)
    assert len(counted) <= seen + 1


@pytest.mark.usefixtures("sqlite_alone")
async def test_the_log_of_the_database_begins_anew_from_time_to_time(database: Database) -> None:
    for n in range(3 * CHECKPOINT_WRITES):
        await database.write_queue.submit(add(n))
    log = Path(f"{database.url.removeprefix('sqlite:///')}-wal")
    # Each of these writes dirties two pages at least.
    assert log.stat().st_size < 2 * 4096 * 2 * CHECKPOINT_WRITES
    assert len(values(database)) == 3 * CHECKPOINT_WRITES


class Sum:
    """A buffer: writes one row for all that was added."""

    discarded = 0

    def __init__(self) -> None:
        self.total = 0

    def write(self, transaction: Transaction) -> None:
        transaction.run("INSERT INTO n (v) VALUES (?)", self.total)

    def discard(self) -> None:
        Sum.discarded += self.total


def adds(value: int):
    def work(transaction: Transaction) -> int:
        if value < 0:
            raise Conflict("before it adds anything")
        transaction.buffer(Sum).total += value
        return value

    return work


async def test_what_is_batched_is_written_once_and_before_what_follows(database: Database) -> None:
    def fails(transaction: Transaction) -> None:
        adds(1000)(transaction)
        raise ValueError

    submit = database.write_queue.submit
    with Held(database):
        pending = [submit(adds(n), WriteKind.BATCHED) for n in (1, 2, -1, 4)]
        pending += [submit(add(50)), submit(adds(20), WriteKind.FINAL), submit(fails)]
    outcomes = await outcomes_of(pending)
    assert [it if isinstance(it, int) else type(it) for it in outcomes] == [1, 2, Conflict, 4, 1, 20, ValueError]
    assert values(database) == [7, 50, 20]


async def test_of_a_batch_that_fails_only_the_write_at_fault_is_lost(database: Database) -> None:
    """10-10: each of the others is written, those that were never attempted too."""

    def breaks(transaction: Transaction) -> None:
        transaction.buffer(Sum).total += 7  # which is there already

    submit = database.write_queue.submit
    await submit(add(7))
    Sum.discarded = 0
    with Held(database):
        pending = [submit(adds(n), WriteKind.FINAL) for n in (100, 200)]
        pending += [submit(add(300)), submit(breaks, WriteKind.BATCHED), submit(add(400))]
        pending += [submit(adds(n), WriteKind.FINAL) for n in (500, 600)]
    outcomes = await outcomes_of(pending)
    assert [type(each) for each in outcomes] == [int, int, int, Unavailable, int, int, int]
    assert values(database) == [7, 100, 200, 300, 400, 500, 600]
    # What they had changed outside of the database in the first attempt was taken back.
    assert Sum.discarded >= 300


async def test_an_exit_in_the_middle_of_a_write_ends_that_write_alone(database: Database) -> None:
    def leaves(transaction: Transaction) -> None:
        transaction.run("INSERT INTO n (v) VALUES (1000)")
        raise SystemExit

    outcomes = await outcomes_of([database.write_queue.submit(work) for work in (add(1), leaves, add(2))])
    assert isinstance(outcomes[1], Unavailable)
    assert values(database) == [1, 2]


@pytest.mark.usefixtures("sqlite_alone")
async def test_a_final_write_is_retried_until_the_disk_has_room_and_its_waiter_fails_at_once(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    bound = ["PRAGMA max_page_count = 1"]
    event.listen(database.engine, "checkout", lambda connection, *_: connection.execute(bound[0]))
    queue = database.write_queue
    wide = "x" * 5_000_000
    harmless = queue.submit(add(1))
    filled = queue.submit(lambda it: it.run("INSERT INTO n (v) VALUES (CAST(? AS BLOB))", wide))
    final = queue.submit(lambda it: it.run("CREATE TABLE happened AS SELECT ? AS what", wide), WriteKind.FINAL)
    outcomes = await outcomes_of([filled, final])
    assert all(isinstance(each, Exception) for each in outcomes)
    assert isinstance(outcomes[1], Unavailable)
    assert await harmless == 1
    assert database.lookup("SELECT 1 FROM sqlite_master WHERE name = 'happened'") is None
    bound[0] = "PRAGMA max_page_count = 1000000"
    await queue.submit(lambda it: it.all(bound[0]))
    for _ in range(100):
        if database.lookup("SELECT 1 FROM sqlite_master WHERE name = 'happened'"):
            break
        await asyncio.sleep(0.05)
    assert database.lookup("SELECT length(what) FROM happened") == (5_000_000,)
    assert [record.levelname for record in caplog.records if "takes no writes" in record.message] == ["ERROR"]


def test_a_batch_whose_commit_fails_is_run_again_write_by_write(database: Database) -> None:
    """10-10, at the commit itself."""
    failures = [1]
    queue = database.write_queue
    queue.submit(lambda transaction: None).result()

    def fail_once(transaction: Transaction) -> None:
        if failures:
            failures.pop()
            raise OSError("the commit failed")

    class AtCommit:
        def write(self, transaction: Transaction) -> None:
            fail_once(transaction)

        def discard(self) -> None: ...

    with Held(database):
        work = (add(1), lambda it: it.buffer(AtCommit) and None, add(2))
        pending = [queue.submit(each, WriteKind.BATCHED) for each in work]
    assert [each.result() for each in pending] == [1, None, 1]
    assert values(database) == [1, 2]


@pytest.mark.usefixtures("sqlite_alone")
def test_nothing_is_begun_while_nothing_is_to_be_written(database: Database) -> None:
    """10-13: reading while another program writes begins no transaction of its own."""
    begun: list[str] = []
    event.listen(database.engine, "before_cursor_execute", lambda *a: begun.append(a[2]))
    other = sqlite3.connect(database.url.removeprefix("sqlite:///"), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    pending = database.write_queue.submit(add(1))
    begun.clear()
    values(database)
    assert begun == ["BEGIN"]
    other.execute("COMMIT")
    other.close()
    assert pending.result(10) == 1


@pytest.fixture
def postgresql_alone(database_kind: str) -> None:
    if database_kind != "postgresql":
        pytest.skip("it is about a server's connection")


def backend_of(database: Database) -> int:
    return database.write_queue.submit(lambda it: it.one("SELECT pg_backend_pid()")).result()[0]


def end_backend(database: Database, pid: int) -> None:
    with database.engine.connect() as connection:
        connection.execute(text(f"SELECT pg_terminate_backend({pid}, 10000)"))


@pytest.mark.usefixtures("postgresql_alone")
async def test_a_connection_that_the_server_ended_is_made_anew(database: Database) -> None:
    end_backend(database, backend_of(database))
    assert await database.write_queue.submit(add(1)) == 1

    def ended_meanwhile(transaction: Transaction) -> None:
        transaction.run("INSERT INTO n (v) VALUES (2)")
        if not ended:
            ended.append(1)
            end_backend(database, transaction.one("SELECT pg_backend_pid()")[0])

    ended: list[int] = []
    with Held(database):
        pending = [database.write_queue.submit(work) for work in (ended_meanwhile, add(3))]
    await outcomes_of(pending)
    assert await pending[1] == 1
    assert values(database) == [1, 2, 3]


@pytest.mark.usefixtures("postgresql_alone")
@pytest.mark.parametrize("made", [True, False])
async def test_a_commit_whose_answer_is_lost_is_neither_lost_nor_repeated(
    database: Database, made: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """10: a settlement that is repeated would charge twice."""
    run, commits = Transaction.run, []

    def breaks(transaction: Transaction, sql: str, *values: object) -> int:
        if sql == "COMMIT":
            commits.append(sql)
        # The first is that of the write which keeps the queue busy.
        if sql == "COMMIT" and len(commits) == 2:
            if made:
                run(transaction, sql)
            end_backend(database, transaction.connection.connection.driver_connection.info.backend_pid)
            raise ConnectionError("the server's answer never came")
        return run(transaction, sql, *values)

    await database.write_queue.submit(lambda it: None)
    monkeypatch.setattr(Transaction, "run", breaks)
    with Held(database):
        pending = [database.write_queue.submit(adds(n), WriteKind.FINAL) for n in (1, 2, 4)]
    assert await outcomes_of(pending) == [1, 2, 4]
    assert sum(values(database)) == 7
    assert len(commits) == (2 if made else 5)
