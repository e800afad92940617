import asyncio
import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlmodel import select

from llmasos.bundles.actions import LIFECYCLE_EVENTS
from llmasos.bundles.testing import EMPTY_COMPONENT, MODEL_PERMISSION, action, manifest_text
from llmasos.capabilities.tables import StoredTotal, StoredValue
from llmasos.database.engine import Database
from llmasos.errors import (
    AppFailed,
    BundleRejected,
    ComponentRejected,
    Conflict,
    ConsentNeeded,
    Invalid,
    NotFound,
    Unavailable,
)
from llmasos.i18n import render
from llmasos.installs import repository
from llmasos.installs.code import CodeStore
from llmasos.installs.current import InstalledApps, installed_app
from llmasos.installs.doctor import check
from llmasos.installs.installer import Installer
from llmasos.installs.resolve import parse_requirement
from llmasos.installs.service import ConsentAnswers, InstallResult
from llmasos.installs.tables import GrantRow, Installation, InstalledRelease
from llmasos.installs.testing import NotingRuntime, Shelf
from llmasos.kernel.audit import verify
from llmasos.kernel.invocation import Principal
from llmasos.kernel.tables import AuditEntry
from llmasos.quotas.tables import Quota
from llmasos.runtimes.compiled import CompiledStore

YES = ConsentAnswers(agreed=True)
STORAGE = '[[permissions]]\ncapability = "storage"\nreason.en = "Remembers."\n'
HTTP = '[[permissions]]\ncapability = "http"\nhosts = ["https://a.com"]\noptional = true\nreason.en = "Reads."\n'


class Setting:
    """A host's database, code store and catalog, with a runtime that only records calls."""

    def __init__(self, home: Path, database: Database) -> None:
        self.home = home
        self.database = database
        (home / "shelf").mkdir()
        self.shelf = Shelf(home / "shelf")
        self.runtime = NotingRuntime()
        self.code = CodeStore.in_home(home)
        self.installer = Installer(self.database, self.shelf, self.code, lambda _kind: self.runtime, "0.1.0")

    def publish(self, version: str = "1.0.0", extra: str = MODEL_PERMISSION, app: str = "acme/hello") -> None:
        self.shelf.add(manifest_text(app, version, extra), EMPTY_COMPONENT)

    async def install(self, text: str = "acme/hello", answers: ConsentAnswers = YES) -> list[InstallResult]:
        planned = self.installer.plan_install("default", parse_requirement(text))
        return await self.installer.carry_out(planned, answers, "ann")

    async def upgrade(self, text: str = "acme/hello", answers: ConsentAnswers = YES) -> list[InstallResult]:
        planned = self.installer.plan_upgrade("default", parse_requirement(text))
        return await self.installer.carry_out(planned, answers, "ann")

    def states(self, app: str = "acme/hello") -> dict[str, str]:
        with self.database.read() as session:
            found = repository.installation(session, "default", app)
            return {r.version: r.state for r in repository.releases(session, found.id)} if found else {}

    def grants(self, app: str = "acme/hello") -> set[str]:
        with self.database.read() as session:
            return set(installed_app(session, "default", app).app.grants)

    def events(self) -> list[str]:
        with self.database.read() as session:
            return [entry.event for entry in session.exec(select(AuditEntry))]

    def daily_limits(self) -> list[int]:
        with self.database.read() as session:
            return [quota.limit for quota in session.exec(select(Quota))]

    def findings(self) -> list[str]:
        with self.database.read() as session:
            return [str(finding) for finding in check(session, self.home)]


@pytest.fixture
def setting(tmp_path: Path, database: Database) -> Iterator[Setting]:
    made = Setting(tmp_path, database)
    yield made
    assert made.findings() == []
    with made.database.read() as session:
        assert verify(session).intact


