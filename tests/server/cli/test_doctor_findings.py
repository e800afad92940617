"""What doctor finds, function by function."""

from pathlib import Path

import pytest

from llmasos.bundles.testing import make_bundle, manifest_text
from llmasos_marketplace.catalog.service import Catalog
from llmasos_marketplace.catalog.testing import add_bundle, open_catalog
from llmasos_runner.profiles import app_users
from llmasos_server.doctor import check_bundles, check_sizes
from llmasos_server.doctor_machine import Finding, check_confinement, check_trusted


def test_doctor_says_how_much_is_where(tmp_path: Path) -> None:
    """10-19: nobody could see that compiled components and environments fill the disk."""
    assert list(check_sizes(tmp_path / "missing")) == []
    for name, mebibytes in (("compiled", 3), ("environments", 5), ("small", 0)):
        (tmp_path / name / "inside").mkdir(parents=True)
        with (tmp_path / name / "inside" / "file").open("wb") as file:
            file.truncate(mebibytes << 20)
    (finding,) = check_sizes(tmp_path)
    assert str(finding.message) == "The home takes 8 MiB: environments 5, compiled 3."


def test_doctor_counts_one_thing_as_one(home: Path, tmp_path: Path) -> None:
    """11-S15: "1 releases have their bundles"."""
    catalog = open_catalog(home)
    add_bundle(catalog, make_bundle(tmp_path / "made", manifest_text()))
    assert [str(each.message) for each in _bundles(catalog, home)] == ["1 release has its bundle."]
    add_bundle(catalog, make_bundle(tmp_path / "made", manifest_text(version="2.0.0")))
    assert [str(each.message) for each in _bundles(catalog, home)] == ["2 releases have their bundles."]
    catalog.database.close()


def _bundles(catalog: Catalog, home: Path) -> list[Finding]:
    with catalog.database.read() as session:
        return list(check_bundles(session, home))


def test_doctor_names_the_apps_that_may_run_unconfined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """11-S15."""
    assert list(check_trusted(tmp_path)) == []
    monkeypatch.setenv("LLMASOS_TRUSTED_APPS", '["acme/probe", "acme/other"]')
    (finding,) = check_trusted(tmp_path)
    assert finding.status == "note"
    assert "acme/probe, acme/other" in str(finding.message)


@pytest.mark.skipif(app_users() is None, reason="only root has other users to give to apps")
async def test_a_runner_of_root_is_another_user_in_a_home_that_the_host_made() -> None:
    """11-S15, its kind: prepared code had become private to root, so that runners stayed root."""
    said = [str(finding.message) async for finding in check_confinement()]
    assert any("own user" in each for each in said), said
