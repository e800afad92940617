"""11-40: a mistyped search finds what it most likely meant."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmasos_marketplace.catalog.spelling import respelled

TEXTS = [
    "llmasos/storyteller",
    "Tells a short story from one premise.",
    "讲故事",
    "acme/translator",
    "Translates text.",
]


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("storry", "story"),
        ("Translater", "translator"),
        ("short storry", "short story"),
        ("story", None),  # nothing to mend
        ("sto", None),  # a part of a word is found as it is
        ("zebra", None),
        ("zebra storry", None),
        ("", None),
    ],
)
def test_each_unknown_word_becomes_its_nearest_or_none_does(typed: str, meant: str | None) -> None:
    assert respelled(typed, TEXTS) == meant


@given(st.text(), st.lists(st.text()))
def test_any_words_are_taken(typed: str, texts: list[str]) -> None:
    meant = respelled(typed, texts)
    assert meant is None or meant != typed
