"""Many real processes on one quota: never one unit over, and what dead processes held is freed."""

import json
import signal
import subprocess
import sys
from collections import Counter

import pytest
from sqlmodel import select

from llmasos import tables  # noqa: F401
from llmasos.database.engine import Database
from llmasos.invocations import records
from llmasos.invocations.tables import InvocationRow
from llmasos.kernel import audit
from llmasos.kernel.tables import AuditEntry
from llmasos.quotas import service
from llmasos.quotas.ledger import Ledger
from llmasos.quotas.meters import Meter, Scope, Window
from llmasos.quotas.service import QuotaName
from llmasos.quotas.tables import LedgerWindow, ReservationRow

LIMIT = 200
PROCESSES = 16

# Forks sixteen processes once everything is imported, and starts them together.
SPENDERS = """
import asyncio, multiprocessing, sys
from sqlalchemy import create_engine, text
from llmasos.database.engine import Database
from llmasos.errors import QuotaExceeded
from llmasos.quotas.ledger import Ledger
from llmasos.quotas.meters import Demand, Meter, Subject, Used

async def careful(url, amount, times, barrier):
    with Database(url) as database:
        ledger = Ledger(database)
        subject, spent = Subject("w", "u", "a/b", "m"), 0
        barrier.wait()
        for _ in range(times):
            try:
                held = await ledger.reserve(subject, Demand({Meter.TOKENS: amount}))
            except QuotaExceeded:
                continue
            await asyncio.sleep(0)
            await ledger.settle(held, Used(prompt_tokens=amount))
            spent += amount
    return spent

async def crowded(url, amount, times, barrier):
    # Four tasks whose writes share commits.
    with Database(url) as database:
        ledger = Ledger(database)
        subject, spent = Subject("w", "u", "a/b", "m"), 0
        async def one():
            nonlocal spent
            for _ in range(times):
                try:
                    held = await ledger.reserve(subject, Demand({Meter.TOKENS: amount}))
                except QuotaExceeded:
                    continue
                await asyncio.sleep(0)
                ledger.settle(held, Used(prompt_tokens=amount))
                spent += amount
        barrier.wait()
        await asyncio.gather(*(one() for _ in range(4)))
    return spent

def naive(url, amount, times, barrier):
    # What one would write first: read what is used, and add to it if it fits.
    engine, spent = create_engine(url, isolation_level="AUTOCOMMIT"), 0
    with engine.connect() as connection:
        barrier.wait()
        for _ in range(times):
            used = connection.execute(text("SELECT used FROM naive")).scalar()
            if used + amount <= 200:
                connection.execute(text("UPDATE naive SET used = :used"), {"used": used + amount})
                spent += amount
    engine.dispose()
    return spent

def work(kind, url, amount, times, barrier, queue):
    if kind in {"careful", "crowded"}:
        queue.put(asyncio.run(globals()[kind](url, amount, times, barrier)))
    else:
        queue.put(naive(url, amount, times, barrier))

fork = multiprocessing.get_context("fork")
kind, url, amount, times, count = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])
barrier, queue = fork.Barrier(count), fork.SimpleQueue()
processes = [fork.Process(target=work, args=(kind, url, amount, times, barrier, queue)) for _ in range(count)]
for process in processes:
    process.start()
spent = sum(queue.get() for _ in processes)
for process in processes:
    process.join()
    assert process.exitcode == 0
print(spent)
"""


def quota(database: Database, limit: int = LIMIT) -> None:
    with database.write() as session:
        for scope, scope_id in (("workspace", "w"), ("user", "u"), ("app", "a/b"), ("model", "m")):
            name = QuotaName("w", Scope(scope), scope_id, Meter.TOKENS, Window.MONTH)
            service.set_quota(session, lambda event, detail: None, name, limit)


def at_once(kind: str, url: str, amount: int, times: int) -> int:
    """The total that sixteen simultaneous processes spent."""
    words = (kind, url, str(amount), str(times), str(PROCESSES))
    done = subprocess.run([sys.executable, "-c", SPENDERS, *words], capture_output=True, text=True, check=True)
    return int(done.stdout)


