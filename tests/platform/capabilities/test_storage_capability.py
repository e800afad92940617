"""Storage: the rules of every storage, the host's and the SDK's fake, and the host's own isolation."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Barrier

import pytest
from sqlmodel import func, select

from llmasos.bundles.manifest import LocalisedText, StoragePermission
from llmasos.capabilities import stored_data
from llmasos.capabilities.storage import Area, StorageCapability, decoded
from llmasos.capabilities.tables import StoredTotal, StoredValue
from llmasos.database.engine import Database
from llmasos.errors import Conflict, LlmasosError, PermissionNotDeclared, PermissionNotGranted
from llmasos.kernel.invocation import InstalledApp, Principal
from llmasos.testing import SmallHost, small_host
from llmasos_sdk.errors import AppError
from llmasos_sdk.testing import MemoryStorage

GRANT = StoragePermission(capability="storage", max_bytes=1000, reason=LocalisedText(en="for the test"))
APP = InstalledApp("acme/one", "1.0", "i1", {"storage": GRANT}, frozenset({"storage"}))
ME = Principal()
Call = Callable[..., Awaitable[object]]


@pytest.fixture
async def host(database: Database) -> AsyncIterator[SmallHost]:
    async with small_host(database, StorageCapability(database)) as host:
        yield host


async def calling(host: SmallHost, app: InstalledApp = APP, principal: Principal = ME) -> AsyncIterator[Call]:
    async with host.invocations.open(principal, app, "act") as invocation:

        async def call(function: str, *arguments: object) -> object:
            return await host.guest(invocation, "storage", function, list(arguments))

        yield call


@pytest.fixture(params=["host", "fake"])
async def call(request: pytest.FixtureRequest, host: SmallHost) -> AsyncIterator[Call]:
    if request.param == "fake":
        memory = MemoryStorage(max_bytes=1000)

        async def call(function: str, *arguments: object) -> object:
            return memory.call(function, *arguments)

        yield call
    else:
        async for each in calling(host):
            yield each


async def refused(awaitable: Awaitable[object], tag: str) -> None:
    with pytest.raises((LlmasosError, AppError)) as caught:
        await awaitable
    assert caught.value.tag == tag


async def test_a_value_is_kept_with_its_version(call: Call) -> None:
    assert await call("get", "a") is None
    assert await call("put", "a", "héllo", False) == 1
    assert await call("put", "a", "aGk=", True) == 2
    assert json.loads(str(await call("get", "a"))) == {"value": "aGk=", "base64": True, "version": 2}
    assert await call("delete", "a") is True
    assert await call("delete", "a") is False
    assert await call("get", "a") is None


async def test_compare_and_set_writes_only_what_it_has_read(call: Call) -> None:
    await refused(call("compare-and-set", "a", 1, "x", False), "conflict")
    assert await call("compare-and-set", "a", None, "x", False) == 1
    await refused(call("compare-and-set", "a", None, "y", False), "conflict")
    assert await call("compare-and-set", "a", 1, "y", False) == 2
    await refused(call("compare-and-set", "a", 1, "z", False), "conflict")
    assert json.loads(str(await call("get", "a")))["value"] == "y"


async def test_a_version_never_comes_again(call: Call) -> None:
    """10-7: delete and put began at version 1 again, so that an old compare-and-set overwrote a new value."""
    read = await call("put", "a", "old", False)
    await call("put", "a", "newer", False)
    await call("delete", "a")
    written_anew = await call("put", "a", "newest", False)
    assert isinstance(read, int)
    assert isinstance(written_anew, int)
    assert written_anew > read + 1
    await refused(call("compare-and-set", "a", read, "overwritten", False), "conflict")
    assert json.loads(str(await call("get", "a")))["value"] == "newest"


async def test_keys_are_listed_by_prefix_in_order_and_by_page(call: Call) -> None:
    for key in ("b/2", "a", "b/1", "b/10", "b", "c", "b/\U0010ffff", "名字"):
        await call("put", key, "", False)
    assert await call("keys", "b/", None, 1000) == ["b/1", "b/10", "b/2", "b/\U0010ffff"]
    assert await call("keys", "b/", "b/1", 2) == ["b/10", "b/2"]
    assert await call("keys", "", None, 3) == ["a", "b", "b/1"]
    assert await call("keys", "名", None, 3) == ["名字"]
    assert await call("keys", "zzz", None, 3) == []
    for limit in (0, 1001):
        await refused(call("keys", "", None, limit), "invalid")


async def test_bytes_are_counted_with_their_keys_and_freed(call: Call) -> None:
    await call("put", "k", "x" * 999, False)
    await refused(call("put", "l", "", False), "quota")
    await refused(call("put", "k", "x" * 1000, False), "quota")
    assert await call("put", "k", "x", False) == 2
    await call("put", "l", "x" * 997, False)
    await call("delete", "k")
    await refused(call("put", "m", "名", False), "quota")


@pytest.mark.parametrize("key", ["", "x" * 513, "a\nb", "a\0", "\ud800"])
async def test_keys_that_no_database_keeps_are_refused(call: Call, key: str) -> None:
    await refused(call("put", key, "x", False), "invalid")


@pytest.mark.parametrize(
    ("value", "is_base64"), [("no base64!", True), ("a\0b", False), ("\ud800", False), ("YQ", True)]
)
async def test_values_that_are_not_what_they_say_are_refused(call: Call, value: str, is_base64: bool) -> None:
    await refused(call("put", "k", value, is_base64), "invalid")


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        ("get", []), ("get", [1]), ("put", ["k", "v"]), ("put", ["k", "v", 1]), ("keys", ["", None, True]),
        ("compare-and-set", ["k", True, "v", False]), ("compare-and-set", ["k", "1", "v", False]), ("drop", ["k"]),
    ],
)  # fmt: skip
async def test_wrong_arguments_are_refused(host: SmallHost, function: str, arguments: list) -> None:
    async for call in calling(host):
        await refused(call(function, *arguments), "invalid")


async def test_values_are_apart_for_each_app_user_and_workspace(host: SmallHost) -> None:
    """SECURITY R6."""
    async for call in calling(host):
        await call("put", "k", "mine", False)
    other_app = InstalledApp("acme/two", "1.0", "i2", {"storage": GRANT}, frozenset({"storage"}))
    for app, principal in (
        (other_app, Principal()),
        (APP, Principal(user="other")),
        (APP, Principal(workspace="other")),
    ):
        async for call in calling(host, app, principal):
            assert await call("get", "k") is None
            assert await call("keys", "", None, 10) == []


async def test_storage_that_is_not_declared_is_denied(host: SmallHost) -> None:
    async for call in calling(host, InstalledApp("acme/one", "1.0", "i1", {}, frozenset())):
        with pytest.raises(PermissionNotDeclared, match='capability = "storage"'):
            await call("get", "k")


async def test_storage_that_is_declared_and_not_granted_is_denied(host: SmallHost) -> None:
    async for call in calling(host, InstalledApp("acme/one", "1.0", "i1", {}, frozenset({"storage"}))):
        with pytest.raises(PermissionNotGranted):
            await call("get", "k")


async def test_many_writers_at_once_never_keep_more_than_the_grant(host: SmallHost, database: Database) -> None:
    async for call in calling(host):
        done = await asyncio.gather(
            *(call("put", f"k{n:02}", "x" * 97, False) for n in range(40)), return_exceptions=True
        )
    assert sum(answer == 1 for answer in done) == 10
    with database.read() as session:
        assert session.exec(select(func.sum(StoredValue.size_bytes))).one() == 1000
        assert session.exec(select(StoredTotal.size_bytes)).one() == 1000


async def test_of_many_that_set_an_absent_key_one_succeeds(database: Database) -> None:
    """10-7: on PostgreSQL two compare-and-sets of an absent key both succeeded, and its bytes counted twice."""
    keys = [f"k{number:02}" for number in range(20)]
    together = Barrier(3)

    def one_of_many(name: int) -> list[str]:
        async def attempt() -> list[str]:
            written: list[str] = []
            with Database(database.url) as own:
                area = Area(own, ("default", "acme/one", "local"), 1000)
                for key in keys:
                    await asyncio.to_thread(together.wait)
                    with suppress(Conflict):
                        await area.compare_and_set(key, None, decoded(str(name), is_base64=False))
                        written.append(key)
            return written

        return asyncio.run(attempt())

    with ThreadPoolExecutor(3) as threads:
        written = [key for each in threads.map(one_of_many, range(3)) for key in each]
    assert sorted(written) == keys
    with database.read() as session:
        assert session.exec(select(StoredTotal.size_bytes)).one() == 20 * 4


async def test_what_one_user_stored_is_deleted_and_its_versions_go_on(host: SmallHost, database: Database) -> None:
    """12-6: stored data (size, delete). A run that read the old value must not overwrite a new one."""
    mine, theirs = ("default", "acme/one", ME.user), ("default", "acme/one", "somebody")
    async for call in calling(host):
        assert await call("put", "k", "four", False) == 1
        assert await call("put", "k", "four", False) == 2
        with database.read() as session:
            assert stored_data.stored(session, mine) == (1, 5)
            assert stored_data.stored(session, theirs) == (0, 0)
        with database.write() as session:
            assert stored_data.clear(session, theirs) == 0
            assert stored_data.clear(session, mine) == 1
            assert stored_data.clear(session, mine) == 0
        with database.read() as session:
            assert stored_data.stored(session, mine) == (0, 0)
        assert await call("put", "k", "four", False) == 3


async def test_forgetting_an_app_frees_everything(host: SmallHost, database: Database) -> None:
    async for call in calling(host):
        await call("put", "k", "x" * 900, False)
        with database.write() as session:
            assert stored_data.forget(session, "default", "acme/one") == 1
        assert await call("put", "k", "x" * 900, False) == 1
