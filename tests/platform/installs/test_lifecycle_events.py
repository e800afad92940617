"""Lifecycle events: only the host notifies an app, by an ordinary invocation."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlmodel import select

from llmasos.bundles.actions import LIFECYCLE_EVENTS
from llmasos.bundles.manifest import AppsPermission
from llmasos.database.engine import utc_now
from llmasos.errors import Denied, NotFound, QuotaExceeded, TimedOut
from llmasos.host import Host, HostParts
from llmasos.invocations import run as run_module
from llmasos.invocations.tables import InvocationRow
from llmasos.kernel.invocation import Principal
from llmasos.kernel.tables import AuditEntry
from llmasos.quotas.tables import Quota
from llmasos.settings import Settings
from llmasos.testing import FakeAction, FakeApps, Guest
from llmasos_sdk import hooks

ANN = Principal(user="ann")


class Setting:
    """A host with an app that records its events."""

    def __init__(self) -> None:
        self.apps = FakeApps()
        self.heard: list[tuple[str, dict]] = []
        self.host: Host

    def hook(self, event: str) -> FakeAction:
        async def note(guest: Guest) -> None:
            self.heard.append((event, guest.input))

        return FakeAction(note)

    def rows(self) -> list[InvocationRow]:
        with self.host.database.read() as session:
            return list(session.exec(select(InvocationRow)))


@pytest.fixture
async def setting(tmp_path: Path) -> AsyncIterator[Setting]:
    made = Setting()
    parts = HostParts(runnables=lambda _: made.apps, runtimes={"wasm": made.apps.runtime})
    async with Host.open(Settings(home=tmp_path / "home"), parts) as host:
        made.host = host
        yield made


async def nothing(_guest: Guest) -> None:
    """An action that does nothing."""


def test_the_lifecycle_events_are_those_of_the_sdk() -> None:
    assert {f"@{name}" for name in hooks.LIFECYCLE_EVENTS} == LIFECYCLE_EVENTS


async def test_an_app_hears_of_a_moment_as_an_invocation_that_is_metered_and_audited(setting: Setting) -> None:
    setting.apps.add("acme/a", act=FakeAction(nothing), **{"@upgrade": setting.hook("@upgrade")})
    await setting.host.actions.tell(ANN, "acme/a", "@upgrade", {"from_version": "1.0.0"})
    assert setting.heard == [("@upgrade", {"from_version": "1.0.0"})]
    [row] = setting.rows()
    assert (row.user_id, row.app_id, row.action, row.status) == ("ann", "acme/a", "@upgrade", "succeeded")
    assert row.fuel > 0
    with setting.host.database.read() as session:
        [entry] = session.exec(select(AuditEntry))
    assert (entry.event, entry.app_id, entry.detail["action"]) == ("invocation", "acme/a", "@upgrade")


async def test_an_app_without_the_hook_hears_nothing_and_nothing_starts(setting: Setting) -> None:
    setting.apps.add("acme/a", act=FakeAction(nothing), **{"@install": setting.hook("@install")})
    await setting.host.actions.tell(ANN, "acme/a", "@uninstall", {})
    await setting.host.actions.tell(ANN, "acme/a", "act", {})
    assert setting.rows() == []


async def test_no_caller_can_ask_for_a_lifecycle_event(setting: Setting) -> None:
    setting.apps.add("acme/a", act=FakeAction(nothing), **{"@uninstall": setting.hook("@uninstall")})
    with pytest.raises(NotFound, match="no action '@uninstall'; it has act"):
        await setting.host.actions.run(ANN, "acme/a", "@uninstall", {})
    with pytest.raises(NotFound):
        setting.host.actions.action("default", "acme/a", "@uninstall")

    async def call(guest: Guest) -> None:
        await guest.call("apps", "call", "acme/a", "@uninstall", "{}")

    grant = AppsPermission.model_validate({"capability": "apps", "apps": ["acme/a"], "reason": {"en": "x"}})
    setting.apps.add("acme/b", {"apps": grant}, act=FakeAction(call))
    with pytest.raises((NotFound, Denied)):
        await setting.host.actions.run(ANN, "acme/b", "act", {})
    assert setting.heard == []


async def test_a_hook_has_no_longer_than_somebody_waits(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    async def hang(_guest: Guest) -> None:
        await asyncio.sleep(60)

    monkeypatch.setattr(run_module, "LIFECYCLE_EVENT_SECONDS", 0.1)
    setting.apps.add("acme/a", act=FakeAction(nothing), **{"@install": FakeAction(hang)})
    with pytest.raises(TimedOut):
        await setting.host.actions.tell(ANN, "acme/a", "@install", {})


async def test_a_hook_stays_within_the_quotas(setting: Setting) -> None:
    setting.apps.add("acme/a", act=FakeAction(nothing), **{"@install": setting.hook("@install")})
    with setting.host.database.write() as session:
        session.add(
            Quota(
                workspace_id="default", scope="app", scope_id="acme/a", meter="invocations", window="day", limit=1,
                source="operator", created_at=utc_now(),
            )
        )  # fmt: skip
    await setting.host.actions.tell(ANN, "acme/a", "@install", {})
    with pytest.raises(QuotaExceeded):
        await setting.host.actions.tell(ANN, "acme/a", "@install", {})
    assert len(setting.heard) == 1