async def test_an_install_grants_what_was_agreed_and_can_be_run(setting: Setting) -> None:
    setting.publish(
        extra=MODEL_PERMISSION + STORAGE + "[limits]\ncpu_seconds = 2\ntokens_per_day = 500\ntokens_per_run = 9"
    )
    [result] = await setting.install()
    assert (result.outcome, result.version) == ("installed", "1.0.0")
    with setting.database.read() as session:
        found = installed_app(session, "default", "acme/hello")
    assert set(found.app.grants) == found.app.declared == {"model", "storage"}
    assert found.program.capabilities == {"model", "storage", "output", "log", "config"}
    assert found.limits.fuel == 8_000_000_000
    assert found.limits.tokens == 9
    assert found.actions["greet"].title("zh") == "问候"
    assert setting.runtime.prepared == [found.program.digest]
    assert setting.daily_limits() == [500]
    assert setting.events() == ["install"]


async def test_an_install_without_consent_changes_and_prepares_nothing(setting: Setting) -> None:
    setting.publish()
    with pytest.raises(ConsentNeeded, match="--yes"):
        await setting.install(answers=ConsentAnswers())
    assert setting.runtime.prepared == []
    assert setting.states() == {}
    assert not setting.code.root.exists()


async def test_an_optional_permission_can_be_declined_and_a_needed_one_not(setting: Setting) -> None:
    setting.publish(extra=MODEL_PERMISSION + HTTP)
    with pytest.raises(Invalid, match="does not work without model"):
        await setting.install(answers=ConsentAnswers(True, {"acme/hello": frozenset({"model"})}))
    await setting.install(answers=ConsentAnswers(True, {"acme/hello": frozenset({"http"})}))
    assert setting.grants() == {"model"}
    [again] = await setting.install()
    assert again.outcome == "granted"
    assert setting.grants() == {"model", "http"}


async def test_installing_again_changes_nothing(setting: Setting) -> None:
    setting.publish()
    await setting.install()
    [again] = await setting.install(answers=ConsentAnswers())
    assert again.outcome == "already"
    assert setting.events() == ["install"]
    setting.publish("2.0.0")
    assert (await setting.install())[0].version == "1.0.0"
    with pytest.raises(Conflict, match="llmasos upgrade acme/hello"):
        await setting.install("acme/hello>=2")


async def test_a_component_that_imports_more_than_it_declares_is_refused(setting: Setting) -> None:
    """SECURITY C2."""
    setting.publish()
    setting.runtime.imports = ("llmasos:app/model@0.1.0", "llmasos:app/storage@0.1.0", "wasi:cli/stdin@0.2.0")
    with pytest.raises(ComponentRejected, match="imports storage"):
        await setting.install()
    setting.runtime.imports = ("evil:sys/call@1.0.0",)
    with pytest.raises(ComponentRejected, match="evil:sys/call"):
        await setting.install()
    assert setting.states() == {}
    setting.runtime.imports = ("llmasos:app/model@0.1.0", "llmasos:app/types@0.1.0", "llmasos:app/log@0.1.0")
    await setting.install()


async def test_what_cannot_be_prepared_is_not_installed(setting: Setting) -> None:
    setting.publish()
    setting.runtime.failure = Unavailable("no room")
    with pytest.raises(Unavailable, match="no room"):
        await setting.install()
    assert setting.states() == {}
    setting.runtime.failure = None
    await setting.install()


async def test_a_bundle_that_was_swapped_in_the_catalog_is_refused(setting: Setting) -> None:
    """SECURITY P1."""
    setting.publish()
    setting.publish("1.0.1")
    first, second = (c.digest for c in setting.shelf.listed["acme/hello"])
    setting.shelf.files[second] = setting.shelf.files[first]
    with pytest.raises(BundleRejected, match="not the one that was published"):
        await setting.install()


