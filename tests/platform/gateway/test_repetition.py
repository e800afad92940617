"""A loop in an answer is detected; a refrain is not a loop."""

from __future__ import annotations

import time

import pytest

from llmasos.gateway.embedded.repetition import LEAST_CHARACTERS, Repetition


def ends_at(text: str, step: int = 4) -> int | None:
    """The number of characters after which the answer is ended."""
    repetition = Repetition()
    for position in range(0, len(text), step):
        if repetition.feed(text[position : position + step]):
            return position + step
    return None


@pytest.mark.parametrize(
    "piece", ["a", "\n", "ha ", "The sea is blue. ", "一句话。", "x" * 100 + " and a long line of words. "]
)
@pytest.mark.parametrize("step", [1, 4, 50])
def test_a_piece_said_again_and_again_ends_the_answer(piece, step):
    """11-37: runaway repetition ends a generation."""
    end = ends_at("Once upon a time. " + piece * 500, step)
    assert end is not None
    assert end < 18 + max(LEAST_CHARACTERS, 6 * len(piece)) + 100


@pytest.mark.parametrize(
    "text",
    [
        "Row, row, row your boat, " * 3,
        "-" * 100 + "\n" + "| a | b |\n" * 8,
        " ".join(str(number) for number in range(2000)),
        "\n".join(f"{number}. This is one of many lines." for number in range(200)),
        "def f(x):\n    return x\n\n" + "".join(f"def f{n}(x):\n    return x + {n}\n\n" for n in range(60)),
    ],
)
def test_a_refrain_a_table_and_a_list_are_no_loop(text):
    assert ends_at(text) is None


def test_looking_for_loops_costs_little():
    text = "".join(chr(97 + (number * number) % 26) for number in range(20_000))
    started = time.process_time()
    ends_at(text)
    assert time.process_time() - started < 2
