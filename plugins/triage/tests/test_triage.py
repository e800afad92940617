"""Triage, without a host."""

import pytest

from llmasos_sdk import Invalid
from llmasos_sdk.testing import FakeContext, ScriptedModel, call


def test_words_and_model_agree_with_high_confidence(llmasos_app, fake_context):
    fake_context.scripted.answers({"label": "billing"})
    answer = call(llmasos_app, "classify", fake_context, message="My card was charged twice and I need it back today")
    assert answer["label"] == "billing"
    assert answer["team"] == "finance"
    assert answer["urgency"] == "high"
    assert answer["confidence"] == "high"
    assert "charge" in answer["words"]


def test_words_win_over_a_model_that_disagrees_and_say_so(llmasos_app, fake_context):
    fake_context.scripted.answers({"label": "shipping"})
    answer = call(llmasos_app, "classify", fake_context, message="Please refund this invoice")
    assert (answer["label"], answer["confidence"]) == ("billing", "low")


def test_the_model_wins_where_the_installer_trusts_it(llmasos_app, llmasos_manifest):
    config = {name: field["default"] for name, field in llmasos_manifest["config"].items()}
    ctx = FakeContext(model=ScriptedModel({"label": "shipping"}), config={**config, "words_first": False})
    assert call(llmasos_app, "classify", ctx, message="Please refund this invoice")["label"] == "shipping"


def test_the_model_chooses_among_the_labels_whose_words_tie(llmasos_app, fake_context):
    fake_context.scripted.answers({"label": "technical"})
    answer = call(llmasos_app, "classify", fake_context, message="The invoice shows an error")
    schema = fake_context.scripted.requests[0]["response_format"]["json_schema"]["schema"]
    assert schema["properties"]["label"]["enum"] == ["billing", "technical"]
    assert answer["label"] == "technical"


def test_a_chinese_message_is_sorted_by_its_words(llmasos_app, fake_context):
    fake_context.scripted.answers({"label": "shipping"})
    answer = call(llmasos_app, "classify", fake_context, message="我的快递还没到，请尽快处理")
    assert (answer["label"], answer["urgency"], answer["confidence"]) == ("shipping", "high", "high")


def test_the_model_is_told_the_words_of_the_message_s_script(llmasos_app, llmasos_manifest):
    config = {name: field["default"] for name, field in llmasos_manifest["config"].items()}
    config["labels"] = ["billing: refund 退款", "praise: 谢谢"]
    told = []
    for message in ("Please refund me", "请退款"):
        ctx = FakeContext(model=ScriptedModel({"label": "billing"}), config=config)
        call(llmasos_app, "classify", ctx, message=message)
        told.append(ctx.scripted.requests[0]["messages"][0]["content"].splitlines()[1:])
    assert told == [["- billing: refund", "- praise"], ["- billing: refund 退款", "- praise: 谢谢"]]


def test_labels_of_the_installers_own_are_used(llmasos_app):
    config = {"labels": ["sales: buy price", "press: interview"], "routes": ["press: media"], "words_first": True}
    ctx = FakeContext(model=ScriptedModel({"label": "press"}), config=config)
    assert call(llmasos_app, "classify", ctx, message="An interview please")["team"] == "media"


@pytest.mark.parametrize(
    ("message", "urgency"),
    [
        ("Not urgent, but the page is slow", "low"),
        ("This is urgent", "high"),
        ("I know the invoice is late", "normal"),
        ("不急，有空再看", "low"),
    ],
)
def test_how_soon_somebody_should_answer_is_said_by_phrases(llmasos_app, fake_context, message, urgency):
    """11-37: "not urgent" was high, since it holds "urgent"."""
    fake_context.scripted.answers({"label": "technical"})
    assert call(llmasos_app, "classify", fake_context, message=message)["urgency"] == urgency


def test_praise_is_not_billing(llmasos_app, fake_context):
    """11-37."""
    fake_context.scripted.answers({"label": "general"})
    message = "Great service, worth every cent of the money I paid."
    assert call(llmasos_app, "classify", fake_context, message=message)["label"] == "general"


def test_a_configuration_line_without_a_colon_is_named(llmasos_app):
    ctx = FakeContext(model=ScriptedModel(), config={"labels": ["sales"], "routes": [], "words_first": True})
    with pytest.raises(Invalid, match="'sales'"):
        call(llmasos_app, "classify", ctx, message="hello")


@pytest.mark.parametrize("message", ["", "x" * 20001])
def test_a_message_outside_its_bounds_is_refused(llmasos_app, fake_context, message):
    with pytest.raises(Invalid):
        call(llmasos_app, "classify", fake_context, message=message)
