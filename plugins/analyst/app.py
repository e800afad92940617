"""Describe a table of numbers, draw it, and say what stands out."""

import csv
import io
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import pygal
from pygal.etree import etree
from pygal.style import CleanStyle

from llmasos_sdk import App, Context, Field, Invalid

app = App()

MOST_ROWS = 20_000
# More points than this make a picture of several MiB that shows no more.
MOST_POINTS = 500
# Tukey, "Exploratory Data Analysis" (1977): beyond one and a half interquartile ranges a value stands out.
FENCE = 1.5

Table = Annotated[
    str,
    Field(
        title={"en": "Table (CSV with a header)", "zh": "表格（带表头的 CSV）"},
        ui="textarea",
        min=1,
        max=2_000_000,
    ),
]


@dataclass
class Column:
    """One numeric column. `slope` is its change per row, by least squares; `outliers` are row numbers from 1."""

    name: str
    count: int
    missing: int
    mean: float
    deviation: float
    minimum: float
    median: float
    maximum: float
    slope: float
    outliers: list[int]


@dataclass
class Correlation:
    """How two columns move together, from -1 to 1 (Pearson)."""

    first: str
    second: str
    value: float


@dataclass
class Description:
    """What a table holds."""

    rows: int
    columns: list[Column]
    correlations: list[Correlation]


@dataclass
class Picture:
    """A drawing as SVG, without scripts."""

    svg: str


def numbers(table: str) -> tuple[dict[str, np.ndarray], list[list[str]], list[str]]:
    """The numeric columns (missing values are NaN), the rows, and the header.

    A column is numeric when at least half of what it holds are numbers.
    """
    try:
        dialect = csv.Sniffer().sniff(table[:4096], delimiters=",;\t|")
    except csv.Error:
        dialect = csv.excel
    rows = [row for row in csv.reader(io.StringIO(table), dialect) if any(cell.strip() for cell in row)]
    if len(rows) < 2:
        raise Invalid("the table needs a header and at least one row")
    if len(rows) > MOST_ROWS + 1:
        raise Invalid(f"the table has {len(rows) - 1} rows; {MOST_ROWS} are the most")
    header = [name.strip() or f"column {number}" for number, name in enumerate(rows[0], 1)]
    if len(set(header)) < len(header):
        raise Invalid("two columns have the same name; give each its own")
    columns = {}
    for at, name in enumerate(header):
        cells = [row[at].strip() if at < len(row) else "" for row in rows[1:]]
        values = np.array([number(cell) for cell in cells])
        held = sum(cell != "" for cell in cells)
        if held and np.isfinite(values).sum() * 2 >= held:
            columns[name] = values
    if not columns:
        raise Invalid("the table has no column of numbers")
    return columns, rows[1:], header


def number(cell: str) -> float:
    """A cell as a number, with grouping, percent and currency signs taken off; NaN where it is none."""
    plain = cell.replace(" ", "").strip("$€£¥%")
    if plain.count(",") == 1 and "." not in plain and len(plain.rpartition(",")[2]) != 3:
        plain = plain.replace(",", ".")
    try:
        value = float(plain.replace(",", ""))
    except ValueError:
        return float("nan")
    return value if np.isfinite(value) else float("nan")


def describe_column(name: str, values: np.ndarray) -> Column:
    """The figures of one column."""
    present = np.isfinite(values)
    held = values[present]
    low, middle, high = np.percentile(held, [25, 50, 75])
    margin = FENCE * (high - low)
    outside = present & ((values < low - margin) | (values > high + margin))
    rows = np.flatnonzero(present)
    slope = float(np.polyfit(rows, held, 1)[0]) if held.size > 1 else 0.0
    figures = [held.mean(), held.std(ddof=1) if held.size > 1 else 0.0, held.min(), middle, held.max(), slope]
    mean, deviation, minimum, median, maximum, slope = (round(float(figure), 6) for figure in figures)
    return Column(
        name=name,
        count=int(held.size),
        missing=int((~present).sum()),
        mean=mean,
        deviation=deviation,
        minimum=minimum,
        median=median,
        maximum=maximum,
        slope=slope,
        outliers=[int(row) + 1 for row in np.flatnonzero(outside)[:50]],
    )


def correlations(columns: dict[str, np.ndarray]) -> list[Correlation]:
    """Each pair of columns that varies, the strongest first."""
    names = list(columns)
    found = []
    for at, first in enumerate(names):
        for second in names[at + 1 :]:
            both = np.isfinite(columns[first]) & np.isfinite(columns[second])
            one, other = columns[first][both], columns[second][both]
            if one.size > 2 and one.std() > 0 and other.std() > 0:
                found.append(Correlation(first, second, round(float(np.corrcoef(one, other)[0, 1]), 4)))
    return sorted(found, key=lambda pair: -abs(pair.value))[:50]


