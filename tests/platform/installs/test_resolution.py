from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packaging.specifiers import SpecifierSet

from llmasos.bundles.manifest import parse_manifest
from llmasos.bundles.testing import manifest_text
from llmasos.errors import Conflict, Invalid, LlmasosError, NotFound
from llmasos.installs.resolve import LockedRelease, Requirement, lock_of, parse_requirement, resolve
from llmasos.installs.source import Candidate


class Shelf:
    """Releases in memory."""

    def __init__(self, *candidates: Candidate) -> None:
        self.candidates = list(candidates)

    def releases(self, app_id: str) -> list[Candidate]:
        return [c for c in self.candidates if c.app_id == app_id]

    def bundle(self, digest: str) -> Path:
        raise NotFound


def release(
    app: str, version: str, needs: dict[str, str] | None = None, compat: str = ">=0", **state: bool
) -> Candidate:
    listed = "\n".join(f'"{other}" = "{spec}"' for other, spec in (needs or {}).items() if other != app)
    text = manifest_text(app, version, f'[compat]\nllmasos = "{compat}"\n[dependencies]\n{listed}\n')
    return Candidate(app, version, f"digest-{app}-{version}", parse_manifest(text), **state)


def chosen(shelf: Shelf, wanted: str, **options: object) -> dict[str, str]:
    found = resolve(parse_requirement(wanted), shelf, "0.1.0", **options)
    return {app: candidate.version for app, candidate in found.items()}


def test_the_newest_fitting_release_is_taken_by_version_not_by_text() -> None:
    shelf = Shelf(release("a/x", "1.9"), release("a/x", "1.10"), release("a/x", "2.0"))
    assert chosen(shelf, "a/x") == {"a/x": "2.0"}
    assert chosen(shelf, "a/x<2") == {"a/x": "1.10"}
    assert chosen(shelf, "a/x@1.9") == {"a/x": "1.9"}


def test_a_prerelease_is_taken_only_on_request() -> None:
    shelf = Shelf(release("a/x", "1.0"), release("a/x", "2.0a1"))
    assert chosen(shelf, "a/x") == {"a/x": "1.0"}
    assert chosen(shelf, "a/x@2.0a1") == {"a/x": "2.0a1"}
    asked = Requirement("a/x", SpecifierSet(), prereleases=True)
    assert resolve(asked, shelf, "0.1.0")["a/x"].version == "2.0a1"
    with pytest.raises(Conflict, match="pre-release"):
        chosen(Shelf(release("a/x", "2.0a1")), "a/x")


def test_a_yanked_release_is_taken_only_from_a_lock() -> None:
    yanked = release("a/x", "1.1", yanked=True)
    shelf = Shelf(release("a/x", "1.0"), yanked)
    assert chosen(shelf, "a/x") == {"a/x": "1.0"}
    with pytest.raises(Conflict, match=r"1\.1: it was yanked"):
        chosen(shelf, "a/x@1.1")
    assert chosen(shelf, "a/x", locked={"a/x": LockedRelease("1.1", yanked.digest)}) == {"a/x": "1.1"}
    with pytest.raises(Conflict, match="bytes"):
        chosen(shelf, "a/x@1.1", locked={"a/x": LockedRelease("1.1", "other")})


def test_a_quarantined_release_is_never_taken() -> None:
    bad = release("a/x", "1.1", quarantined=True)
    with pytest.raises(Conflict, match="quarantined"):
        chosen(Shelf(bad), "a/x", locked={"a/x": LockedRelease("1.1", bad.digest)})


def test_a_release_for_another_host_version_is_skipped() -> None:
    shelf = Shelf(release("a/x", "1.0"), release("a/x", "2.0", compat=">=9"))
    assert chosen(shelf, "a/x") == {"a/x": "1.0"}
    with pytest.raises(Conflict, match=r"needs llmasos >=9, and this is 0\.1\.0"):
        chosen(shelf, "a/x@2.0")


def test_dependencies_are_resolved_with_backtracking() -> None:
    shelf = Shelf(
        release("a/x", "1.0", {"a/y": ">=1", "a/z": ">=1"}),
        release("a/y", "2.0", {"a/z": "<2"}),
        release("a/y", "1.0"),
        release("a/z", "1.0", {"a/w": ">=9"}),
        release("a/z", "2.0"),
        release("a/w", "1.0"),
    )
    assert chosen(shelf, "a/x") == {"a/x": "1.0", "a/y": "1.0", "a/z": "2.0"}


