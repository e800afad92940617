"""Messages as values: their English text, their serialisation, and hostile ones."""

import copy
import json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmasos.i18n import Message, _, any_of, from_text, listing, ngettext, recognise, to_text, verbatim
from llmasos_sdk.messages import MAX_CHARACTERS


def test_a_message_is_its_own_english() -> None:
    said = _(
        "{app!r} has {count:,} values in {share:.0%} of {names}", app="a/b", count=1234, share=0.5, names=["x", "y"]
    )
    assert said == "'a/b' has 1,234 values in 50% of x, y"
    assert said.id.startswith("{app!r} has")
    assert said.parameters["count"] == 1234


def test_braces_are_written_twice_in_a_template_and_shown_once() -> None:
    assert _("write {{ }} around {name}", name="it") == "write { } around it"


def test_a_count_chooses_the_wording() -> None:
    assert ngettext("{count} file", "{count} files", count=1) == "1 file"
    assert ngettext("{count} file of {app}", "{count} files of {app}", count=0, app="x") == "0 files of x"


def test_alternatives_are_listed_as_a_sentence_lists_them() -> None:
    assert [any_of(names) for names in (["a"], ["a", "b"], ["a", "b", "c"])] == ["a", "a or b", "a, b or c"]


def test_a_field_without_a_parameter_is_a_fault_of_the_code() -> None:
    with pytest.raises(KeyError):
        _("there is no {name}")


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda said: pickle.loads(pickle.dumps(said))])
def test_a_copy_is_a_message_too(copied) -> None:
    said = copied(_("there is no {name}", name=_("file")))
    assert (type(said), said.id, said) == (Message, "there is no {name}", "there is no file")


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
plain = texts | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
parameters = st.recursive(
    plain | texts.map(lambda text: verbatim(text, zh=text + "。")),
    lambda inner: st.lists(inner, max_size=3).map(listing) | inner.map(lambda value: _("<{value}>", value=value)),
    max_leaves=6,
)


@given(parameters, parameters)
def test_a_message_is_the_same_after_a_row_or_a_frame(first: object, second: object) -> None:
    said = _("{first}: {second}", first=first, second=second)
    read = from_text(to_text(said))
    assert (read, read.id, dict(read.parameters)) == (said, said.id, dict(said.parameters))


@given(texts)
def test_words_that_are_no_message_stay_as_they_were_said(text: str) -> None:
    read = from_text(to_text(text))
    assert read == text
    assert from_text(to_text(read)) == text


keys = st.sampled_from(["id", "parameters", "x", "list"])
json_values = st.recursive(
    st.none() | st.booleans() | plain,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["id", "parameters", "x", "list"]), inner)
    ),
    max_leaves=8,
)


@given(json_values)
def test_whatever_a_guest_sends_for_a_message_is_shown_somehow(value: object) -> None:
    assert isinstance(from_text(json.dumps(value), depth=3), str)


@pytest.mark.parametrize(
    "template",
    [
        "{x.__class__}",
        "{x[0]}",
        "{0}",
        "{}",
        "{x:>999999999}",
        "{x:{y}}",
        "{x!a}",
        "{",
        "}",
        "{missing}",
    ],
)
def test_a_template_that_reaches_further_than_its_parameters_is_shown_as_it_stands(template: str) -> None:
    document = json.dumps({"id": template, "parameters": {"x": "text", "y": "1"}})
    assert from_text(document) == document


def test_a_message_that_multiplies_its_parameters_is_cut() -> None:
    said: object = "x" * 1000
    for _again in range(3):
        said = {"id": "{x}" * 300, "parameters": {"x": said}}
    assert len(from_text(json.dumps(said), depth=3)) == MAX_CHARACTERS


def test_messages_nested_deeper_than_allowed_are_words() -> None:
    said = _("1 {inner}", inner=_("2 {inner}", inner=_("3")))
    assert from_text(to_text(said), depth=3).id == "1 {inner}"
    assert from_text(to_text(said), depth=2).id == "{text}"


def test_a_message_passed_on_as_plain_english_is_recognised_within_the_words_around_it() -> None:
    refused = _("There is no {name}.", name="x")
    passed_on = verbatim(f"sorry: {refused} So it goes.")
    found = recognise(passed_on, {str(refused): refused})
    assert found == passed_on
    [inner] = found.parameters.values()
    assert isinstance(inner, Message)
    assert inner.parameters["said"] is refused