async def test_config_is_checked_and_defaults_are_filled_in(setting: Setting) -> None:
    fields = (
        '[config.tone]\ntype = "string"\nenum = ["kind", "curt"]\ndefault = "kind"\ntitle.en = "Tone"\n'
        '[config.labels]\ntype = "array"\ntitle.en = "Labels"\n'
    )
    setting.publish(extra=MODEL_PERMISSION + fields)
    for config, said in (
        ({}, "'labels' needs a value"),
        ({"labels": ["a"], "tone": "rude"}, "'kind', 'curt'"),
        ({"labels": "a"}, "array"),
        ({"labels": [], "x": 1}, "'x' is not a field"),
    ):
        with pytest.raises(Invalid, match=said):
            await setting.install(answers=ConsentAnswers(True, config={"acme/hello": config}))
    await setting.install(answers=ConsentAnswers(True, config={"acme/hello": {"labels": ["a"]}}))
    with setting.database.read() as session:
        assert installed_app(session, "default", "acme/hello").app.config == {"tone": "kind", "labels": ["a"]}
    setting.publish("2.0.0", MODEL_PERMISSION + fields)
    await setting.upgrade()
    with setting.database.read() as session:
        assert installed_app(session, "default", "acme/hello").app.config == {"tone": "kind", "labels": ["a"]}


async def test_the_settings_of_an_installed_app_can_be_changed(setting: Setting) -> None:
    fields = "".join(
        f'[config.{name}]\ntype = "string"\ndefault = "kind"\ntitle.en = "{name}"\n' for name in ("tone", "name")
    )
    setting.publish(extra=MODEL_PERMISSION + fields)
    await setting.install()
    outcomes = [setting.installer.configure("default", "acme/hello", {"tone": "curt"}, "ann").outcome for _ in range(2)]
    assert outcomes == ["configured", "already"]
    with setting.database.read() as session:
        assert installed_app(session, "default", "acme/hello").app.config == {"tone": "curt", "name": "kind"}
    for wrong in ({"tone": 5}, {"other": "x"}):
        with pytest.raises(Invalid, match="Fields: tone, name"):
            setting.installer.configure("default", "acme/hello", wrong, "ann")
    assert setting.events()[-1] == "configure"


async def test_dependencies_come_with_their_own_consent_and_stay_while_needed(setting: Setting) -> None:
    apps = '[[permissions]]\ncapability = "apps"\napps = ["acme/words"]\nreason.en = "x"\n'
    setting.publish(extra=apps + '[dependencies]\n"acme/words" = ">=1"')
    setting.publish(app="acme/words")
    planned = setting.installer.plan_install("default", parse_requirement("acme/hello"))
    assert [step.app_id for step in planned.steps] == ["acme/words", "acme/hello"]
    await setting.installer.carry_out(planned, YES, "ann")
    with setting.database.read() as session:
        release = repository.current(session, "default", "acme/hello")[1]
        assert release.lock == {
            "acme/words": {"version": "1.0.0", "digest": setting.shelf.releases("acme/words")[0].digest}
        }
    with pytest.raises(Conflict, match="acme/hello depends on acme/words"):
        await setting.installer.uninstall("default", "acme/words", "ann", delete_data=False)
    await setting.installer.uninstall("default", "acme/hello", "ann", delete_data=False)
    await setting.installer.uninstall("default", "acme/words", "ann", delete_data=False)


async def test_an_upgrade_that_asks_for_no_more_needs_no_consent(setting: Setting) -> None:
    setting.publish(extra=MODEL_PERMISSION + STORAGE)
    await setting.install()
    setting.publish("1.1.0", MODEL_PERMISSION)
    [result] = await setting.upgrade(answers=ConsentAnswers())
    assert (result.outcome, result.version) == ("upgraded", "1.1.0")
    assert setting.grants() == {"model"}
    assert setting.states() == {"1.1.0": "current", "1.0.0": "previous"}
    assert (await setting.upgrade())[0].outcome == "already"


async def test_an_upgrade_that_asks_for_more_waits_for_consent_while_the_old_release_runs(setting: Setting) -> None:
    """SECURITY P1."""
    setting.publish(extra=MODEL_PERMISSION + "[limits]\ntokens_per_day = 5")
    await setting.install()
    setting.publish("2.0.0", MODEL_PERMISSION + STORAGE + "[limits]\ntokens_per_day = 5")
    [step] = setting.installer.plan_upgrade("default", parse_requirement("acme/hello")).steps
    assert {each.capability: each.status for each in step.request.permissions} == {"model": "same", "storage": "new"}
    for _ in range(2):
        [result] = await setting.upgrade(answers=ConsentAnswers())
        assert result.outcome == "waiting"
    assert setting.states() == {"2.0.0": "pending", "1.0.0": "current"}
    assert setting.grants() == {"model"}
    assert setting.events() == ["install", "upgrade.wait"]
    [result] = await setting.upgrade()
    assert result.outcome == "upgraded"
    assert setting.grants() == {"model", "storage"}
    assert setting.states() == {"2.0.0": "current", "1.0.0": "previous"}


