"""Reserve and settle of four hot limits at once: `python tests/benchmarks/bench_ledger.py [seconds]`.

Pairs a second in one process (32 tasks in one loop), and with 16 processes on one database what was spent against the
limit, and how long a pair took. Beside them the floor: bare BEGIN IMMEDIATE transactions of one UPDATE, one at a time.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import sqlite3
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from sqlmodel import SQLModel, select

from llmasos import tables  # noqa: F401
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


def prepare(folder: str, limit: int) -> str:
    url = f"sqlite:///{Path(folder) / 'bench.db'}"
    with Database(url) as database:
        SQLModel.metadata.create_all(database.engine)
        with database.write() as session:
            for scope, scope_id in (("workspace", "w"), ("user", "u"), ("app", "a/b"), ("model", "m")):
                name = QuotaName("w", Scope(scope), scope_id, Meter.TOKENS, Window.MONTH)
                service.set_quota(session, lambda event, detail: None, name, limit)
    return url


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
    queue.put(asyncio.run(pairs(url, seconds, 4, barrier)))


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


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 3.0
    print(f"{'what':<44}{'pairs/s':>10}{'p50 ms':>9}{'p99 ms':>9}")
    with tempfile.TemporaryDirectory() as folder:
        print(f"{'floor: bare transactions, one at a time':<44}{floor(folder, seconds) / seconds:>10,.0f}")
        url = prepare(folder, 1 << 50)
        for tasks in (1, 32, 256):
            count, took = asyncio.run(pairs(url, seconds, tasks))
            name = f"one process, {tasks} tasks, four limits"
            print(f"{name:<44}{count / seconds:>10,.0f}{percentile(took, 0.5):>9.2f}{percentile(took, 0.99):>9.2f}")
    with tempfile.TemporaryDirectory() as folder:
        limit = 100_005
        url = prepare(folder, limit)
        fork = multiprocessing.get_context("fork")
        barrier, queue = fork.Barrier(PROCESSES), fork.SimpleQueue()
        processes = [fork.Process(target=process, args=(url, seconds, barrier, queue)) for _ in range(PROCESSES)]
        for each in processes:
            each.start()
        results = [queue.get() for _ in processes]
        for each in processes:
            each.join()
        took = [duration for _count, durations in results for duration in durations]
        name = f"{PROCESSES} processes, 4 tasks each"
        print(f"{name:<44}{len(took) / seconds:>10,.0f}{percentile(took, 0.5):>9.2f}{percentile(took, 0.99):>9.2f}")
        with Database(url) as database, database.read() as session:
            spent = max(row.used + row.reserved + row.overrun for row in session.exec(select(LedgerWindow)))
        print(f"spent {spent:,} of {limit:,}: {max(0, spent - limit)} over")
        assert spent == len(took) * 10 <= limit


if __name__ == "__main__":
    main()
