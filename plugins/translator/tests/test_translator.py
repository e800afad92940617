"""Translator, without a host."""

import pytest

from llmasos_sdk import Unavailable
from llmasos_sdk.testing import FakeContext, ScriptedModel, call


def test_a_short_text_is_one_call_with_the_languages_and_the_register_in_it(llmasos_app):
    ctx = FakeContext(model=ScriptedModel("Guten Morgen"), config={"formality": "formal"})
    answer = call(
        llmasos_app, "translate", ctx, text="Good morning", target_language="German", source_language="English"
    )
    assert answer == "Guten Morgen"
    system = ctx.scripted.requests[0]["messages"][0]["content"]
    assert "from English into German" in system
    assert "formal register" in system


def test_a_long_text_goes_in_parts_and_keeps_its_paragraphs(llmasos_app):
    paragraphs = [f"Paragraph {number}. " + "Word. " * 200 for number in range(4)]
    ctx = FakeContext(
        model=ScriptedModel(lambda request: request["messages"][-1]["content"], max_output_tokens=2000),
        config={"formality": "neutral"},
    )
    text = "\n\n".join(paragraph.strip() for paragraph in paragraphs)
    assert call(llmasos_app, "translate", ctx, text=text, target_language="English") == text
    assert len(ctx.scripted.requests) == 4
    assert all(len(request["messages"][-1]["content"]) <= 1500 for request in ctx.scripted.requests)


def test_a_paragraph_without_end_is_cut_at_sentences(llmasos_app):
    ctx = FakeContext(
        model=ScriptedModel(lambda request: request["messages"][-1]["content"], max_output_tokens=2000),
        config={"formality": "neutral"},
    )
    text = "这是一句话。" * 600
    assert call(llmasos_app, "translate", ctx, text=text, target_language="Chinese") == text
    assert len(ctx.scripted.requests) == 3


def test_without_a_fit_model_it_declines_and_says_what_to_connect(llmasos_app):
    """11-37: the embedded model gave one garbage sentence thirty times over 99 s."""
    ctx = FakeContext(model=ScriptedModel(is_fit=False), config={"formality": "neutral"})
    with pytest.raises(Unavailable, match="llmasos models add"):
        call(llmasos_app, "translate", ctx, text="Good morning", target_language="Chinese")