async def test_an_upgrade_with_a_new_dependency_waits_whole(setting: Setting) -> None:
    setting.publish()
    await setting.install()
    setting.publish("2.0.0", MODEL_PERMISSION + '[dependencies]\n"acme/words" = ">=1"')
    setting.publish(app="acme/words")
    assert [r.outcome for r in await setting.upgrade(answers=ConsentAnswers())] == ["waiting"]
    assert setting.states("acme/words") == {}
    assert [r.outcome for r in await setting.upgrade()] == ["installed", "upgraded"]


async def test_raised_limits_wait_for_consent_and_move_the_quota(setting: Setting) -> None:
    setting.publish(extra=MODEL_PERMISSION + "[limits]\ntokens_per_day = 5")
    await setting.install()
    setting.publish("2.0.0", MODEL_PERMISSION + "[limits]\ntokens_per_day = 50")
    assert (await setting.upgrade(answers=ConsentAnswers()))[0].outcome == "waiting"
    assert setting.daily_limits() == [5]
    await setting.upgrade()
    assert setting.daily_limits() == [50]
    await setting.installer.rollback("default", "acme/hello", "ann")
    assert setting.daily_limits() == [5]


async def test_what_was_declined_is_not_granted_by_an_upgrade(setting: Setting) -> None:
    setting.publish(extra=MODEL_PERMISSION + HTTP)
    await setting.install(answers=ConsentAnswers(True, {"acme/hello": frozenset({"http"})}))
    setting.publish("1.1.0", MODEL_PERMISSION + HTTP)
    assert (await setting.upgrade())[0].outcome == "upgraded"
    assert setting.grants() == {"model"}


async def test_a_rollback_is_one_step_and_gives_back_no_revoked_grant(setting: Setting) -> None:
    setting.publish("1.0.0", MODEL_PERMISSION + STORAGE)
    await setting.install()
    setting.publish("2.0.0", MODEL_PERMISSION + STORAGE + HTTP)
    await setting.upgrade()
    await setting.installer.revoke("default", "acme/hello", "storage", "ann")
    assert setting.grants() == {"model", "http"}
    result = await setting.installer.rollback("default", "acme/hello", "ann")
    assert (result.outcome, result.version) == ("rolled-back", "1.0.0")
    assert setting.grants() == {"model"}
    assert setting.states() == {"1.0.0": "current"}
    with pytest.raises(NotFound, match=r"acme/hello@1\.0\.0"):
        await setting.installer.rollback("default", "acme/hello", "ann")
    assert setting.events() == ["install", "upgrade", "grants.revoke", "rollback"]


async def test_a_rollback_that_others_forbid_is_refused(setting: Setting) -> None:
    setting.publish("1.0.0", app="acme/words")
    await setting.install("acme/words")
    setting.publish("2.0.0", app="acme/words")
    await setting.upgrade("acme/words")
    setting.publish(extra=MODEL_PERMISSION + '[dependencies]\n"acme/words" = ">=2"')
    await setting.install()
    with pytest.raises(Conflict, match=r"acme/hello 1\.0\.0 needs acme/words >=2"):
        await setting.installer.rollback("default", "acme/words", "ann")


async def test_only_a_few_earlier_releases_are_kept(setting: Setting) -> None:
    for minor in range(6):
        setting.publish(f"1.{minor}.0")
        await (setting.install() if minor == 0 else setting.upgrade())
    assert setting.states() == {"1.5.0": "current", "1.4.0": "previous", "1.3.0": "previous", "1.2.0": "previous"}


