"""Coder, without a host."""

import pytest

from llmasos_sdk import Unavailable
from llmasos_sdk.testing import FakeContext, ScriptedModel, call

GOOD = "```python\ndef f(text):\n    return text[::-1]\n```\nIt reverses the text."
BROKEN = "```python\ndef f(text:\n    return\n```\nIt is broken."


def test_code_and_explanation_are_told_apart_and_python_is_parsed(llmasos_app, fake_context):
    fake_context.scripted.answers(GOOD)
    answer = call(llmasos_app, "write", fake_context, task="reverse a text")
    assert answer["code"] == "def f(text):\n    return text[::-1]"
    assert answer["explanation"] == "It reverses the text."
    assert answer["parses"] is True


def test_code_that_does_not_parse_gets_one_try_at_mending(llmasos_app, fake_context):
    fake_context.scripted.answers(BROKEN, GOOD)
    assert call(llmasos_app, "write", fake_context, task="reverse a text")["parses"] is True
    assert "line 1" in fake_context.scripted.requests[1]["messages"][-1]["content"]


def test_code_that_stays_broken_is_called_so(llmasos_app, fake_context):
    fake_context.scripted.answers(BROKEN, BROKEN)
    answer = call(llmasos_app, "write", fake_context, task="reverse a text")
    assert answer["parses"] is False
    assert "def f(text:" in answer["code"]


def test_other_languages_are_not_called_checked(llmasos_app, fake_context):
    fake_context.scripted.answers("```sql\nselect 1\n```")
    assert call(llmasos_app, "write", fake_context, task="one", language="sql")["parses"] is None


def test_an_answer_without_code_is_an_error_with_a_cure(llmasos_app, fake_context):
    fake_context.scripted.answers("I cannot.")
    with pytest.raises(Unavailable, match="larger model"):
        call(llmasos_app, "write", fake_context, task="anything")


def test_an_explanation_is_streamed(llmasos_app, fake_context):
    fake_context.scripted.answers("It adds one to each.")
    assert call(llmasos_app, "explain", fake_context, code="[x + 1 for x in y]") == "It adds one to each."


def test_without_a_fit_model_it_declines_and_says_what_to_connect(llmasos_app):
    """11-37: the embedded model gave an endless program."""
    ctx = FakeContext(model=ScriptedModel(is_fit=False))
    with pytest.raises(Unavailable, match="llmasos models add"):
        call(llmasos_app, "write", ctx, task="add two numbers")
