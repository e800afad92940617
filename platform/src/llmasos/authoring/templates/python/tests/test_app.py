"""Tests of the app, without a host: `llmasos test`."""

import pytest
from llmasos_sdk import SchemaMismatch
from llmasos_sdk.testing import call


def test_it_greets_by_name(llmasos_app, fake_context):
    fake_context.scripted.answers("  Hello, Ada!  ")
    assert call(llmasos_app, "greet", fake_context, name="Ada") == "Hello, Ada!"


def test_it_asks_for_the_tone_that_was_chosen(llmasos_app, fake_context):
    fake_context.scripted.answers("Hello!")
    call(llmasos_app, "greet", fake_context, name="Ada")
    assert "warm sentence that greets Ada" in fake_context.scripted.requests[0]["messages"][0]["content"]


def test_a_name_is_needed(llmasos_app, fake_context):
    with pytest.raises(SchemaMismatch, match="name: this input is needed"):
        call(llmasos_app, "greet", fake_context)
