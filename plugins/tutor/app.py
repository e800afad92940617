"""Learn from one's own notes: ask, check, and come back to what is hard.

Spaced repetition after Leitner: a note answered well moves to the next box and comes back later, a note answered badly
returns to the first box.
"""

import re
import time
from dataclasses import asdict, dataclass
from typing import Annotated

from llmasos_sdk import App, Context, Field, Invalid, NotFound, Unavailable

app = App()

NOTE = "note/"
ASKED = "asked"

# Seconds until a note in each box is due again: now, an hour, a day, three days, a week, a month.
BOXES = (0, 3600, 86_400, 3 * 86_400, 7 * 86_400, 30 * 86_400)

# An answer is right when it holds this share of the note's telling words: people paraphrase, and drop some.
RIGHT = 0.6

# Words that carry no knowledge, and that an answer need not repeat.
SMALL = frozenset(
    """a an and are as at be by for from has have in into is it its
    of on or that the their this to was were will with""".split()  # noqa: SIM905
)


@dataclass
class Note:
    """One sentence to know."""

    topic: str
    text: str
    box: int = 0
    due: float = 0.0
    asked: int = 0
    right: int = 0


@dataclass
class Question:
    """What the learner is asked."""

    topic: str
    question: str
    box: int


@dataclass
class Verdict:
    """How an answer compares with the note."""

    right: bool
    score: float
    missing: list[str]
    note: str
    next_in_hours: float


@dataclass
class TopicProgress:
    """How one topic stands."""

    topic: str
    notes: int
    known: int
    due: int


def telling_words(text: str) -> list[str]:
    """The words of a sentence that carry it, in order; for Chinese, its characters."""
    words = re.findall(r"[^\W\d_]+|\d+", text.lower())
    telling: list[str] = []
    for word in words:
        parts = list(word) if re.search(r"[\u4e00-\u9fff]", word) else [word]
        telling += [part for part in parts if part not in SMALL and part not in telling]
    return telling


def same_word(one: str, other: str) -> bool:
    """Whether two words are forms of one: equal, or alike but for a short ending."""
    shared = min(len(one), len(other))
    return one == other or (shared >= 4 and one[: max(4, shared - 2)] == other[: max(4, shared - 2)])


def key_of(note: Note) -> str:
    """Where a note is kept: notes of one topic stand together."""
    slug = re.sub(r"\s+", "-", note.topic.lower())
    return f"{NOTE}{slug}/{sum(ord(letter) * 31**index for index, letter in enumerate(note.text)) % 10**12:012d}"


def load(ctx: Context, topic: str = "") -> list[Note]:
    """The notes of a topic, or all of them."""
    notes = [Note(**ctx.storage.get_json(key)) for key in ctx.storage.keys(NOTE)]
    return [note for note in notes if not topic or note.topic.lower() == topic.strip().lower()]


def blank(note: Note) -> str:
    """The note with its longest word left out: a question that needs no model."""
    longest = max(telling_words(note.text), key=len)
    return re.sub(re.escape(longest), "____", note.text, count=1, flags=re.IGNORECASE)


def word_question(ctx: Context, note: Note) -> str:
    """A question that the note answers, worded by a model that is fit to; else a gap to fill."""
    task = "Write one question that this sentence answers.\n\nSentence: "
    turns = [
        {"role": "user", "content": task + "The heart pumps blood through the body."},
        {"role": "assistant", "content": "What does the heart do?"},
        {"role": "user", "content": task + note.text},
    ]
    try:
        worded = ctx.model.generate(turns, task="question", require_fit=True, temperature=0.3, max_tokens=48).text
    except Unavailable:
        worded = ""
    question = next(iter(worded.strip().splitlines()), "").strip()
    told = [word for word in telling_words(note.text) if any(same_word(word, one) for one in telling_words(question))]
    gives_away = len(told) >= RIGHT * len(telling_words(note.text))
    if not question.endswith(("?", "？")) or gives_away:
        return f"Fill the gap: {blank(note)}" if ctx.locale == "en" else f"填空：{blank(note)}"
    return question


