"""Reserve and settle of four hot limits at once: `python tests/benchmarks/bench_ledger.py [seconds] [postgresql URL]`.

Pairs a second in one process, and with 16 processes on one database what was spent against the limit, and how long a
pair took; beside each, pairs a second of the process's own CPU time, which a busy machine disturbs less. On SQLite
the first row is the floor: bare BEGIN IMMEDIATE transactions of one UPDATE, one at a time. A PostgreSQL URL names a
server on which a database may be made and dropped.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import sqlite3
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, make_url
from sqlmodel import select

from llmasos import tables  # noqa: F401
from llmasos.database import schema
from llmasos.database.engine import Database
from llmasos.errors import QuotaExceeded
from llmasos.quotas import service
from llmasos.quotas.ledger import Ledger
from llmasos.quotas.meters import Demand, Meter, Scope, Subject, Used, Window
from llmasos.quotas.service import QuotaName
from llmasos.quotas.tables import LedgerWindow

SUBJECT = Subject("w", "u", "a/b", "m")
DEMAND = Demand({Meter.TOKENS: 10}, model="m")
USED = Used(prompt_tokens=5, completion_tokens=5, model="m")
PROCESSES = 16


@contextmanager
def fresh_database(server: str | None, limit: int) -> Iterator[str]:
    """The URL of a database with four quotas."""
    with tempfile.TemporaryDirectory() as folder:
        name = f"llmasos_bench_{uuid.uuid4().hex}"
        url = f"sqlite:///{Path(folder) / 'bench.db'}"
        if server is not None:
            execute(server, f'CREATE DATABASE "{name}"')
            url = make_url(server).set(database=name).render_as_string(hide_password=False)
        try:
            schema.migrate_to(url, "head")
            with Database(url) as database, database.write() as session:
                for scope, scope_id in (("workspace", "w"), ("user", "u"), ("app", "a/b"), ("model", "m")):
                    quota = QuotaName("w", Scope(scope), scope_id, Meter.TOKENS, Window.MONTH)
                    service.set_quota(session, lambda event, detail: None, quota, limit)
            yield url
        finally:
            if server is not None:
                execute(server, f'DROP DATABASE "{name}" WITH (FORCE)')


def execute(server: str, statement: str) -> None:
    engine = create_engine(server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(statement)
    engine.dispose()


async def pairs(url: str, seconds: float, tasks: int, barrier: Any = None) -> tuple[int, list[float]]:
    """Pairs done, and how long each took."""
    took: list[float] = []
    with Database(url) as database:
        ledger = Ledger(database)
        await ledger.settle(await ledger.reserve(SUBJECT, Demand({Meter.REQUESTS: 1})), USED, counts=False)
        if barrier is not None:
            barrier.wait()
        ends = time.perf_counter() + seconds

        async def one() -> None:
            while (began := time.perf_counter()) < ends:
                try:
                    held = await ledger.reserve(SUBJECT, DEMAND)
                except QuotaExceeded:
                    return
                await ledger.settle(held, USED)
                took.append(time.perf_counter() - began)

        await asyncio.gather(*(one() for _ in range(tasks)))
        await ledger.close()
    return len(took), took


def process(url: str, seconds: float, barrier: Any, queue: Any) -> None:
    queue.put((*asyncio.run(pairs(url, seconds, 4, barrier)), time.process_time()))


def floor(folder: str, seconds: float) -> int:
    connection = sqlite3.connect(Path(folder) / "floor.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")
    connection.execute("CREATE TABLE t (n INTEGER)")
    connection.execute("INSERT INTO t VALUES (0)")
    ends, done = time.perf_counter() + seconds, 0
    while time.perf_counter() < ends:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("UPDATE t SET n = n + 1")
        connection.execute("COMMIT")
        done += 1
    connection.close()
    return done


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))] * 1000


def row(name: str, pairs_: int, seconds: float, cpu_seconds: float, took: list[float]) -> None:
    """Print one measurement."""
    rates = f"{pairs_ / seconds:>10,.0f}{pairs_ / cpu_seconds:>12,.0f}"
    print(f"{name:<44}{rates}{percentile(took, 0.5):>9.2f}{percentile(took, 0.99):>9.2f}", flush=True)


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 3.0
    server = sys.argv[2] if len(sys.argv) > 2 else None
    print(f"{'what':<44}{'pairs/s':>10}{'pairs/CPU s':>12}{'p50 ms':>9}{'p99 ms':>9}")
    if server is None:
        with tempfile.TemporaryDirectory() as folder:
            print(f"{'floor: bare transactions, one at a time':<44}{floor(folder, seconds) / seconds:>10,.0f}")
    with fresh_database(server, 1 << 50) as url:
        for tasks in (1, 32, 256):
            cpu = time.process_time()
            count, took = asyncio.run(pairs(url, seconds, tasks))
            row(f"one process, {tasks} tasks, four limits", count, seconds, time.process_time() - cpu, took)
    limit = 100_005
    with fresh_database(server, limit) as url:
        fork = multiprocessing.get_context("fork")
        barrier, queue = fork.Barrier(PROCESSES), fork.SimpleQueue()
        processes = [fork.Process(target=process, args=(url, seconds, barrier, queue)) for _ in range(PROCESSES)]
        for each in processes:
            each.start()
        results = [queue.get() for _ in processes]
        for each in processes:
            each.join()
        took = [duration for _count, durations, _cpu in results for duration in durations]
        row(f"{PROCESSES} processes, 4 tasks each", len(took), seconds, sum(cpu for *_, cpu in results), took)
        with Database(url) as database, database.read() as session:
            spent = max(it.used + it.reserved + it.overrun for it in session.exec(select(LedgerWindow)))
        print(f"spent {spent:,} of {limit:,}: {max(0, spent - limit)} over")
        assert spent == len(took) * 10 <= limit


if __name__ == "__main__":
    main()
