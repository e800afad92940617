"""An app's hooks for its install, upgrade and uninstall."""

from typing import Any

import pytest
from tests.platform.installs.setting import HTTP, STORAGE, Setting

from llmasos.bundles.actions import LIFECYCLE_EVENTS
from llmasos.bundles.testing import MODEL_PERMISSION, action
from llmasos.errors import AppFailed, Conflict
from llmasos.i18n import render
from llmasos.installs.installer import Installer
from llmasos.installs.service import ConsentAnswers
from llmasos.kernel.invocation import Principal


class Heard:
    """Records apps' events, with the installed releases at that time; raises `failing` if it is set."""

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
