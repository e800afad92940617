"""Tutor, without a host."""

import pytest

from llmasos_sdk import Invalid, NotFound
from llmasos_sdk.testing import FakeContext, MemoryStorage, ScriptedModel, call

NOTES = "Photosynthesis turns light into chemical energy. Roots take up water."


def learn(app, ctx, notes=NOTES, topic="Biology"):
    return call(app, "learn", ctx, topic=topic, notes=notes)


def test_each_sentence_is_kept_once(llmasos_app, fake_context):
    assert learn(llmasos_app, fake_context) == 2
    assert learn(llmasos_app, fake_context) == 0
    assert call(llmasos_app, "progress", fake_context) == [{"topic": "Biology", "notes": 2, "known": 0, "due": 2}]


def test_a_right_answer_moves_the_note_on_and_a_wrong_one_back(llmasos_app, fake_context):
    learn(llmasos_app, fake_context, "Photosynthesis turns light into chemical energy.")
    fake_context.scripted.answers("What does photosynthesis do?")
    assert call(llmasos_app, "ask", fake_context)["question"] == "What does photosynthesis do?"
    verdict = call(llmasos_app, "check", fake_context, answer="It is turning light to chemical energy")
    assert verdict["right"]
    assert verdict["next_in_hours"] == 1.0
    fake_context.scripted.answers("What does photosynthesis do?")
    call(llmasos_app, "ask", fake_context)
    verdict = call(llmasos_app, "check", fake_context, answer="It makes water")
    assert not verdict["right"]
    assert "light" in verdict["missing"]
    assert verdict["next_in_hours"] == 0.0


def test_a_question_that_gives_the_answer_away_becomes_a_gap(llmasos_app, fake_context):
    learn(llmasos_app, fake_context, "Photosynthesis turns light into chemical energy.")
    fake_context.scripted.answers("Does photosynthesis turn light into chemical energy?")
    question = call(llmasos_app, "ask", fake_context)["question"]
    assert question == "Fill the gap: ____ turns light into chemical energy."
    assert call(llmasos_app, "check", fake_context, answer="photosynthesis")["right"]


def test_without_a_fit_model_a_question_is_a_gap_to_fill(llmasos_app):
    """11-37: the embedded model's questions made no sense."""
    ctx = FakeContext(model=ScriptedModel(is_fit=False), storage=MemoryStorage())
    learn(llmasos_app, ctx, "Roots take up water.")
    assert call(llmasos_app, "ask", ctx)["question"] == "Fill the gap: ____ take up water."


def test_what_is_known_least_is_asked_first(llmasos_app, fake_context):
    learn(llmasos_app, fake_context)
    fake_context.scripted.answers("What turns light into energy?", "What do they take up from the soil?")
    first = call(llmasos_app, "ask", fake_context)
    assert first["box"] == 0
    call(llmasos_app, "check", fake_context, answer="Photosynthesis, chemical")
    second = call(llmasos_app, "ask", fake_context)
    assert second["question"] != first["question"]


def test_chinese_notes_are_checked_by_their_characters(llmasos_app, fake_context):
    learn(llmasos_app, fake_context, "心脏把血液送到全身。", topic="生物")
    fake_context.scripted.answers("什么器官推动循环？")
    call(llmasos_app, "ask", fake_context, topic="生物")
    assert call(llmasos_app, "check", fake_context, answer="心脏把血液送到全身")["score"] == 1.0


def test_without_notes_or_question_it_says_what_to_do(llmasos_app, fake_context):
    with pytest.raises(NotFound, match="learn"):
        call(llmasos_app, "ask", fake_context)
    with pytest.raises(NotFound, match="ask"):
        call(llmasos_app, "check", fake_context, answer="x")
    with pytest.raises(Invalid):
        learn(llmasos_app, fake_context, notes="...")
