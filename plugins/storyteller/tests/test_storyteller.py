"""Storyteller, without a host."""

import pytest

from llmasos_sdk import Invalid, NotFound
from llmasos_sdk.testing import FakeContext, MemoryStorage, ScriptedModel, call


def test_a_story_is_streamed_and_named_characters_are_in_the_prompt(llmasos_app, fake_context):
    call(llmasos_app, "remember", fake_context, name="Mara", description="keeps the light")
    call(llmasos_app, "remember", fake_context, name="Oren", description="sells boats")
    fake_context.scripted.answers("Mara lit the lamp. The sea was calm.")
    story = call(llmasos_app, "tell", fake_context, premise="Mara meets a whale")
    assert story == "Mara lit the lamp. The sea was calm."
    prompt = fake_context.scripted.requests[0]["messages"][0]["content"]
    assert "Mara: keeps the light" in prompt
    assert "Oren" not in prompt


def test_a_story_ends_with_the_sentence_in_which_it_is_long_enough(llmasos_app):
    told = "One two three. " * 40
    ctx = FakeContext(model=ScriptedModel(told), storage=MemoryStorage(), config={"words": 5})
    assert call(llmasos_app, "tell", ctx, premise="numbers") == "One two three. One two three. "
    assert ctx.scripted.open_streams == 0


def test_a_character_remembers_the_stories_it_was_in(llmasos_app, fake_context):
    call(llmasos_app, "remember", fake_context, name="Mara", description="keeps the light")
    for number in range(7):
        fake_context.scripted.answers("The end.")
        call(llmasos_app, "tell", fake_context, premise=f"mara and whale {number}")
    call(llmasos_app, "remember", fake_context, name="MARA", description="left the light")
    (mara,) = call(llmasos_app, "characters", fake_context)
    assert mara["description"] == "left the light"
    assert mara["stories"] == [f"mara and whale {number}" for number in range(2, 7)]


def test_a_character_is_forgotten_once(llmasos_app, fake_context):
    call(llmasos_app, "remember", fake_context, name="Mara", description="keeps the light")
    call(llmasos_app, "forget", fake_context, name=" mara ")
    assert call(llmasos_app, "characters", fake_context) == []
    with pytest.raises(NotFound, match="mara"):
        call(llmasos_app, "forget", fake_context, name="mara")


def test_a_blank_name_is_refused(llmasos_app, fake_context):
    with pytest.raises(Invalid):
        call(llmasos_app, "remember", fake_context, name="  ", description="nobody")
