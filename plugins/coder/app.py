"""Write a piece of code and explain it."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

from llmasos_sdk import App, Context, Field, Unavailable

app = App()

FENCE = re.compile(r"```[\w+#-]*\n(.*?)(?:```|\Z)", re.DOTALL)

# Models of few parameters copy the form of an earlier turn more reliably than they follow a description of it.
EXAMPLE_TASK = "Write Python code: a function that says whether a number is even."
EXAMPLE_ANSWER = """```python
def is_even(number):
    return number % 2 == 0
```

The function divides by two and looks at the remainder. An even number leaves none."""


@dataclass
class Code:
    """A piece of code. `parses` is None for languages that are not checked."""

    code: str
    explanation: str
    language: str
    parses: bool | None


def syntax_fault(code: str) -> str | None:
    """What keeps Python code from parsing, or None."""
    try:
        ast.parse(code)
    except SyntaxError as error:
        return f"line {error.lineno}: {error.msg}"
    return None


def split(answer: str) -> tuple[str, str]:
    """The code in an answer, and the prose around it."""
    match = FENCE.search(answer)
    if match is None:
        return "", answer.strip()
    return match[1].strip("\n"), (answer[: match.start()] + answer[match.end() :]).strip()


@app.action(title={"en": "Write code", "zh": "编写代码"})
def write(
    ctx: Context,
    task: Annotated[
        str, Field(title={"en": "What should it do?", "zh": "代码要做什么？"}, ui="textarea", min=1, max=8000)
    ],
    language: Annotated[
        Literal["python", "javascript", "typescript", "sql", "bash", "html", "rust", "go", "java", "c"],
        Field(title={"en": "Language", "zh": "语言"}),
    ] = "python",
) -> Code:
    """Write a piece of code for a task, and explain it.

    Args:
        task: What the code should do.
        language: The programming language.
    """
    turns = [
        {"role": "user", "content": EXAMPLE_TASK},
        {"role": "assistant", "content": EXAMPLE_ANSWER},
        {"role": "user", "content": f"Write {language} code: {task}"},
    ]
    # A model that is not fit for code writes programs that do something else, or never end.
    answer = ctx.model.generate(turns, task="code", require_fit=True, temperature=0.2, max_tokens=1000).text
    code, explanation = split(answer)
    if language == "python" and code and (fault := syntax_fault(code)):
        ctx.output.progress(0.5, "The code does not parse; asking for a correction.")
        turns += [
            {"role": "assistant", "content": answer},
            {"role": "user", "content": f"That does not parse ({fault}). Write the corrected code."},
        ]
        again = ctx.model.generate(turns, task="code", require_fit=True, temperature=0.2, max_tokens=1000)
        mended, why = split(again.text)
        if mended and syntax_fault(mended) is None:
            code, explanation = mended, why or explanation
    if not code:
        raise Unavailable("the model gave no code; say the task in other words, or add a larger model")
    return Code(code, explanation, language, syntax_fault(code) is None if language == "python" else None)


@app.action(title={"en": "Explain code", "zh": "解释代码"})
def explain(
    ctx: Context,
    code: Annotated[str, Field(title={"en": "Code", "zh": "代码"}, ui="textarea", min=1, max=20000)],
) -> Iterator[str]:
    """Explain what a piece of code does.

    Args:
        code: The code.
    """
    language = "Chinese" if ctx.locale == "zh" else "English"
    prompt = f"Explain step by step, in {language}, what this code does.\n\n```\n{code}\n```"
    yield from ctx.model.stream(prompt, task="code", require_fit=True, temperature=0.2, max_tokens=800)
