"""Translate text, paragraph by paragraph."""

import re
from collections.abc import Iterator
from typing import Annotated

from llmasos_sdk import App, Context, Field

app = App()

# Paragraphs go to the model together until they reach this many characters: enough context for a good translation,
# and an answer that fits the output limit in every language.
PART_CHARACTERS = 1500

MANNER = {"neutral": "", "formal": " Use a formal register.", "informal": " Use an informal register."}


def parts_of(text: str) -> list[str]:
    """The text in parts that end at paragraphs, or at sentences where a paragraph is long; joined they are the text."""
    pieces = re.findall(r".+?(?:\n\s*\n|$)|\n+", text, re.DOTALL)
    sentences: list[str] = []
    for piece in pieces:
        long = len(piece) > PART_CHARACTERS
        sentences += re.findall(r".+?(?:[.!?。！？]\s*|$)", piece, re.DOTALL) if long else [piece]
    parts: list[str] = []
    for sentence in sentences:
        if parts and len(parts[-1]) + len(sentence) <= PART_CHARACTERS:
            parts[-1] += sentence
        else:
            parts.append(sentence)
    return parts


@app.action(title={"en": "Translate", "zh": "翻译"})
def translate(
    ctx: Context,
    text: Annotated[str, Field(title={"en": "Text", "zh": "文本"}, ui="textarea", min=1, max=100_000)],
    target_language: Annotated[str, Field(title={"en": "Into", "zh": "译为"}, min=2, max=40)] = "English",
    source_language: Annotated[str, Field(title={"en": "From", "zh": "原文语言"}, max=40)] = "",
) -> Iterator[str]:
    """Translate text into another language.

    Args:
        text: What to translate.
        target_language: The language to translate into, by its name.
        source_language: The language of the text; empty: the model finds out.
    """
    source = f" from {source_language}" if source_language else ""
    system = (
        f"You translate{source} into {target_language}. Answer with the translation alone."
        f"{MANNER[str(ctx.config['formality'])]}"
    )
    parts = parts_of(text)
    for number, part in enumerate(parts):
        if len(parts) > 1:
            ctx.output.progress(number / len(parts), f"{number + 1} / {len(parts)}")
        body = part.rstrip()
        turns = [{"role": "system", "content": system}, {"role": "user", "content": body}]
        if body:
            # A model that is not fit for translation repeats one sentence in place of yours.
            yield from ctx.model.stream(turns, task="translate", require_fit=True, temperature=0, max_tokens=2000)
        yield part[len(body) :]
