"""Seeding the embedded catalog."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmasos.bundles.testing import action, bundle_files, manifest_text
from llmasos.bundles.writer import write_bundle
from llmasos.errors import ComponentRejected, Unavailable
from llmasos.runtimes.runtime import Inspection, Program
from llmasos_marketplace.catalog import repository
from llmasos_marketplace.catalog.service import Catalog
from llmasos_marketplace.catalog.testing import open_catalog
from llmasos_marketplace.publishing.first_party import (
    first_party_apps,
    first_party_folder,
    make_bundles,
    source_digest,
)
from llmasos_marketplace.publishing.seeding import Seeded, Seeding
from llmasos_marketplace.publishing.service import Publishing


class Passing:
    """A runtime in which every app describes the one action of the test bundles; it counts inspections."""

    def __init__(self) -> None:
        self.inspected = 0

    def of(self, _kind: str) -> "Passing":
        return self

    async def inspect(self, code: Path) -> Inspection:
        self.inspected += 1
        return Inspection(("llmasos:app/model@0.1.0",), ())

    async def prepare(self, program: Program, code: Path) -> None:
        pass

    async def describe(self, program: Program) -> str:
        return json.dumps([action()])


class Builder:
    """Counts builds, and fails for the apps that the test names."""

    def __init__(self) -> None:
        self.built: list[str] = []
        self.failing: set[str] = set()

    async def __call__(self, app: Path, out: Path) -> Path:
        self.built.append(app.name)
        if app.name in self.failing:
            raise Unavailable("there is no Node")
        path = out / f"{app.name}-1.0.0.llmapp"
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
def runtime() -> Passing:
    return Passing()


@pytest.fixture
def seeding(catalog: Catalog, builder: Builder, runtime: Passing, tmp_path: Path) -> Seeding:
    return Seeding(tmp_path / "home", catalog, Publishing(catalog, runtime.of), builder)


async def seed(seeding: Seeding, folder: Path) -> dict[str, Seeded]:
    """Seed the apps of a folder, and return the result of each."""
    seeded = await seeding.seed(first_party_apps(folder), lambda _: None)
    return {each.app_id: each for each in seeded}


def outcomes(seeded: dict[str, Seeded]) -> dict[str, str]:
    return {app_id: each.outcome for app_id, each in seeded.items()}


async def test_the_second_time_nothing_is_built(seeding: Seeding, builder: Builder, plugins: Path) -> None:
    assert not seeding.is_done(first_party_apps(plugins))
    first = await seed(seeding, plugins)
    assert outcomes(first) == {"llmasos/greeter": "published", "llmasos/painter": "published"}
    assert seeding.is_done(first_party_apps(plugins))
    (plugins / "greeter" / "tests" / "test_app.py").write_text("tests are no source")
    second = await seed(seeding, plugins)
    assert outcomes(second) == {"llmasos/greeter": "unchanged", "llmasos/painter": "unchanged"}
    assert len(builder.built) == 2


async def test_an_app_that_was_skipped_is_tried_again_after_the_cure(
    seeding: Seeding, builder: Builder, plugins: Path
) -> None:
    """10, Installable: "skipped before, and nothing changed since" came even after the cure was applied."""
    builder.failing = {"painter"}
    first = await seed(seeding, plugins)
    assert outcomes(first) == {"llmasos/greeter": "published", "llmasos/painter": "skipped"}
    assert "there is no Node" in first["llmasos/painter"].detail
    assert not seeding.is_done(first_party_apps(plugins))
    builder.failing = set()
    assert outcomes(await seed(seeding, plugins)) == {"llmasos/greeter": "unchanged", "llmasos/painter": "published"}
    assert seeding.is_done(first_party_apps(plugins))


async def test_a_prebuilt_bundle_is_taken_as_it_is(
    seeding: Seeding, builder: Builder, plugins: Path, catalog: Catalog
) -> None:
    (plugins / "painter" / "prebuilt").mkdir()
    prebuilt = plugins / "painter" / "prebuilt" / "painter-1.0.0.llmapp"
    digest = write_bundle(bundle_files(manifest_text("llmasos/painter")), prebuilt)
    await seed(seeding, plugins)
    assert builder.built == ["greeter"]
    assert catalog.releases("llmasos/painter")[0].digest == digest


async def test_a_source_that_changed_under_its_version_leaves_the_release_that_is_there(
    seeding: Seeding, plugins: Path, catalog: Catalog
) -> None:
    await seed(seeding, plugins)
    before = catalog.releases("llmasos/greeter")[0].digest
    manifest = plugins / "greeter" / "llmapp.toml"
    manifest.write_text(manifest.read_text().replace("Says hello", "Says hallo"))
    told = await seed(seeding, plugins)
    assert told["llmasos/greeter"].outcome == "unchanged"
    assert "raise `version`" in told["llmasos/greeter"].detail
    assert catalog.releases("llmasos/greeter")[0].digest == before
    manifest.write_text(manifest.read_text().replace('version = "1.0.0"', 'version = "1.1.0"'))
    assert outcomes(await seed(seeding, plugins))["llmasos/greeter"] == "published"
    assert [release.version for release in catalog.releases("llmasos/greeter")] == ["1.1.0", "1.0.0"]


async def test_the_bundles_of_a_package_are_checked_when_it_is_built_and_published_as_they_are(
    seeding: Seeding, builder: Builder, runtime: Passing, plugins: Path, catalog: Catalog, tmp_path: Path
) -> None:
    """11-38: nothing is built, and no sandbox is started, to publish what a wheel brings."""
    packaged = tmp_path / "_first_party"
    at_build = Passing()
    await make_bundles(plugins, packaged, builder, at_build.of)
    assert at_build.inspected == 2
    built = len(builder.built)
    assert set(outcomes(await seed(seeding, packaged)).values()) == {"published"}
    assert (len(builder.built), runtime.inspected) == (built, 0)
    (release,) = catalog.releases("llmasos/greeter")
    assert release.digest == hashlib.sha256((packaged / "greeter-1.0.0.llmapp").read_bytes()).hexdigest()
    with catalog.database.read() as session:
        row = repository.release(session, "llmasos/greeter", "1.0.0")
    assert row is not None
    assert row.imports == ["llmasos:app/model@0.1.0"]


async def test_a_package_is_not_built_with_an_app_that_fails_its_checks(
    builder: Builder, plugins: Path, tmp_path: Path
) -> None:
    class OfAnother(Passing):
        async def describe(self, program: Program) -> str:
            return json.dumps([action("another")])

    with pytest.raises(ComponentRejected, match=r"actions\.json is not what the app describes"):
        await make_bundles(plugins, tmp_path / "_first_party", builder, OfAnother().of)


def test_a_folder_without_apps_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="install LLMasOS again"):
        first_party_apps(tmp_path)


def test_every_first_party_app_is_found_and_has_a_digest_of_its_own() -> None:
    apps = first_party_apps(first_party_folder())
    names = {app.app_id.removeprefix("llmasos/") for app in apps}
    assert names == {"analyst", "coder", "digest", "reader", "storyteller", "translator", "triage", "tutor"}
    assert len({app.digest for app in apps}) == len(apps)


@pytest.mark.parametrize("name", ["llmapp.toml", "README.md", "app.py", "helpers/words.txt", "prebuilt/a.llmapp"])
def test_an_app_is_another_if_any_file_of_its_bundle_is(name: str, tmp_path: Path) -> None:
    for each in ("llmapp.toml", "README.md", "app.py", "helpers/words.txt", "prebuilt/a.llmapp"):
        (tmp_path / each).parent.mkdir(exist_ok=True)
        (tmp_path / each).write_text("before")
    before = source_digest(tmp_path)
    (tmp_path / name).write_text("after!")
    assert source_digest(tmp_path) != before