@pytest.mark.parametrize("delete_data", [True, False])
async def test_an_uninstall_keeps_or_deletes_what_the_app_stored(setting: Setting, delete_data: bool) -> None:
    """10-6: the byte total used to stay, and the app that was installed again started full."""
    setting.publish(extra=STORAGE + "[limits]\ntokens_per_day = 5")
    await setting.install()
    now = datetime.now(UTC)
    with setting.database.write() as session:
        for app in ("acme/hello", "acme/other"):
            session.add(
                StoredValue(
                    workspace_id="default", app_id=app, user_id="ann", key="k", value="v", version=1, size_bytes=1,
                    updated_at=now,
                )
            )  # fmt: skip
            session.add(StoredTotal(workspace_id="default", app_id=app, user_id="ann", size_bytes=2))
    await setting.installer.uninstall("default", "acme/hello", "ann", delete_data=delete_data)
    with setting.database.read() as session:
        left = sorted(value.app_id for value in session.exec(select(StoredValue)))
        assert sorted(total.app_id for total in session.exec(select(StoredTotal))) == left
        assert list(session.exec(select(Installation))) == []
        assert list(session.exec(select(InstalledRelease))) == []
        assert list(session.exec(select(GrantRow))) == []
        with pytest.raises(NotFound, match="not installed"):
            installed_app(session, "default", "acme/hello")
    assert left == (["acme/other"] if delete_data else ["acme/hello", "acme/other"])
    assert setting.daily_limits() == []


async def test_two_installs_at_once_make_one_installation(setting: Setting) -> None:
    setting.publish()
    setting.runtime.together = asyncio.Barrier(2)
    results = await asyncio.gather(setting.install(), setting.install())
    assert sorted(result.outcome for [result] in results) == ["already", "installed"]
    assert len({result.installation_id for [result] in results}) == 1
    assert setting.events() == ["install"]


async def test_an_install_that_raced_with_another_version_is_a_conflict(setting: Setting) -> None:
    setting.publish("1.0.0")
    setting.publish("2.0.0")
    setting.runtime.together = asyncio.Barrier(2)
    ends = await asyncio.gather(
        setting.install("acme/hello@1.0.0"), setting.install("acme/hello@2.0.0"), return_exceptions=True
    )
    [lost] = [end for end in ends if isinstance(end, BaseException)]
    assert isinstance(lost, Conflict)
    assert "meanwhile: run the command again" in str(lost)
    assert len(setting.states()) == 1


async def test_two_upgrades_at_once_leave_one_current_release(setting: Setting) -> None:
    setting.publish()
    await setting.install()
    setting.publish("2.0.0")
    setting.runtime.together = asyncio.Barrier(2)
    results = await asyncio.gather(setting.upgrade(), setting.upgrade())
    assert sorted(result.outcome for [result] in results) == ["already", "upgraded"]
    assert setting.states() == {"2.0.0": "current", "1.0.0": "previous"}


async def test_workspaces_are_separate(setting: Setting) -> None:
    setting.publish()
    await setting.install()
    planned = setting.installer.plan_install("other", parse_requirement("acme/hello"))
    await setting.installer.carry_out(planned, YES, "bob")
    await setting.installer.uninstall("default", "acme/hello", "ann", delete_data=True)
    with setting.database.read() as session:
        assert installed_app(session, "other", "acme/hello").app.version == "1.0.0"


async def test_code_that_no_installation_needs_is_swept_after_an_hour(setting: Setting) -> None:
    setting.publish()
    await setting.install()
    old = setting.code.root / ("0" * 64)
    abandoned = setting.code.root / ".tmp-x"
    fresh = setting.code.root / ".tmp-y"
    for folder in (old, abandoned, fresh):
        folder.mkdir()
    for folder in (old, abandoned, *setting.code.root.glob("[1-9a-f]*")):
        os.utime(folder, (0, 0))
    setting.publish(app="acme/other")
    await setting.install("acme/other")
    assert not old.exists()
    assert not abandoned.exists()
    assert fresh.exists()


def prepared(home: Path, digest: str) -> list[Path]:
    """What a runtime would have made of this code, long ago."""
    store = CompiledStore(home / "compiled")
    environment = home / "environments" / f"{digest}-{'0' * 16}"
    environment.mkdir(parents=True)
    (home / "compiled").mkdir(exist_ok=True)
    made = [store.path(digest), store.path(digest).with_suffix(".json"), environment / "complete"]
    for path in made:
        path.write_bytes(b"x")
        os.utime(path, (0, 0))
    os.utime(environment, (0, 0))
    return made[:2]


