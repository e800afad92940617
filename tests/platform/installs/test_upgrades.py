"""Upgrades and rollbacks."""

import asyncio

import pytest
from tests.platform.installs.setting import HTTP, STORAGE, Setting

from llmasos.bundles.testing import MODEL_PERMISSION
from llmasos.errors import Conflict, NotFound
from llmasos.installs.resolve import parse_requirement
from llmasos.installs.service import ConsentAnswers


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


async def test_two_upgrades_at_once_leave_one_current_release(setting: Setting) -> None:
    setting.publish()
    await setting.install()
    setting.publish("2.0.0")
    setting.runtime.together = asyncio.Barrier(2)
    results = await asyncio.gather(setting.upgrade(), setting.upgrade())
    assert sorted(result.outcome for [result] in results) == ["already", "upgraded"]
    assert setting.states() == {"2.0.0": "current", "1.0.0": "previous"}
