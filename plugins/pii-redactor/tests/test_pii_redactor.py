"""The redactor: what it hides, and that it gives it back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

import llmasos_pii_redactor as redactor
from llmasos.gateway.request import GenerateRequest
from llmasos.hooks import ModelCall
from llmasos_pii_redactor.marks import Marks


def call(text, goes_to="openai"):
    request = GenerateRequest.model_validate({"messages": [{"role": "user", "content": text}]})
    return ModelCall(request, "gpt", goes_to, "default", "local", None)


@pytest.mark.parametrize(
    ("text", "mark"),
    [
        ("write to ada@example.com", "[EMAIL_1]"),
        ("my card is 4111 1111 1111 1111", "[CARD_1]"),
        ("pay to DE89 3704 0044 0532 0130 00", "[IBAN_1]"),
        ("my number is 11010519491231002X", "[ID_1]"),
        ("call +49 30 901820 now", "[PHONE_1]"),
        ("call 138 1234 5678", "[PHONE_1]"),
        ("the host 192.168.1.20 is down", "[ADDRESS_1]"),
    ],
)
def test_personal_data_does_not_leave(text, mark):
    made = call(text)
    sent = redactor.before_model_call(made).messages[0].content
    assert mark in sent
    assert redactor.after_model_call(made).feed(sent) == text


@pytest.mark.parametrize("text", ["version 1.2.3", "4111 1111 1111 1112 is no card", "in 2026", "a@b", "999.1.1.1"])
def test_what_is_none_is_left_alone(text):
    marks = Marks()
    if "card" in text:
        assert "CARD" not in marks.put(text)
    else:
        assert marks.put(text) == text


def test_the_same_value_gets_the_same_mark():
    marks = Marks()
    assert marks.put("a@example.com b@example.com a@example.com") == "[EMAIL_1] [EMAIL_2] [EMAIL_1]"


def test_a_mark_that_the_user_wrote_stays_theirs():
    marks = Marks()
    assert marks.put("[EMAIL_1] and a@example.com") == "[EMAIL_1] and [EMAIL_2]"
    assert marks.restorer().feed("[EMAIL_1] and [EMAIL_2]") == "[EMAIL_1] and a@example.com"


def test_a_local_model_sees_the_text_as_it_is(monkeypatch):
    made = call("a@example.com", goes_to="local")
    assert redactor.before_model_call(made) is None
    assert redactor.after_model_call(made) is None
    monkeypatch.setenv("LLMASOS_PII_LOCAL", "1")
    assert redactor.before_model_call(made) is not None


def test_parts_of_a_message_are_walked_and_pictures_are_not():
    parts = [
        {"type": "text", "text": "a@example.com"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}},
    ]
    sent = redactor.before_model_call(call(parts)).messages[0].content
    assert sent[0].text == "[EMAIL_1]"
    assert sent[1].as_sent() == parts[1]


@given(st.lists(st.integers(min_value=1, max_value=40)))
def test_a_mark_is_restored_wherever_the_stream_is_cut(cuts):
    marks = Marks()
    text = "Dear ada@example.com, we wrote to [you] and bob@example.com [again"
    sent = marks.put(text)
    restorer, shown, at = marks.restorer(), "", 0
    for cut in cuts:
        shown += restorer.feed(sent[at : at + cut])
        at += cut
    assert shown + restorer.feed(sent[at:]) + restorer.finish() == text


@given(st.text(max_size=400))
def test_any_text_comes_back_as_it_was(text):
    marks = Marks()
    restorer = marks.restorer()
    assert restorer.feed(marks.put(text)) + restorer.finish() == text
