"""Stacked columns, one a day: values become rectangles, which a template draws as SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Final

WIDTH: Final = 720
HEIGHT: Final = 220
# Room for the numbers at the left and the days below.
LEFT: Final = 56
BELOW: Final = 28
ABOVE: Final = 8
SHOWN: Final = 6
"""Series with a colour of their own; the rest are one."""
_LABELS: Final = 8


@dataclass(frozen=True, slots=True)
class Column:
    """A part of a day's column."""

    series: int
    day: date
    value: int
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Chart:
    """What a template draws, and the numbers behind it.

    Attributes:
        days: From the first to the last, without a gap.
        series: Names, the largest first; None stands for all others.
        values: By series, one for each day.
        columns: The rectangles.
        marks: (y, value) of each line behind them.
        labels: (x, day) of the days that are named below.
    """

    days: tuple[date, ...]
    series: tuple[str | None, ...]
    values: tuple[tuple[int, ...], ...]
    columns: tuple[Column, ...]
    marks: tuple[tuple[float, int], ...]
    labels: tuple[tuple[float, date], ...]

    @property
    def total(self) -> int:
        """The sum of everything."""
        return sum(map(sum, self.values))


def stacked(days: Sequence[date], amounts: Mapping[str, Mapping[date, int]]) -> Chart:
    """Draw amounts by name and day.

    Args:
        days: Every day that is shown, in order.
        amounts: By name, then by day; what is missing is 0.
    """
    ranked = sorted(amounts, key=lambda name: (-sum(amounts[name].values()), name))
    shown, others = ranked[:SHOWN], ranked[SHOWN:]
    series: tuple[str | None, ...] = (*shown, *([None] if others else []))
    values = [tuple(amounts[name].get(day, 0) for day in days) for name in shown]
    if others:
        values.append(tuple(sum(amounts[name].get(day, 0) for name in others) for day in days))
    top = _round_up(max((sum(column) for column in zip(*values, strict=True)), default=0))
    step = (WIDTH - LEFT) / max(1, len(days))
    room = HEIGHT - ABOVE - BELOW
    columns: list[Column] = []
    for at, day in enumerate(days):
        y = float(HEIGHT - BELOW)
        for number, amount in enumerate(each[at] for each in values):
            if amount:
                height = amount / top * room
                y -= height
                columns.append(Column(number, day, amount, LEFT + step * (at + 0.1), y, step * 0.8, height))
    marks = tuple((HEIGHT - BELOW - part / 4 * room, top * part // 4) for part in (0, 2, 4)) if top else ()
    every = -(-len(days) // _LABELS)
    labels = tuple((LEFT + step * (at + 0.5), day) for at, day in enumerate(days) if at % every == 0)
    return Chart(tuple(days), series, tuple(values), tuple(columns), marks, labels)


def _round_up(value: int) -> int:
    """The next of 4, 8, 20, 40, 80, 200 …: a quarter of each is a whole number."""
    if value <= 0:
        return 0
    unit = 1
    while True:
        for step in (4, 8, 20):
            if value <= step * unit:
                return step * unit
        unit *= 10
