"""Tell short stories, and remember the characters in them."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Annotated

from llmasos_sdk import App, Context, Field, Invalid, NotFound

app = App()

WORD = re.compile(r"[\u4e00-\u9fff]|[^\W\u4e00-\u9fff]+")
SENTENCE_END = re.compile(r"[.!?。！？][\"'”’]?\s*$")

PREFIX = "character/"

# A premise is kept with each character it named, this many of them: enough to remind, too few to fill the storage.
STORIES_KEPT = 5


@dataclass
class Character:
    """Somebody who can appear in a story."""

    name: str
    description: str
    stories: list[str] = field(default_factory=list)


def load(ctx: Context) -> list[Character]:
    """Every character that is remembered, by name."""
    return [Character(**ctx.storage.get_json(key)) for key in ctx.storage.keys(PREFIX)]


def save(ctx: Context, character: Character) -> None:
    """Keep a character as it is now."""
    ctx.storage.put_json(PREFIX + character.name.lower(), asdict(character))


def until(pieces: Iterable[str], words: int) -> Iterator[str]:
    """The pieces of a text up to the end of the sentence in which it reaches so many words."""
    told = ""
    for piece in pieces:
        told += piece
        yield piece
        if len(WORD.findall(told)) >= words and SENTENCE_END.search(told):
            return


@app.action(title={"en": "Tell a story", "zh": "讲故事"})
def tell(
    ctx: Context,
    premise: Annotated[
        str, Field(title={"en": "What is it about?", "zh": "故事讲什么？"}, ui="textarea", min=1, max=2000)
    ],
) -> Iterator[str]:
    """Tell a short story, as it is being written.

    Args:
        premise: What the story is about. Characters that it names appear as you described them.
    """
    cast = [character for character in load(ctx) if character.name.lower() in premise.lower()]
    # Asked for a number of words, small models stop after a sentence; asked for a whole story, they tell one.
    prompt = f"Write a short story. It is about this: {premise}\n\nGive it a beginning, a middle and an end."
    if cast:
        prompt += "\n\nThe characters:\n" + "\n".join(f"- {one.name}: {one.description}" for one in cast)
    words = int(ctx.config["words"])
    # A word is about one and a half tokens, a Chinese character one or two; the rest is room to end the sentence.
    with ctx.model.stream(prompt, task="write", temperature=0.8, max_tokens=min(800, 3 * words)) as story:
        yield from until(story, words)
    for character in cast:
        character.stories = [*character.stories, premise][-STORIES_KEPT:]
        save(ctx, character)


@app.action(title={"en": "Remember a character", "zh": "记住角色"})
def remember(
    ctx: Context,
    name: Annotated[str, Field(title={"en": "Name", "zh": "名字"}, min=1, max=60)],
    description: Annotated[str, Field(title={"en": "Who is it?", "zh": "角色介绍"}, ui="textarea", min=1, max=1000)],
) -> Character:
    """Keep a character, or change what is known of one.

    Args:
        name: The name that premises use.
        description: Who it is, how they look and act.
    """
    if not name.strip():
        raise Invalid("the name is empty")
    known = {character.name.lower(): character for character in load(ctx)}
    character = Character(name.strip(), description.strip())
    if before := known.get(character.name.lower()):
        character.stories = before.stories
    save(ctx, character)
    return character


@app.action(title={"en": "Show the characters", "zh": "查看角色"})
def characters(ctx: Context) -> list[Character]:
    """The characters that are remembered, and the stories they were in."""
    return load(ctx)


@app.action(title={"en": "Forget a character", "zh": "忘记角色"})
def forget(ctx: Context, name: Annotated[str, Field(title={"en": "Name", "zh": "名字"}, min=1, max=60)]) -> str:
    """Forget a character.

    Args:
        name: The name it was remembered by.
    """
    if not ctx.storage.delete(PREFIX + name.strip().lower()):
        raise NotFound(f"no character is called {name!r}")
    return name
