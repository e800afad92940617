"""Sort a customer's message: label, urgency, team."""

import json
import re
from dataclasses import dataclass, make_dataclass
from typing import Annotated, Literal

from llmasos_sdk import App, Context, Field, Invalid

app = App()

Urgency = Literal["low", "normal", "high"]

# What each label of the default configuration looks like, shown to the model as earlier turns. Labels of the
# installer's own have no examples; the model then has their words alone.
EXAMPLES = (
    ("The app crashes when I open it.", "technical"),
    ("Please send me the invoice again.", "billing"),
    ("I forgot my password.", "account"),
    ("Where is my parcel?", "shipping"),
    ("Do you have an office in Berlin?", "general"),
    ("The page shows an error.", "technical"),
    ("You took the wrong amount from my card.", "billing"),
    ("Change my user name please.", "account"),
    ("The delivery is late.", "shipping"),
    ("Do you offer discounts for students?", "general"),
)

# Phrases that hurry, and phrases that do not. Those that do not win: "not urgent" holds "urgent".
HIGH = (
    "today", "now", "immediately", "urgent", "urgently", "asap", "emergency", "blocked", "stolen", "fraud", "lawyer",
    "unacceptable", "right away", "in an hour", "at once", "马上", "立刻", "紧急", "今天", "尽快",
)  # fmt: skip
LOW = (
    "not urgent", "no rush", "no hurry", "wondering", "whenever", "curious", "someday", "opening hours", "gift",
    "when you have time", "not in a hurry", "不急", "有空", "请问", "想了解",
)  # fmt: skip

# English endings, longest first, so that one word of the configuration stands for its forms.
ENDINGS = ("ments", "ment", "ings", "ing", "ies", "ied", "ed", "es", "er", "ers", "y", "s", "e")


@dataclass
class Classification:
    """Where a message belongs.

    `confidence` is high where the words and the model agree, low where they do not, medium where only the model spoke.
    """

    label: str
    team: str
    urgency: Urgency
    confidence: Literal["low", "medium", "high"]
    words: list[str]


def pairs(lines: list[str]) -> dict[str, str]:
    """`label: rest` lines as a mapping."""
    parsed = {}
    for line in lines:
        label, colon, rest = line.partition(":")
        if not colon or not label.strip():
            raise Invalid(f"the configuration line {line!r} is not of the form 'label: words'")
        parsed[label.strip()] = rest.strip()
    if not parsed:
        raise Invalid("the configuration names no label")
    return parsed


def stem(word: str) -> str:
    """An English word without its ending, as far as three letters remain."""
    for ending in sorted(ENDINGS, key=len, reverse=True):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word.removesuffix(ending)
    return word


def words_found(message: str, words: str) -> list[str]:
    """Which of `words` the message holds: in any form, or for Chinese as any part."""
    lowered = message.lower()
    spoken = {stem(word) for word in re.findall(r"[a-z]+", lowered)}
    return [word for word in words.lower().split() if (stem(word) in spoken if word.isascii() else word in lowered)]


def labels_by_words(message: str, labels: dict[str, str]) -> list[str]:
    """The labels with the most of their words in the message; none if no word of any is there."""
    found = {label: len(words_found(message, words)) for label, words in labels.items()}
    most = max(found.values())
    return [label for label in labels if found[label] == most] if most else []


def holds(message: str, phrases: tuple[str, ...]) -> bool:
    """Whether the message holds one of the phrases: whole words, or for Chinese any part."""
    lowered = message.lower()
    return any(
        re.search(rf"\b{re.escape(phrase)}\b", lowered) if phrase.isascii() else phrase in lowered for phrase in phrases
    )


def urgency_of(message: str) -> Urgency:
    """How soon somebody should answer, by the words used."""
    if holds(message, LOW):
        return "low"
    return "high" if holds(message, HIGH) or message.count("!") > 1 else "normal"


def hints(message: str, words: str) -> str:
    """The words that a message of its script can hold: both scripts make a prompt a third longer for nothing."""
    return words if not message.isascii() else " ".join(word for word in words.split() if word.isascii())


def ask_model(ctx: Context, message: str, labels: dict[str, str], candidates: list[str]) -> str:
    """The candidate that the model picks. The examples likeliest to fit stand last, where a small model looks."""
    likely = {label: len(words_found(message, words)) for label, words in labels.items()}
    turns = [
        {
            "role": "system",
            "content": "You sort customer messages. Answer with the label that fits best.\n"
            + "\n".join(f"- {label}: {hints(message, words)}".removesuffix(": ") for label, words in labels.items()),
        }
    ]
    for text, label in sorted(EXAMPLES, key=lambda example: likely.get(example[1], 0)):
        if label in labels:
            turns += [{"role": "user", "content": text}, {"role": "assistant", "content": json.dumps({"label": label})}]
    turns.append({"role": "user", "content": message[:4000]})
    # The labels are configuration, so the shape of the answer is known only now.
    choice = make_dataclass("Choice", [("label", Literal[tuple(candidates)])])
    answer = ctx.model.generate(turns, task="classify", output=choice, temperature=0, max_tokens=64)
    return str(answer.parsed.label)


@app.action(title={"en": "Classify a message", "zh": "消息分类"})
def classify(
    ctx: Context,
    message: Annotated[str, Field(title={"en": "Message", "zh": "消息"}, ui="textarea", min=1, max=20000)],
) -> Classification:
    """Say which label fits a message, how urgent it is, and which team should answer.

    Args:
        message: What the customer wrote.
    """
    labels = pairs(ctx.config["labels"])
    teams = pairs(ctx.config["routes"])
    by_words = labels_by_words(message, labels)
    narrow = ctx.config["words_first"] and len(by_words) > 1
    label = by_model = ask_model(ctx, message, labels, by_words if narrow else list(labels))
    if ctx.config["words_first"] and by_words and by_model not in by_words:
        label = by_words[0]
    confidence = "medium" if not by_words else "high" if by_model in by_words else "low"
    found = words_found(message, labels[label])
    return Classification(label, teams.get(label, ""), urgency_of(message), confidence, found)