def test_a_dependency_cycle_resolves() -> None:
    shelf = Shelf(release("a/x", "1.0", {"a/y": ">=1"}), release("a/y", "1.0", {"a/x": ">=1"}))
    assert chosen(shelf, "a/x") == {"a/x": "1.0", "a/y": "1.0"}


def test_a_conflict_names_each_requirement_and_the_releases_there_are() -> None:
    shelf = Shelf(
        release("a/x", "1.0", {"a/y": "<2", "a/z": ">=1"}), release("a/y", "1.0"), release("a/z", "1.0", {"a/y": ">=2"})
    )
    with pytest.raises(Conflict) as caught:
        chosen(shelf, "a/x")
    assert "no release of a/y fits (a/x 1.0 needs <2; a/z 1.0 needs >=2)" in caught.value.message
    assert "1.0: it does not fit" in caught.value.message


def test_a_missing_dependency_is_named_with_the_app_that_needs_it() -> None:
    with pytest.raises(NotFound, match="no app a/x"):
        chosen(Shelf(), "a/x")
    with pytest.raises(NotFound, match=r"no app a/y; a/x 1\.0 depends on it"):
        chosen(Shelf(release("a/x", "1.0", {"a/y": ">=1"})), "a/x")


def test_what_is_installed_stays_or_the_conflict_names_the_upgrade() -> None:
    shelf = Shelf(release("a/x", "1.0", {"a/y": ">=2"}), release("a/y", "1.0"), release("a/y", "2.0"))
    there = {"a/y": release("a/y", "1.0", yanked=True)}
    with pytest.raises(Conflict, match="llmasos upgrade a/y"):
        chosen(shelf, "a/x", installed=there)
    older = Shelf(release("a/x", "1.0", {"a/y": ">=1"}), release("a/y", "2.0"))
    assert chosen(older, "a/x", installed=there)["a/y"] == "1.0"


def test_an_upgrade_respects_what_installed_apps_need() -> None:
    shelf = Shelf(release("a/y", "1.5"), release("a/y", "2.0"))
    needs = (Requirement("a/y", SpecifierSet("<2"), "a/x 1.0"),)
    assert chosen(shelf, "a/y", dependents=needs) == {"a/y": "1.5"}
    with pytest.raises(Conflict, match=r"a/x 1\.0 needs <2"):
        chosen(shelf, "a/y@2.0", dependents=needs)


def test_the_lock_records_dependencies_by_digest() -> None:
    shelf = Shelf(release("a/x", "1.0", {"a/y": ">=1"}), release("a/y", "1.0"))
    found = resolve(parse_requirement("a/x"), shelf, "0.1.0")
    assert lock_of(found, "a/x") == {"a/y": {"version": "1.0", "digest": "digest-a/y-1.0"}}


@pytest.mark.timeout(20)
def test_a_graph_made_to_explode_is_given_up() -> None:
    rows = [release(f"a/x{i}", f"{v}.0", {f"a/x{i + 1}": ">=1"}) for i in range(12) for v in range(1, 5)]
    shelf = Shelf(*rows, release("a/x12", "1.0", {"a/none": ">=1"}))
    with pytest.raises((Conflict, NotFound)):
        chosen(shelf, "a/x0")


@pytest.mark.parametrize("text", ["x", "a/x@", "a/x@one", "a/x>=", "a/x 1", "A/x", "a/x/y", "", "a/x;rm", "../a/x"])
def test_a_text_that_names_no_app_is_refused(text: str) -> None:
    with pytest.raises(Invalid):
        parse_requirement(text)


VERSIONS = st.sampled_from(["1.0", "1.1", "2.0", "2.1a1"])
SPECS = st.sampled_from(["", ">=1", "<2", ">=2", "==1.1", "!=1.0"])
APPS = ["a/p", "a/q", "a/r"]
RELEASES = st.builds(
    lambda app, version, needs, yanked: release(app, version, needs, yanked=yanked),
    st.sampled_from(APPS), VERSIONS, st.dictionaries(st.sampled_from(APPS[1:]), SPECS, max_size=2), st.booleans(),
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(st.lists(RELEASES, unique_by=lambda c: (c.app_id, c.version), max_size=9))
def test_what_is_chosen_satisfies_everything(releases: list[Candidate]) -> None:
    try:
        found = resolve(parse_requirement("a/p"), Shelf(*releases), "0.1.0")
    except LlmasosError as error:
        assert isinstance(error, Conflict | NotFound)
        return
    for candidate in found.values():
        assert not candidate.yanked
        for app, specifier in candidate.manifest.dependencies.items():
            assert SpecifierSet(specifier).contains(found[app].version)