async def test_prepared_code_is_removed_once_no_release_needs_it(setting: Setting) -> None:
    """10-19: compiled components of 40 MB each, and environments, were never collected."""
    files: dict[str, list[Path]] = {}
    for minor in range(5):
        component = EMPTY_COMPONENT + bytes([0, 2, 1, minor])
        added = setting.shelf.add(manifest_text("acme/hello", f"1.{minor}.0", MODEL_PERMISSION), component)
        digest = setting.shelf.read(added.digest).component_digest
        files[added.version] = prepared(setting.home, digest)
        await (setting.install() if minor == 0 else setting.upgrade())
    waiting = setting.shelf.add(manifest_text("acme/hello", "2.0.0", MODEL_PERMISSION + STORAGE), EMPTY_COMPONENT)
    files["2.0.0"] = prepared(setting.home, setting.shelf.read(waiting.digest).component_digest)
    await setting.upgrade(answers=ConsentAnswers())
    assert set(setting.states()) == {"2.0.0", "1.4.0", "1.3.0", "1.2.0", "1.1.0"}
    kept = {version for version, paths in files.items() if all(path.exists() for path in paths)}
    assert kept == set(setting.states())
    assert not any(path.exists() for path in files["1.0.0"])
    await setting.installer.uninstall("default", "acme/hello", "ann", delete_data=True)
    assert not any(path.exists() for paths in files.values() for path in paths)
    assert list((setting.home / "environments").glob("[0-9a-f]*")) == []


