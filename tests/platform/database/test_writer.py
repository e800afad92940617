"""Sessions and the writer: many writes in one commit, none of which can hurt another."""

import asyncio
import sqlite3
import threading
import time
from pathlib import Path

import pytest
from sqlmodel import Session, SQLModel, select

from llmasos.database.engine import Database, ReadSession, WriteSession, utc_now
from llmasos.database.writer import CHECKPOINT_WRITES, MAX_WAITING, Transaction
from llmasos.errors import Unavailable
from llmasos.installs.tables import Workspace


@pytest.fixture
def database(tmp_path: Path):
    with Database(f"sqlite:///{tmp_path}/t.db") as database:
        SQLModel.metadata.create_all(database.engine)
        with database.write() as session:
            session.connection().exec_driver_sql("CREATE TABLE n (v INTEGER UNIQUE)")
        yield database


def add(value: int):
    return lambda transaction: transaction.run("INSERT INTO n VALUES (?)", value)


def values(database: Database) -> list[int]:
    with database.read() as session:
        return [row[0] for row in Transaction(session.connection()).all("SELECT v FROM n ORDER BY rowid")]


def test_read_and_write_sessions_are_of_different_types(database: Database) -> None:
    with database.read() as reading, database.write() as writing:
        assert isinstance(reading, ReadSession)
        assert isinstance(writing, WriteSession)
        assert isinstance(reading, Session)


def test_a_read_session_refuses_to_be_written_to_and_reads_one_moment(database: Database) -> None:
    with database.read() as session:
        assert session.exec(select(Workspace)).all() == []
        with database.write() as writing:
            writing.add(Workspace(id="w", name="w", created_at=utc_now()))
        assert session.exec(select(Workspace)).all() == []
        session.add(Workspace(id="x", name="x", created_at=utc_now()))
        with pytest.raises(TypeError, match=r"Database\.write"):
            session.flush()
        session.expunge_all()


def test_a_transaction_that_fails_writes_nothing(database: Database) -> None:
    with pytest.raises(ValueError), database.write() as session:
        session.add(Workspace(id="w", name="w", created_at=utc_now()))
        session.flush()
        raise ValueError
    with database.read() as session:
        assert session.exec(select(Workspace)).all() == []


async def test_writes_run_in_order_and_one_that_fails_harms_no_other(database: Database) -> None:
    def partly(transaction: Transaction) -> None:
        transaction.run("INSERT INTO n VALUES (1000)")
        raise ValueError("mine alone")

    pending = [database.writer.submit(partly if n % 3 == 0 else add(n)) for n in range(200)]
    pending.append(database.writer.submit(add(1)))
    outcomes = await asyncio.gather(*(_awaited(each) for each in pending), return_exceptions=True)
    assert [isinstance(outcome, ValueError) for outcome in outcomes[:200]] == [n % 3 == 0 for n in range(200)]
    assert isinstance(outcomes[200], sqlite3.IntegrityError)
    assert values(database) == [n for n in range(200) if n % 3]


async def _awaited(pending):
    return await pending


