"""What an uninstall ends, keeps and deletes, and the collection of unneeded code."""

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlmodel import select
from tests.platform.installs.setting import STORAGE, Setting

from llmasos.bundles.testing import EMPTY_COMPONENT, MODEL_PERMISSION, manifest_text
from llmasos.capabilities.tables import StoredTotal, StoredValue
from llmasos.errors import NotFound
from llmasos.installs.current import installed_app
from llmasos.installs.service import ConsentAnswers
from llmasos.installs.tables import GrantRow, Installation, InstalledRelease
from llmasos.runtimes.compiled import CompiledStore


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
    """What a runtime prepared from this code, long ago."""
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


async def test_an_uninstall_ends_warm_runners(setting: Setting) -> None:
    setting.publish()
    [result] = await setting.install()
    await setting.installer.uninstall("default", "acme/hello", "ann", delete_data=True)
    assert setting.runtime.retired == [result.installation_id]