def killed(url: str, point: str) -> None:
    """Run a host that is killed at this point."""
    done = subprocess.run([sys.executable, "-c", HOLDER, url, point], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr


@pytest.mark.parametrize("kind", ["careful", "crowded"])
@pytest.mark.parametrize(("amount", "expected"), [(12, 192), (10, 200), (201, 0), (200, 200), (199, 199)])
def test_sixteen_processes_never_spend_one_unit_over(database: Database, kind: str, amount: int, expected: int) -> None:
    """SECURITY M1."""
    quota(database)
    assert at_once(kind, database.url, amount, 4) == expected
    with database.read() as session:
        assert [(row.used, row.reserved) for row in session.exec(select(LedgerWindow))] in ([(expected, 0)] * 4, [])
        assert session.exec(select(ReservationRow)).all() == []


def test_code_that_reads_and_then_adds_is_caught_by_the_same_test(database: Database) -> None:
    with database.write() as session:
        session.connection().exec_driver_sql("CREATE TABLE naive (used INTEGER)")
        session.connection().exec_driver_sql("INSERT INTO naive VALUES (0)")
    # It is a race: one of a few rounds is enough to show it.
    for _ in range(5):
        if at_once("naive", database.url, 1, 200) > LIMIT:
            return
        with database.write() as session:
            session.connection().exec_driver_sql("UPDATE naive SET used = 0")
    pytest.fail("the naive code never went over: this test would not see it")


HOLDER = """
import asyncio, sys, os, signal
from llmasos import tables
from llmasos.bundles.manifest import ModelPermission, LocalisedText
from llmasos.database.engine import Database
from llmasos.kernel.capability import Operation, OperationResult, PreparedCall
from llmasos.kernel.invocation import InstalledApp, Principal
from llmasos.quotas.meters import Demand, Meter, Used
from llmasos.testing import small_host

POINT = sys.argv[2]

def die(point):
    if POINT == point:
        os.kill(os.getpid(), signal.SIGKILL)

class Generate(Operation):
    capability, function = "model", "generate"

class Model:
    name, contract, audited = "model", {}, True
    def prepare(self, invocation, operation):
        die("prepare")
        return PreparedCall(self.execute, Demand({Meter.TOKENS: 60}, model="m"))
    async def execute(self, granted):
        die("execute")
        return OperationResult(1, Used(prompt_tokens=60, model="m"))

async def main():
    grant = ModelPermission(capability="model", tiers=("fast",), reason=LocalisedText(en="x"))
    app = InstalledApp("a/b", "1", "i", {"model": grant}, frozenset({"model"}))
    database = Database(sys.argv[1])
    me = Principal("w", "u")
    async with small_host(database, Model()) as host, host.invocations.open(me, app, "act") as invocation:
        die("begun")
        await host.kernel.call(invocation, Generate())
        die("answered")
        if POINT == "in-batch":
            database.write_queue.submit(lambda transaction: os.kill(os.getpid(), signal.SIGKILL)).result()

asyncio.run(main())
"""


@pytest.mark.parametrize("point", ["begun", "prepare", "execute", "answered", "in-batch"])
def test_a_host_that_is_killed_leaves_nothing_reserved_and_nothing_running(database: Database, point: str) -> None:
    quota(database, 60)
    killed(database.url, point)
    # The next host on this machine sees at once that the process is gone.
    ledger = Ledger(database)
    ledger.lease.on_release(records.lose)
    ledger.lease.start()
    database.write_queue.submit(lambda transaction: None).result()
    with database.read() as session:
        assert session.exec(select(ReservationRow)).all() == []
        rows = session.exec(select(LedgerWindow)).all()
        assert all(row.reserved == 0 for row in rows)
        assert {row.used for row in rows} <= {60 if point in {"answered", "in-batch"} else 0}
        assert {row.status for row in session.exec(select(InvocationRow))} == {"failed"}
        assert {row.error_code for row in session.exec(select(InvocationRow))} == {"host-died"}
        assert audit.verify(session).intact


def test_a_process_of_another_machine_is_given_the_time_of_its_lease(database: Database) -> None:
    quota(database, 60)
    killed(database.url, "execute")
    with database.write() as session:
        session.connection().exec_driver_sql("UPDATE host_lease SET machine = 'elsewhere'")
    for left in (4, 0):
        database.write_queue.submit(Ledger(database).lease.sweep).result()
        with database.read() as session:
            assert len(session.exec(select(ReservationRow)).all()) == left
        with database.write() as session:
            session.connection().exec_driver_sql("UPDATE host_lease SET expires_at = expires_at - 60")


# Forks a child for each statement at which to die; each reports over a pipe what a caller would have received.
KILLED = """
import asyncio, json, os, signal, sys
from llmasos import tables
from llmasos.bundles.manifest import ModelPermission, LocalisedText
from llmasos.database.engine import Database
from llmasos.database.transaction import Transaction
from llmasos.kernel.capability import Operation, OperationResult, PreparedCall
from llmasos.kernel.invocation import InstalledApp, Principal
from llmasos.quotas.meters import Demand, Meter, Used
from llmasos.testing import small_host

class Generate(Operation):
    capability, function = "model", "generate"

class Model:
    name, contract, audited = "model", {}, True
    def prepare(self, invocation, operation):
        return PreparedCall(self.execute, Demand({Meter.TOKENS: 7}, model="m"))
    async def execute(self, granted):
        return OperationResult(1, Used(prompt_tokens=7, model="m"))

def die_at(step):
    seen = 0
    for name in ("run", "run_many", "all"):
        def counted(self, *a, inner=getattr(Transaction, name), **k):
            nonlocal seen
            seen += 1
            if seen == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return inner(self, *a, **k)
        setattr(Transaction, name, counted)

async def main(told):
    grant = ModelPermission(capability="model", tiers=("fast",), reason=LocalisedText(en="x"))
    app = InstalledApp("a/b", "1", "i", {"model": grant}, frozenset({"model"}))
    database = Database(sys.argv[1])
    async def one():
        async with host.invocations.open(Principal("w", "u"), app, "act") as invocation:
            for _ in range(2):
                await host.kernel.call(invocation, Generate())
                os.write(told, f"answered {invocation.id}\\n".encode())
        os.write(told, f"ended {invocation.id}\\n".encode())
    async with small_host(database, Model()) as host:
        await asyncio.gather(one(), one())
    database.close()

told, outcomes = [], []
for step in range(1, 400):
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        die_at(step)
        asyncio.run(main(writer))
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as lines:
        told += lines.read().split()
    outcomes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    if outcomes[-1] == 0:
        break
print(json.dumps([outcomes, told]))
"""


def test_killed_at_any_statement_a_host_has_committed_all_that_it_answered(database: Database) -> None:
    """10-2: durability before speed. SECURITY M3."""
    quota(database, 1 << 30)
    done = subprocess.run([sys.executable, "-c", KILLED, database.url], capture_output=True, text=True, check=True)
    outcomes, told = json.loads(done.stdout)
    assert len(outcomes) > 20
    assert set(outcomes[:-1]) == {-signal.SIGKILL}
    pairs = list(zip(told[::2], told[1::2], strict=True))
    answered = [id_ for what, id_ in pairs if what == "answered"]
    ended = {id_ for what, id_ in pairs if what == "ended"}
    assert len(answered) > len(ended) > 5
    with database.read() as session:
        assert audit.verify(session).intact
        lines = session.exec(select(AuditEntry)).all()
        settled = [line.invocation_id for line in lines if (line.event, line.outcome) == ("model.generate", "ok")]
        assert not Counter(answered) - Counter(settled)
        succeeded = session.exec(select(InvocationRow.id).where(InvocationRow.status == "succeeded")).all()
        assert ended <= set(succeeded)
        assert ended <= {line.invocation_id for line in lines if line.event == "invocation"}
        rows = session.exec(select(LedgerWindow)).all()
        assert {(row.used, row.reserved) for row in rows} == {(7 * len(settled), 0)}
        assert session.exec(select(ReservationRow)).all() == []


# Calls of two apps, two users and two models in every mixture, so that transactions of several processes want the same
# windows and chains in different orders.
MIXED = """
import asyncio, random, sys
from llmasos import tables
from llmasos.database.engine import Database
from llmasos.kernel import audit
from llmasos.quotas.ledger import Ledger
from llmasos.quotas.meters import Demand, Meter, Subject, Used

async def main():
    chance = random.Random(int(sys.argv[2]))
    with Database(sys.argv[1]) as database:
        ledger = Ledger(database)
        async def one():
            for _ in range(25):
                subject = Subject("w", chance.choice("uv"), chance.choice(["a/b", "a/c"]), chance.choice("mn"))
                held = await ledger.reserve(subject, Demand({Meter.TOKENS: 3}, model=subject.model))
                def settle(transaction, held=held):
                    ledger.settle_in(transaction, held, Used(prompt_tokens=2, model=held.subject.model))
                    audit.append(transaction, audit.Line(chance.choice("wx"), "u", "call"))
                await ledger.settle_with(held, settle)
        await asyncio.gather(*(one() for _ in range(6)))
        await ledger.close()

asyncio.run(main())
"""


def test_processes_that_want_the_same_windows_never_wait_in_a_circle(database: Database) -> None:
    """10: the ledger and the audit log on PostgreSQL, by many hosts: no deadlock, and every sum is right."""
    with database.write() as session:
        names = [("user", "v"), ("app", "a/b"), ("model", "n"), ("workspace", "w"), ("user", "u"), ("model", "m")]
        for scope, scope_id in [*names, ("app", "a/c")]:
            for window in (Window.DAY, Window.MONTH):
                name = QuotaName("w", Scope(scope), scope_id, Meter.TOKENS, window)
                service.set_quota(session, lambda event, detail: None, name, 1_000_000)
    children = [
        subprocess.Popen([sys.executable, "-c", MIXED, database.url, str(seed)], stderr=subprocess.PIPE, text=True)
        for seed in range(4)
    ]
    assert [child.communicate()[1] for child in children] == [""] * 4
    calls = 4 * 6 * 25
    with database.read() as session:
        assert audit.verify(session).lines == calls
        rows = {status.name: status for status in service.list_quotas(session, "w")}
        for scope in Scope:
            used = [row.used for name, row in rows.items() if (name.scope, name.window) == (scope, Window.DAY)]
            assert sum(used) == 2 * calls
        assert not any(row.reserved or row.overrun for row in rows.values())
        if database.engine.dialect.name == "postgresql":
            query = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
            assert session.connection().exec_driver_sql(query).scalar() == 0
