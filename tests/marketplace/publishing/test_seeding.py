"""Seeding the embedded catalog."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmasos.bundles.testing import action, bundle_files, manifest_text
from llmasos.bundles.writer import write_bundle
from llmasos.errors import Unavailable
from llmasos.runtimes.runtime import Inspection, Program
from llmasos_marketplace.catalog.service import Catalog
from llmasos_marketplace.catalog.testing import open_catalog
from llmasos_marketplace.publishing.seeding import Seeded, Seeding, plugins_folder, source_digest
from llmasos_marketplace.publishing.service import Publishing


class Passing:
    """A runtime in which every app describes the one action of the test bundles."""

    async def inspect(self, code: Path) -> Inspection:
        return Inspection(("llmasos:app/model@0.1.0",), ())

    async def prepare(self, program: Program, code: Path) -> None:
        pass

    async def describe(self, program: Program) -> str:
        return json.dumps([action()])


class Builder:
    """Counts builds, and fails where it is told to."""

    def __init__(self) -> None:
        self.built: list[str] = []
        self.failing: set[str] = set()

    async def __call__(self, app: Path, out: Path) -> Path:
        self.built.append(app.name)
        if app.name in self.failing:
            raise Unavailable("there is no Node")
        path = out / "built.llmapp"
        write_bundle(bundle_files((app / "llmapp.toml").read_text()), path)
        return path


@pytest.fixture
def plugins(tmp_path: Path) -> Path:
    folder = tmp_path / "plugins"
    for name in ("greeter", "painter"):
        (folder / name / "tests").mkdir(parents=True)
        (folder / name / "llmapp.toml").write_text(manifest_text(f"llmasos/{name}"))
        (folder / name / "app.py").write_text("app = 1")
    (folder / "an-operator-plugin").mkdir()
    return folder


@pytest.fixture
def catalog(tmp_path: Path, database_url: str) -> Iterator[Catalog]:
    opened = open_catalog(tmp_path / "home", database_url)
    yield opened
    opened.database.close()


@pytest.fixture
def builder() -> Builder:
    return Builder()


@pytest.fixture
def seeding(catalog: Catalog, builder: Builder, tmp_path: Path) -> Seeding:
    return Seeding(tmp_path / "home", catalog, Publishing(catalog, lambda _kind: Passing()), builder)


def outcomes(seeded: list[Seeded]) -> dict[str, str]:
    return {each.app_id: each.outcome for each in seeded}


async def test_the_second_time_nothing_is_built(seeding: Seeding, builder: Builder, plugins: Path) -> None:
    assert not seeding.is_done(plugins)
    first = await seeding.seed(plugins, lambda _: None)
    assert outcomes(first) == {"llmasos/greeter": "published", "llmasos/painter": "published"}
    assert seeding.is_done(plugins)
    (plugins / "greeter" / "tests" / "test_app.py").write_text("tests are no source")
    second = await seeding.seed(plugins, lambda _: None)
    assert outcomes(second) == {"llmasos/greeter": "unchanged", "llmasos/painter": "unchanged"}
    assert len(builder.built) == 2


async def test_what_cannot_be_built_is_skipped_once_and_said(
    seeding: Seeding, builder: Builder, plugins: Path, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    builder.failing = {"painter"}
    told: list[Seeded] = []
    await seeding.seed(plugins, told.append)
    assert outcomes(told) == {"llmasos/greeter": "published", "llmasos/painter": "skipped"}
    assert seeding.is_done(plugins)
    await seeding.seed(plugins, lambda _: None)
    assert builder.built.count("painter") == 1
    # With other tools it is worth another try.
    there = shutil.which("node")
    monkeypatch.setattr(shutil, "which", lambda _name: None if there else "/usr/bin/node")
    builder.failing = set()
    assert outcomes(await seeding.seed(plugins, lambda _: None))["llmasos/painter"] == "published"


async def test_a_prebuilt_bundle_is_taken_as_it_is(
    seeding: Seeding, builder: Builder, plugins: Path, catalog: Catalog
) -> None:
    (plugins / "painter" / "prebuilt").mkdir()
    prebuilt = plugins / "painter" / "prebuilt" / "painter-1.0.0.llmapp"
    digest = write_bundle(bundle_files(manifest_text("llmasos/painter")), prebuilt)
    await seeding.seed(plugins, lambda _: None)
    assert builder.built == ["greeter"]
    assert catalog.releases("llmasos/painter")[0].digest == digest


async def test_a_source_that_changed_under_its_version_leaves_the_release_that_is_there(
    seeding: Seeding, plugins: Path, catalog: Catalog
) -> None:
    await seeding.seed(plugins, lambda _: None)
    before = catalog.releases("llmasos/greeter")[0].digest
    manifest = plugins / "greeter" / "llmapp.toml"
    manifest.write_text(manifest.read_text().replace("Says hello", "Says hallo"))
    told = {each.app_id: each for each in await seeding.seed(plugins, lambda _: None)}
    assert told["llmasos/greeter"].outcome == "unchanged"
    assert "raise `version`" in told["llmasos/greeter"].detail
    assert catalog.releases("llmasos/greeter")[0].digest == before
    manifest.write_text(manifest.read_text().replace('version = "1.0.0"', 'version = "1.1.0"'))
    assert outcomes(await seeding.seed(plugins, lambda _: None))["llmasos/greeter"] == "published"
    assert [release.version for release in catalog.releases("llmasos/greeter")] == ["1.1.0", "1.0.0"]


def test_the_first_party_apps_are_found_and_each_source_has_a_digest() -> None:
    names = {path.parent.name for path in plugins_folder().glob("*/llmapp.toml")}
    assert {"triage", "storyteller", "tutor", "coder", "translator"} <= names
    assert len({source_digest(plugins_folder() / name) for name in names}) == len(names)
