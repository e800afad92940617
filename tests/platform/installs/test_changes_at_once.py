"""11-S12: what is taken from an app is taken from its running invocations too, in every process."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from sqlmodel import select

from llmasos.bundles.parts import LocalisedText, StoragePermission
from llmasos.capabilities.storage import Get, Put, StorageCapability
from llmasos.capabilities.tables import StoredValue
from llmasos.database.engine import Database, utc_now
from llmasos.errors import Cancelled, Denied
from llmasos.installs import changes, repository
from llmasos.installs.code import CodeStore
from llmasos.installs.current import InstalledApps
from llmasos.installs.tables import Installation, InstalledRelease
from llmasos.invocations.lifecycle import Invocations
from llmasos.kernel.invocation import InstalledApp, Invocation, Principal
from llmasos.kernel.syscall import Kernel
from llmasos.quotas.ledger import Ledger
from llmasos.secrets import Sealer
from llmasos.testing import ANY_KEY, SmallHost

ME = Principal()
GRANT = StoragePermission(capability="storage", max_bytes=1000, reason=LocalisedText(en="To test."))
APPS = ("acme/one", "acme/two")


@pytest.fixture(autouse=True)
def installed(database: Database) -> None:
    with database.write() as session:
        repository.ensure_workspace(session, ME.workspace)
        for app_id in APPS:
            found = Installation(
                id=f"of-{app_id}", workspace_id=ME.workspace, app_id=app_id, installed_by="x", installed_at=utc_now()
            )
            session.add(found)
            session.flush()
            manifest = {"permissions": [GRANT.model_dump(mode="json")], "dependencies": {}, "id": app_id}
            rows: Any = {"actions": [], "limits": {}, "config": {}, "lock": {}, "manifest": manifest}
            release = InstalledRelease(
                installation_id=found.id, version="1.0", digest="d", component_digest="c", runtime="wasm",
                state="current", created_at=utc_now(), **rows,
            )  # fmt: skip
            session.add(release)
            session.flush()
            session.add(repository.grant_row(release.id or 0, GRANT))
            found.current_id = release.id
            session.add(found)


def app(app_id: str = "acme/one") -> InstalledApp:
    return InstalledApp(app_id, "1.0", f"of-{app_id}", {"storage": GRANT}, frozenset({"storage"}))


@asynccontextmanager
async def hosting(url: str, tmp_path: Any) -> AsyncIterator[SmallHost]:
    with Database(url) as database:
        apps = InstalledApps(database, CodeStore.in_home(tmp_path))
        ledger = Ledger(database)
        storage = StorageCapability(database, apps.check_installed)
        kernel = Kernel(database, ledger, [storage], grant_now=apps.grant)
        async with Invocations(database, ledger, kernel, Sealer(lambda: ANY_KEY)) as invocations:
            yield SmallHost(kernel, invocations, None)  # type: ignore[arg-type]


@pytest.fixture
async def host(database: Database, tmp_path: Any) -> AsyncIterator[SmallHost]:
    async with hosting(database.url, tmp_path) as host:
        yield host


def revoke(database: Database, app_id: str = "acme/one") -> None:
    """Revoke a capability as another process does."""
    with Database(database.url) as elsewhere, elsewhere.write() as session:
        repository.revoke(session, f"of-{app_id}", "storage")


def uninstall(database: Database) -> None:
    with Database(database.url) as elsewhere, elsewhere.write() as session:
        found = session.get(Installation, "of-acme/one")
        assert found
        changes.stored_data.forget(session, ME.workspace, "acme/one")
        repository.remove_installation(session, found)


async def test_a_revoked_grant_ends_with_the_call_before(host: SmallHost, database: Database) -> None:
    """11-S12: after `grants revoke` a running invocation went on writing. SECURITY R3."""
    async with host.invocations.open(ME, app(), "act") as invocation:
        await host.kernel.call(invocation, Put("key", "before"))
        revoke(database)
        for operation in (Put("key", "after"), Get("key")):
            with pytest.raises(Denied, match=r"revoked while it ran|does not grant"):
                await host.kernel.call(invocation, operation)
    with database.read() as session:
        assert session.exec(select(StoredValue.value)).all() == ["before"]


async def test_a_narrowed_grant_narrows_what_runs(host: SmallHost, database: Database) -> None:
    async with host.invocations.open(ME, app(), "act") as invocation:
        with database.write() as session:
            [row] = repository.grants(session, session.exec(select(Installation.current_id)).first() or 0)
            row.scope = GRANT.model_copy(update={"max_bytes": 10}).model_dump(mode="json")
            session.add(row)
        with pytest.raises(Exception, match="10 bytes"):
            await host.kernel.call(invocation, Put("key", "x" * 10))


async def test_what_is_taken_from_a_caller_is_taken_from_those_it_calls(host: SmallHost, database: Database) -> None:
    async with (
        host.invocations.open(ME, app(), "act") as caller,
        host.invocations.open(ME, app("acme/two"), "act", parent=caller) as callee,
    ):
        await host.kernel.call(callee, Put("key", "before"))
        revoke(database)
        with pytest.raises(Denied):
            await host.kernel.call(callee, Put("key", "after"))


async def test_an_app_that_was_uninstalled_writes_nothing_more(host: SmallHost, database: Database) -> None:
    """11-S12: after `uninstall --delete-data` it wrote again, and the value stayed."""
    async with host.invocations.open(ME, app(), "act") as invocation:
        await host.kernel.call(invocation, Put("key", "before"))
        uninstall(database)
        with pytest.raises(Denied):
            await host.kernel.call(invocation, Put("key", "after"))
    with database.read() as session:
        assert session.exec(select(StoredValue)).all() == []


async def test_a_write_that_was_authorised_before_an_uninstall_comes_to_nothing(
    database: Database, tmp_path: Any
) -> None:
    apps = InstalledApps(database, CodeStore.in_home(tmp_path))
    storage = StorageCapability(database, apps.check_installed)
    authorised = storage.prepare(Invocation(ME, app(), "act"), Put("key", "after"))
    uninstall(database)
    with pytest.raises(Denied, match="uninstalled"):
        await authorised.execute(authorised.demand)
    with database.read() as session:
        assert session.exec(select(StoredValue)).all() == []


async def test_what_runs_of_an_installation_is_ended_in_every_process(
    host: SmallHost, database: Database, tmp_path: Any
) -> None:
    """SECURITY R3."""

    async def running(where: SmallHost, app_id: str, begun: asyncio.Event) -> None:
        async with where.invocations.open(ME, app(app_id), "act"):
            begun.set()
            await asyncio.sleep(3600)

    async with hosting(database.url, tmp_path) as elsewhere:
        begun = [asyncio.Event() for _ in range(3)]
        here = asyncio.create_task(running(host, "acme/one", begun[0]))
        there = asyncio.create_task(running(elsewhere, "acme/one", begun[1]))
        other = asyncio.create_task(running(host, "acme/two", begun[2]))
        await asyncio.gather(*(each.wait() for each in begun))
        await host.invocations.end_of_installation("of-acme/one")
        for ended in (here, there):
            with pytest.raises(Cancelled):
                await ended
        assert not other.done()
        other.cancel()
        with pytest.raises(asyncio.CancelledError):
            await other