@app.action(title={"en": "Describe a table", "zh": "描述表格"})
def describe(ctx: Context, table: Table) -> Description:
    """The figures of each numeric column, and which columns move together.

    Args:
        table: Comma, semicolon or tab between the cells.
    """
    columns, rows, _ = numbers(table)
    return Description(
        len(rows), [describe_column(name, values) for name, values in columns.items()], correlations(columns)
    )


@app.action(title={"en": "Draw a table", "zh": "绘制图表"})
def plot(
    ctx: Context,
    table: Table,
    kind: Annotated[
        Literal["line", "bar", "scatter", "histogram"], Field(title={"en": "Kind", "zh": "图表类型"})
    ] = "line",
    columns: Annotated[list[str], Field(title={"en": "Columns; empty: all", "zh": "列；留空为全部"}, max=12)] = [],  # noqa: B006
) -> Picture:
    """Draw columns of a table as SVG.

    Args:
        table: Comma, semicolon or tab between the cells.
        kind: A scatter takes two columns, a histogram one.
        columns: Which columns.
    """
    every, _, _ = numbers(table)
    unknown = [name for name in columns if name not in every]
    if unknown:
        raise Invalid(f"no column of numbers is called {unknown[0]!r}; there are {', '.join(every)}")
    chosen = {name: every[name] for name in columns or list(every)[:12]}
    if kind == "scatter" and len(chosen) < 2:
        raise Invalid("a scatter takes two columns of numbers")
    return Picture(draw(kind, chosen))


def draw(kind: str, chosen: dict[str, np.ndarray]) -> str:
    """The SVG of a chart."""
    names = list(chosen)
    look = {
        "style": CleanStyle,
        "js": [],
        "no_prefix": True,
        "disable_xml_declaration": True,
        "width": 720,
        "height": 420,
    }
    if kind == "scatter":
        chart = pygal.XY(stroke=False, x_title=names[0], y_title=names[1], show_legend=False, **look)
        both = np.isfinite(chosen[names[0]]) & np.isfinite(chosen[names[1]])
        points = np.column_stack([chosen[names[0]][both], chosen[names[1]][both]])
        chart.add(names[1], [(float(x), float(y)) for x, y in points[:: max(1, len(points) // MOST_POINTS)]])
    elif kind == "histogram":
        values = chosen[names[0]][np.isfinite(chosen[names[0]])]
        heights, edges = np.histogram(values, bins="auto" if values.size < 5000 else 50)
        chart = pygal.Histogram(x_title=names[0], show_legend=False, **look)
        bars = zip(heights.tolist(), edges[:-1].tolist(), edges[1:].tolist(), strict=True)
        chart.add(names[0], [bar for bar in bars])  # noqa: C416 (pygal takes a list of triples)
    else:
        chart = pygal.Line(show_dots=False, **look) if kind == "line" else pygal.Bar(**look)
        for name, values in chosen.items():
            step = max(1, len(values) // MOST_POINTS)
            chart.add(name, [float(value) if np.isfinite(value) else None for value in values[::step]])
    tree = chart.render_tree()
    # pygal writes its configuration as a script whatever it is told; a picture that is shown in a page holds none.
    for parent in list(tree.iter()):
        for child in [child for child in parent if str(child.tag).endswith("script")]:
            parent.remove(child)
    return str(etree.tostring(tree, encoding="unicode"))


@app.action(title={"en": "Say what stands out", "zh": "说明要点"})
def explain(ctx: Context, table: Table) -> str:
    """Say in words what the figures show; the figures themselves are counted, not guessed.

    Without the permission for a model, the answer is the figures.

    Args:
        table: Comma, semicolon or tab between the cells.
    """
    columns, rows, _ = numbers(table)
    lines = [f"{len(rows)} rows."]
    for name, values in columns.items():
        one = describe_column(name, values)
        lines.append(f"{name}: mean {one.mean:g}, from {one.minimum:g} to {one.maximum:g}, {one.slope:+g} a row.")
    lines += [f"{pair.first} and {pair.second} correlate by {pair.value:g}." for pair in correlations(columns)[:3]]
    if not ctx.has("model"):
        return "\n".join(lines)
    language = "Chinese" if ctx.locale == "zh" else "English"
    prompt = f"Explain these figures in {language}, in three short sentences.\n\n" + "\n".join(lines)
    return ctx.model.generate(prompt, task="summarise", temperature=0, max_tokens=200).text.strip()
