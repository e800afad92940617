"""Read a document that the user hands in, and answer about it."""

import io
import math
import re
import zipfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import docx
import openpyxl
import pypdf

from llmasos_sdk import App, Context, Field, File, Invalid, Unavailable

app = App()

# Passages of about a paragraph: long enough to hold an answer, short enough that four fit a small model's window.
PASSAGE_CHARACTERS = 700
PASSAGES_SHOWN = 4

# Robertson and Zaragoza, "The Probabilistic Relevance Framework" (2009): the usual constants of BM25.
SATURATION = 1.2
LENGTH_WEIGHT = 0.75

Document = Annotated[File, Field(title={"en": "Document (PDF, Word, Excel)", "zh": "文档（PDF、Word、Excel）"})]


@dataclass
class Passage:
    """A piece of the document, and where it stands: `page 3`, `paragraph 12`, `sheet Sales`."""

    where: str
    text: str


@dataclass
class Answer:
    """An answer, and the passages that it rests on; without a fit model the passages alone, and why."""

    answer: str
    passages: list[Passage]


@dataclass
class Overview:
    """What a document is."""

    kind: str
    parts: int
    words: int
    beginning: str


def pages_of_pdf(content: bytes) -> Iterator[Passage]:
    """The text of each page."""
    reader = pypdf.PdfReader(io.BytesIO(content))
    if reader.is_encrypted:
        raise Invalid("the PDF is encrypted; save a copy without a password")
    for number, page in enumerate(reader.pages, 1):
        yield Passage(f"page {number}", page.extract_text())


def paragraphs_of_word(content: bytes) -> Iterator[Passage]:
    """The paragraphs, then the rows of the tables."""
    document = docx.Document(io.BytesIO(content))
    for number, paragraph in enumerate(document.paragraphs, 1):
        yield Passage(f"paragraph {number}", paragraph.text)
    for number, table in enumerate(document.tables, 1):
        for row in table.rows:
            yield Passage(f"table {number}", " | ".join(cell.text for cell in row.cells))


def rows_of_excel(content: bytes) -> Iterator[Passage]:
    """The rows of each sheet that hold anything."""
    book = openpyxl.load_workbook(io.BytesIO(content), read_only=True, data_only=True)
    for sheet in book.worksheets:
        for row in sheet.iter_rows(values_only=True):
            yield Passage(f"sheet {sheet.title}", " | ".join("" if cell is None else str(cell) for cell in row))


def read(document: File) -> tuple[str, list[Passage]]:
    """The kind of a document, and its text in parts that hold any."""
    content = document.content
    try:
        if content.startswith(b"%PDF-"):
            kind, parts = "pdf", list(pages_of_pdf(content))
        elif not content.startswith(b"PK"):
            raise Invalid("the document is neither PDF nor Word (.docx) nor Excel (.xlsx)")
        else:
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                names = set(archive.namelist())
            word = "word/document.xml" in names
            kind, parts = ("word", paragraphs_of_word) if word else ("excel", rows_of_excel)
            parts = list(parts(content))
    except Invalid:
        raise
    except Exception as error:  # three parsers, each with errors of its own
        raise Invalid(f"the document cannot be read ({type(error).__name__}); is it whole?") from error
    parts = [part for part in parts if part.text.strip(" |\n")]
    if not parts:
        raise Invalid("the document holds no text; a scanned page is a picture, which this app does not read")
    return kind, parts


def passages_of(parts: list[Passage]) -> list[Passage]:
    """The parts, cut at sentences and joined to about a paragraph each."""
    passages: list[Passage] = []
    for part in parts:
        for sentence in re.findall(r".+?(?:[.!?。！？](?=\s|$)|\n\s*\n|$)", part.text, re.DOTALL):
            text = re.sub(r"\s+", " ", sentence).strip()
            joins = passages and passages[-1].where == part.where
            if joins and len(passages[-1].text) + len(text) <= PASSAGE_CHARACTERS:
                passages[-1].text += " " + text
            elif text:
                passages.append(Passage(part.where, text[: 2 * PASSAGE_CHARACTERS]))
    return passages