def test_threads_wait_for_the_commit(database: Database) -> None:
    seen: list[int] = []

    def work(n: int) -> None:
        database.writer.submit(add(n)).result()
        with sqlite3.connect(database.url.removeprefix("sqlite:///")) as other:
            seen.append(other.execute("SELECT count(*) FROM n WHERE v = ?", (n,)).fetchone()[0])
        other.close()

    threads = [threading.Thread(target=work, args=(n,)) for n in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [1] * 20


def test_sessions_and_writer_take_turns(database: Database) -> None:
    pending = []
    for n in range(50):
        pending.append(database.writer.submit(add(n)))
        with database.write() as session:
            session.connection().exec_driver_sql(f"INSERT INTO n VALUES ({1000 + n})")
    assert [each.result() for each in pending] == [1] * 50
    assert len(values(database)) == 100


def test_another_program_that_holds_the_database_is_waited_for(database: Database) -> None:
    other = sqlite3.connect(database.url.removeprefix("sqlite:///"), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    pending = database.writer.submit(add(1))
    with pytest.raises(TimeoutError):
        pending.result(timeout_seconds=0.2)
    other.execute("COMMIT")
    other.close()
    assert pending.result(timeout_seconds=10) == 1


def test_closing_commits_what_is_queued_and_takes_nothing_more(database: Database) -> None:
    writer = database.writer
    writer.submit(lambda transaction: time.sleep(0.05))
    pending = [writer.submit(add(n)) for n in range(500)]
    writer.close()
    assert all(each.done for each in pending)
    assert values(database) == list(range(500))
    with pytest.raises(Unavailable):
        writer.submit(add(1))


def test_a_queue_that_is_too_long_refuses_all_but_what_frees(database: Database) -> None:
    release = threading.Event()
    writer = database.writer
    writer.submit(lambda transaction: release.wait(30))
    for _ in range(MAX_WAITING + 100):
        try:
            writer.submit(lambda transaction: None)
        except Unavailable as error:
            assert "try again" in error.message
            break
    else:
        pytest.fail("it grew without a bound")
    essential = writer.submit(add(1), essential=True)
    release.set()
    assert essential.result() == 1


def test_a_database_that_cannot_be_written_is_told_to_every_waiter(database: Database) -> None:
    def break_(transaction: Transaction) -> None:
        transaction.run("COMMIT")

    done = [database.writer.submit(add(1)), database.writer.submit(break_), database.writer.submit(add(2))]
    failures = 0
    for each in done:
        try:
            each.result()
        except (Unavailable, sqlite3.Error):
            failures += 1
    assert failures >= 1
    assert database.writer.submit(add(3)).result() == 1


async def test_periodic_writes_run_also_while_nothing_else_does(database: Database) -> None:
    counted: list[float] = []
    end = database.writer.every(0.02, lambda transaction: counted.append(time.monotonic()))
    await asyncio.sleep(0.3)
    end()
    assert len(counted) >= 3
    seen = len(counted)
    await asyncio.sleep(0.1)
    assert len(counted) <= seen + 1


async def ready(database: Database) -> None:
    """The writer is connected, and idle."""
    await database.writer.submit(lambda transaction: None)


def by_whom(transaction: Transaction) -> int:
    transaction.run("INSERT INTO n VALUES ((SELECT coalesce(max(v), 0) + 1 FROM n))")
    return threading.get_ident()


async def test_a_hot_write_is_committed_by_the_loop_that_waits_for_it(database: Database) -> None:
    await ready(database)
    assert await database.writer.submit(by_whom, hot=True) == threading.get_ident()
    assert await database.writer.submit(by_whom) != threading.get_ident()
    several = [database.writer.submit(by_whom, hot=True) for _ in range(40)]
    assert {await each for each in several} >= {threading.get_ident()}
    assert values(database) == list(range(1, 43))


async def test_hot_and_other_writes_keep_their_order(database: Database) -> None:
    await ready(database)
    pending = [database.writer.submit(add(n), hot=n % 3 > 0) for n in range(300)]
    await asyncio.gather(*(_awaited(each) for each in reversed(pending)))
    assert values(database) == list(range(300))


async def test_while_somebody_else_writes_the_loop_runs_on_and_the_thread_waits(database: Database) -> None:
    await ready(database)
    other = sqlite3.connect(database.url.removeprefix("sqlite:///"), isolation_level=None)
    for enter, leave in (
        (database.gate.__enter__, database.gate.leave),
        (lambda: other.execute("BEGIN IMMEDIATE"), lambda: other.execute("COMMIT")),
    ):
        enter()
        writes = [asyncio.create_task(_awaited(database.writer.submit(by_whom, hot=True))) for _ in range(10)]
        began = time.monotonic()
        for _ in range(10):
            await asyncio.sleep(0.005)
        assert time.monotonic() - began < 1
        assert not any(write.done() for write in writes)
        leave()
        assert threading.get_ident() not in await asyncio.gather(*writes)
    other.close()


async def test_what_nobody_waits_for_is_committed_in_a_moment(database: Database) -> None:
    await ready(database)
    pending = [database.writer.post(add(n), hot=True) for n in range(40)]
    assert not any(each.done for each in pending), "it lingers for a write that it can share a commit with"
    for _ in range(100):
        await asyncio.sleep(0.01)
        if all(each.done for each in pending):
            break
    assert values(database) == list(range(40))


async def test_who_reads_in_this_process_sees_what_is_queued(database: Database) -> None:
    await ready(database)
    for number in range(40):
        database.writer.post(add(number), hot=True)
    assert values(database) == list(range(40))


async def test_what_is_due_soon_is_committed_in_the_next_turn(database: Database) -> None:
    await ready(database)
    pending = [database.writer.post_soon(add(number)) for number in range(3)]
    assert not any(each.done for each in pending)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert all(each.done for each in pending)


async def test_while_another_process_writes_a_reader_does_not_wait_and_drained_does(database: Database) -> None:
    await ready(database)
    other = sqlite3.connect(database.url.removeprefix("sqlite:///"), isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    pending = database.writer.post(add(1), hot=True)
    assert values(database) == []
    threading.Timer(0.2, other.execute, ("COMMIT",)).start()
    await database.writer.drained()
    assert pending.done
    assert values(database) == [1]
    other.close()


def test_what_a_loop_left_behind_is_committed_at_the_next_write(database: Database) -> None:
    async def leave() -> None:
        await ready(database)
        database.writer.post(add(1), hot=True)

    asyncio.run(leave())
    asyncio.run(_awaited(database.writer.submit(add(2), hot=True)))
    asyncio.run(leave_nothing(database))
    assert values(database) == [1, 2, 3]


async def leave_nothing(database: Database) -> None:
    await database.writer.submit(add(3), hot=True)


async def test_an_interrupt_in_the_middle_of_a_write_is_raised_and_nothing_is_written(database: Database) -> None:
    def interrupted(transaction: Transaction) -> None:
        transaction.run("INSERT INTO n VALUES (1000)")
        raise KeyboardInterrupt

    await ready(database)
    pending = database.writer.submit(interrupted, hot=True)
    try:
        await pending
    except KeyboardInterrupt:
        pass
    else:
        pytest.fail("it was swallowed")
    assert await database.writer.submit(add(1), hot=True) == 1
    assert values(database) == [1]


async def test_the_log_of_the_database_begins_anew_from_time_to_time(database: Database) -> None:
    await ready(database)
    for n in range(3 * CHECKPOINT_WRITES):
        await database.writer.submit(add(n), hot=True)
    await ready(database)
    log = Path(f"{database.url.removeprefix('sqlite:///')}-wal")
    # Each of these writes dirties two pages at least.
    assert log.stat().st_size < 2 * 4096 * 2 * CHECKPOINT_WRITES
    assert len(values(database)) == 3 * CHECKPOINT_WRITES


class Sum:
    """A buffer: writes one row for all that was added."""

    def __init__(self) -> None:
        self.total = 0

    def write(self, transaction: Transaction) -> None:
        transaction.run("INSERT INTO n VALUES (?)", self.total)


def buffer(value: int):
    def work(transaction: Transaction) -> None:
        if value < 0:
            raise ValueError("before it adds anything")
        transaction.buffer(Sum).total += value

    return work


async def test_what_is_buffered_is_written_once_and_before_what_follows(database: Database) -> None:
    def fails(transaction: Transaction) -> None:
        buffer(1000)(transaction)
        raise ValueError

    await database.writer.submit(lambda transaction: None, hot=True)
    submit = database.writer.submit
    pending = [submit(buffer(n), hot=True, buffered=True) for n in (1, 2, -1, 4)]
    pending += [submit(add(50), hot=True), submit(buffer(20), hot=True, buffered=True), submit(fails, hot=True)]
    outcomes = await asyncio.gather(*(_awaited(each) for each in pending), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes if outcome != 1] == [
        *(type(None), type(None), ValueError, type(None)),
        *(type(None), ValueError),
    ]
    assert values(database) == [7, 50, 20]


async def test_a_buffer_that_cannot_be_written_fails_what_filled_it(database: Database) -> None:
    await database.writer.submit(add(7), hot=True)
    pending = [database.writer.submit(buffer(n), hot=True, buffered=True) for n in (3, 4)]
    outcomes = await asyncio.gather(*(_awaited(each) for each in pending), return_exceptions=True)
    assert all(isinstance(outcome, Unavailable) for outcome in outcomes)
    assert await database.writer.submit(add(8), hot=True) == 1
    assert values(database) == [7, 8]
