"""Which names may be registered."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmasos_marketplace.catalog.names import NamespaceReserved, NameTaken, check_name, is_slip, normalise

KNOWN = ["acme/translator", "acme/notes", "bigcorp/translator"]


@pytest.mark.parametrize("app_id", ["acme/translator", "newcomer/translator", "newcomer/hello", "acme/note-taker"])
def test_a_distinct_name_and_a_known_name_pass(app_id: str) -> None:
    check_name(app_id, KNOWN)


@pytest.mark.parametrize(
    "app_id",
    [
        "acrne/translator",  # rn for m
        "acme/trans1ator",
        "acme/trans-lator",
        "bigc0rp/other",
        "bigcrop/other",  # two letters swapped
        "bigcor/other",  # one missing
        "acme/translater",
    ],
)
def test_a_name_that_is_misread_or_mistyped_as_another_is_refused(app_id: str) -> None:
    with pytest.raises(NameTaken, match="choose another"):
        check_name(app_id, KNOWN)


def test_a_hyphen_that_moves_over_the_slash_is_refused() -> None:
    with pytest.raises(NameTaken):
        check_name("acme-no/tes", KNOWN)


@pytest.mark.parametrize("app_id", ["llmasos/triage", "llmasos-apps/x"])
def test_the_first_party_namespace_is_only_for_the_embedded_catalog(app_id: str) -> None:
    with pytest.raises(NamespaceReserved, match="reserved for the apps that come with LLMasOS"):
        check_name(app_id, [])
    check_name(app_id, [], first_party=True)


@pytest.mark.parametrize("app_id", ["llmas0s/triage", "llmaso/triage", "1lmasos/x", "llmsaos/x"])
def test_names_like_the_first_party_one_are_refused_before_anything_is_published(app_id: str) -> None:
    with pytest.raises(NameTaken):
        check_name(app_id, [])


words = st.from_regex(r"[a-z][a-z0-9]{4,8}", fullmatch=True)


@given(words, st.integers(0, 8), st.sampled_from("abcxyz09"))
def test_every_single_slip_is_found_in_both_directions(word: str, place: int, letter: str) -> None:
    place = min(place, len(word))
    other = word[:place] + letter + word[place:]
    assert is_slip(word, other)
    assert is_slip(other, word)


@given(words, words)
def test_a_slip_is_symmetric_and_never_of_a_name_with_itself(one: str, other: str) -> None:
    assert is_slip(one, other) == is_slip(other, one)
    assert not is_slip(one, one)


def test_a_typed_name_is_normalised_to_the_id_it_means() -> None:
    assert normalise("  Acme/Note_Taker ") == "acme/note-taker"
    assert normalise("ａｃｍｅ/notes") == "acme/notes"