async def test_a_change_stands_though_nothing_can_be_collected(
    setting: Setting, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> int:
        raise PermissionError("the folder is somebody else's")

    monkeypatch.setattr("llmasos.installs.collection.prepared.collect", fail)
    setting.publish()
    assert (await setting.install())[0].outcome == "installed"
    assert "could not be removed" in caplog.text


class Heard:
    """Records what apps are told, with the releases installed then; raises `failing` if it is set."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.told: list[tuple[str, str, Any, dict[str, str]]] = []
        self.failing: Exception | None = None

    async def __call__(self, principal: Principal, app_id: str, event: str, value: Any) -> None:
        assert principal == Principal("default", "ann")
        self.told.append((app_id, event, value, self.setting.states(app_id)))
        if self.failing is not None:
            raise self.failing


@pytest.fixture
def heard(setting: Setting) -> Heard:
    """Every app of the shelf has a hook for every lifecycle event."""
    found = Heard(setting)
    setting.installer = Installer(
        setting.database, setting.shelf, setting.code, lambda _kind: setting.runtime, "0.1.0", tell=found
    )
    setting.shelf.actions = [action(), *({"name": name} for name in sorted(LIFECYCLE_EVENTS))]
    return found


async def test_an_app_is_told_of_each_change_once_as_an_installed_release(setting: Setting, heard: Heard) -> None:
    setting.publish("1.0.0", MODEL_PERMISSION + HTTP)
    setting.publish("1.1.0", MODEL_PERMISSION + HTTP)
    await setting.install("acme/hello@1.0.0")
    await setting.install("acme/hello@1.0.0")
    await setting.upgrade()
    await setting.upgrade()
    await setting.installer.rollback("default", "acme/hello", "ann")
    await setting.installer.revoke("default", "acme/hello", "http", "ann")
    await setting.install("acme/hello@1.0.0")
    await setting.installer.uninstall("default", "acme/hello", "ann", delete_data=True)
    one, two = {"1.0.0": "current"}, {"1.1.0": "current", "1.0.0": "previous"}
    event = lambda **payload: {"event": {"name": "grants", "payload": payload}}  # noqa: E731
    assert heard.told == [
        ("acme/hello", "@install", {}, one),
        ("acme/hello", "@upgrade", {"from_version": "1.0.0"}, two),
        ("acme/hello", "@upgrade", {"from_version": "1.1.0"}, one),
        ("acme/hello", "@event", event(held=["model"], added=[], removed=["http"]), one),
        ("acme/hello", "@event", event(held=["http", "model"], added=["http"], removed=[]), one),
        ("acme/hello", "@uninstall", {}, one),
    ]
    assert setting.states() == {}


async def test_a_pending_or_refused_change_is_no_lifecycle_event(setting: Setting, heard: Heard) -> None:
    setting.publish("1.0.0", app="acme/words")
    setting.publish("1.0.0", MODEL_PERMISSION + '[dependencies]\n"acme/words" = ">=1"\n')
    setting.publish("1.1.0", MODEL_PERMISSION + STORAGE + '[dependencies]\n"acme/words" = ">=1"\n')
    await setting.install("acme/hello@1.0.0")
    assert [(app, event) for app, event, *_ in heard.told] == [("acme/words", "@install"), ("acme/hello", "@install")]
    await setting.upgrade(answers=ConsentAnswers())
    with pytest.raises(Conflict):
        await setting.installer.uninstall("default", "acme/words", "ann", delete_data=False)
    assert len(heard.told) == 2


@pytest.mark.parametrize(
    ("error", "said"), [(AppFailed("the app failed: no."), "the app failed: no"), (OSError("!"), "not available now")]
)
async def test_a_hook_that_fails_undoes_nothing_and_says_what_to_do(
    setting: Setting, heard: Heard, error: Exception, said: str
) -> None:
    heard.failing = error
    setting.publish("1.0.0")
    setting.publish("1.1.0")
    [installed] = await setting.install("acme/hello@1.0.0")
    [upgraded] = await setting.upgrade()
    assert setting.states() == {"1.1.0": "current", "1.0.0": "previous"}
    gone = await setting.installer.uninstall("default", "acme/hello", "ann", delete_data=False)
    assert setting.states() == {}
    for result, cure, cure_zh in (
        (installed, "uninstall it and install it again", "请卸载后重新安装"),
        (upgraded, "llmasos rollback acme/hello", "llmasos rollback acme/hello"),
        (gone, "nothing that you must do", "无需做任何事"),
    ):
        assert result.failure is not None
        assert said in result.failure.message
        assert cure in result.failure.message
        assert cure_zh in render(result.failure.message, "zh")


async def test_an_app_without_hooks_is_told_nothing(setting: Setting, heard: Heard) -> None:
    setting.shelf.actions = None
    setting.publish()
    await setting.install()
    await setting.installer.uninstall("default", "acme/hello", "ann", delete_data=True)
    assert heard.told == []


async def test_an_uninstall_ends_warm_runners(setting: Setting) -> None:
    setting.publish()
    [result] = await setting.install()
    await setting.installer.uninstall("default", "acme/hello", "ann", delete_data=True)
    assert setting.runtime.retired == [result.installation_id]


async def test_the_doctor_sees_what_is_wrong(setting: Setting) -> None:
    setting.publish(extra=MODEL_PERMISSION + "[limits]\ntokens_per_day = 5")
    await setting.install()
    file = next(setting.code.root.glob("*/app.wasm"))
    whole = file.read_bytes()
    file.write_bytes(whole + b"x")
    assert any("damaged" in finding for finding in setting.findings())
    apps = InstalledApps(setting.database, setting.code)
    with pytest.raises(Unavailable, match="llmasos install acme/hello"):
        apps.code(apps.runnable("default", "acme/hello"))
    assert (await setting.install())[0].outcome == "restored"
    assert file.read_bytes() == whole
    assert setting.findings() == []
    wider = json.dumps({"capability": "model", "tiers": ["best"], "reason": {"en": "x"}})
    spoils = {
        "wider": ('UPDATE "grant" SET scope = :v', wider),
        "daily limit": ('UPDATE quota SET "limit" = :v', 6),
        "say that they run": ("UPDATE installed_release SET state = :v", "previous"),
    }
    for said, (statement, value) in spoils.items():
        with setting.database.write() as session:
            session.connection().execute(text(statement), {"v": value})
            assert any(said in str(finding) for finding in check(session, setting.home)), said
            session.rollback()