@app.action(title={"en": "Add notes", "zh": "添加笔记"})
def learn(
    ctx: Context,
    topic: Annotated[str, Field(title={"en": "Topic", "zh": "主题"}, min=1, max=60)],
    notes: Annotated[str, Field(title={"en": "Notes", "zh": "笔记"}, ui="textarea", min=1, max=20000)],
) -> int:
    """Keep each sentence of your notes as something to know; answers how many are new.

    Args:
        topic: What the notes are about.
        notes: Sentences, one or many.
    """
    known = {note.text for note in load(ctx, topic)}
    sentences = [part.strip() for part in re.split(r"(?<=[.!?。！？])\s*|\n+", notes)]
    fresh = list(dict.fromkeys(text for text in sentences if len(telling_words(text)) >= 2 and text not in known))
    if not fresh and not known:
        raise Invalid("there is no sentence in the notes: write at least one with two words that matter")
    for text in fresh:
        note = Note(topic.strip(), text)
        ctx.storage.put_json(key_of(note), asdict(note))
    return len(fresh)


@app.action(title={"en": "Ask me", "zh": "向我提问"})
def ask(ctx: Context, topic: Annotated[str, Field(title={"en": "Topic", "zh": "主题"}, max=60)] = "") -> Question:
    """Ask about the note that is due, the least known first.

    Args:
        topic: One topic; empty: any.
    """
    notes = load(ctx, topic)
    if not notes:
        raise NotFound("there are no notes yet: add some with the action `learn`")
    note = min(notes, key=lambda one: (one.due > time.time(), one.box, one.due, one.asked))
    question = word_question(ctx, note)
    ctx.storage.put_json(ASKED, {"key": key_of(note), "question": question})
    return Question(note.topic, question, note.box)


@app.action(title={"en": "Check my answer", "zh": "检查我的回答"})
def check(
    ctx: Context,
    answer: Annotated[str, Field(title={"en": "Your answer", "zh": "你的回答"}, ui="textarea", min=1, max=4000)],
) -> Verdict:
    """Compare an answer with the note that was asked about, and plan when to ask again.

    Args:
        answer: What you remember.
    """
    asked = ctx.storage.get_json(ASKED)
    stored = ctx.storage.get_json(asked["key"]) if asked else None
    if not asked or not stored:
        raise NotFound("no question is open: ask for one with the action `ask`")
    note = Note(**stored)
    said = telling_words(answer)
    # A gap is filled by its word alone; a question wants the words that it does not give away itself.
    wanted = telling_words(note.text)
    given = telling_words(asked["question"])
    wanted = [word for word in wanted if not any(same_word(word, one) for one in given)] or wanted
    missing = [word for word in wanted if not any(same_word(word, one) for one in said)]
    score = 1 - len(missing) / len(wanted)
    note.asked += 1
    note.right += score >= RIGHT
    note.box = min(note.box + 1, len(BOXES) - 1) if score >= RIGHT else 0
    note.due = time.time() + BOXES[note.box]
    ctx.storage.put_json(asked["key"], asdict(note))
    ctx.storage.delete(ASKED)
    return Verdict(score >= RIGHT, round(score, 2), missing, note.text, round(BOXES[note.box] / 3600, 1))


@app.action(title={"en": "Show my progress", "zh": "学习进度"})
def progress(ctx: Context) -> list[TopicProgress]:
    """How each topic stands: its notes, those known (third box or further), those due now."""
    topics: dict[str, TopicProgress] = {}
    for note in load(ctx):
        topic = topics.setdefault(note.topic, TopicProgress(note.topic, 0, 0, 0))
        topic.notes += 1
        topic.known += note.box >= 2
        topic.due += note.due <= time.time()
    return list(topics.values())