def words_of(text: str) -> list[str]:
    """Words, shortened to their stem's first letters; pairs of characters for Chinese."""
    words: list[str] = []
    for run in re.findall(r"[一-鿿]+|[^\W_]+", text.lower()):
        if "一" <= run[0] <= "鿿":
            words += [run[at : at + 2] for at in range(max(1, len(run) - 1))]
        else:
            words.append(run[:6])
    return words


def best(passages: list[Passage], question: str) -> list[Passage]:
    """The passages that fit a question best, by BM25, in the order of the document."""
    counts = [Counter(words_of(passage.text)) for passage in passages]
    lengths = [sum(count.values()) for count in counts]
    average = sum(lengths) / len(lengths)

    def score(at: int) -> float:
        total = 0.0
        for word in set(words_of(question)):
            holding = sum(word in count for count in counts)
            rarity = math.log(1 + (len(counts) - holding + 0.5) / (holding + 0.5))
            often = counts[at][word]
            length = 1 - LENGTH_WEIGHT + LENGTH_WEIGHT * lengths[at] / average
            total += rarity * often * (SATURATION + 1) / (often + SATURATION * length)
        return total

    scores = [score(at) for at in range(len(passages))]
    chosen = sorted((at for at in range(len(passages)) if scores[at] > 0), key=lambda at: -scores[at])
    return [passages[at] for at in sorted(chosen[:PASSAGES_SHOWN])]


@app.action(title={"en": "Ask about a document", "zh": "就文档提问"})
def ask(
    ctx: Context,
    document: Document,
    question: Annotated[str, Field(title={"en": "Question", "zh": "问题"}, ui="textarea", min=1, max=2000)],
) -> Answer:
    """Answer a question about a document, with the passages that the answer rests on.

    Args:
        document: The file.
        question: What you want to know.
    """
    _, parts = read(document)
    found = best(passages_of(parts), question)
    if not found:
        nothing = "文档中没有与问题相关的内容。" if ctx.locale == "zh" else "Nothing in the document fits the question."
        return Answer(nothing, [])
    shown = "\n\n".join(f"[{passage.where}] {passage.text}" for passage in found)
    language = "Chinese" if ctx.locale == "zh" else "English"
    system = f"Answer in {language}, in one or two sentences, from the passages alone. Say so if they do not answer."
    prompt = f"{shown}\n\nQuestion: {question}"
    try:
        # A model that is not fit for questions makes up names and dates; the passages are the honest answer then.
        answer = ctx.model.generate(
            prompt, system=system, task="question", require_fit=True, temperature=0, max_tokens=256
        )
    except Unavailable as unavailable:
        said = "以下段落与问题最相关。" if ctx.locale == "zh" else "These passages fit your question best. "
        return Answer(f"{said}{unavailable}", found)
    return Answer(answer.text.strip(), found)


@app.action(title={"en": "Find in a document", "zh": "在文档中查找"})
def find(
    ctx: Context,
    document: Document,
    words: Annotated[str, Field(title={"en": "Words", "zh": "关键词"}, min=1, max=200)],
) -> list[Passage]:
    """The passages that fit some words best, without a model.

    Args:
        document: The file.
        words: What to look for.
    """
    return best(passages_of(read(document)[1]), words)


@app.action(title={"en": "Look at a document", "zh": "查看文档"})
def overview(ctx: Context, document: Document) -> Overview:
    """What a document is: its kind, how many pages, paragraphs or rows, how many words, and how it begins.

    Args:
        document: The file.
    """
    kind, parts = read(document)
    text = " ".join(part.text for part in parts)
    return Overview(kind, len(parts), len(re.findall(r"[一-鿿]|[^\W_]+", text)), re.sub(r"\s+", " ", text)[:300])
