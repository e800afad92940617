import asyncio
import json

import pytest
from sqlalchemy import text
from tests.platform.installs.setting import HTTP, STORAGE, YES, Setting

from llmasos.bundles.testing import MODEL_PERMISSION
from llmasos.errors import BundleRejected, ComponentRejected, Conflict, ConsentNeeded, Invalid, Unavailable
from llmasos.installs import repository
from llmasos.installs.current import InstalledApps, installed_app
from llmasos.installs.doctor import check
from llmasos.installs.resolve import parse_requirement
from llmasos.installs.service import ConsentAnswers


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
    assert "in the meantime: run the command again" in str(lost)
    assert len(setting.states()) == 1


async def test_workspaces_are_separate(setting: Setting) -> None:
    setting.publish()
    await setting.install()
    planned = setting.installer.plan_install("other", parse_requirement("acme/hello"))
    await setting.installer.carry_out(planned, YES, "bob")
    await setting.installer.uninstall("default", "acme/hello", "ann", delete_data=True)
    with setting.database.read() as session:
        assert installed_app(session, "other", "acme/hello").app.version == "1.0.0"


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
        "are marked as current": ("UPDATE installed_release SET state = :v", "previous"),
    }
    for said, (statement, value) in spoils.items():
        with setting.database.write() as session:
            session.connection().execute(text(statement), {"v": value})
            assert any(said in str(finding) for finding in check(session, setting.home)), said
            session.rollback()
