"""Analyst, without a host."""

from xml.etree import ElementTree

import pytest

from llmasos_sdk import Invalid
from llmasos_sdk.testing import FakeContext, call

TABLE = "month,units,price\n1,10,5.0\n2,20,4.5\n3,30,4.0\n4,40,3.5\n5,500,\n"


def test_columns_are_described_and_outliers_named(llmasos_app, fake_context):
    told = call(llmasos_app, "describe", fake_context, table=TABLE)
    units = next(column for column in told["columns"] if column["name"] == "units")
    price = next(column for column in told["columns"] if column["name"] == "price")
    assert (told["rows"], units["mean"], units["median"], units["outliers"]) == (5, 120.0, 30.0, [5])
    assert (price["missing"], price["slope"]) == (1, -0.5)
    assert {"first": "month", "second": "price", "value": -1.0} in told["correlations"]


def test_semicolons_currencies_and_text_columns_are_understood(llmasos_app, fake_context):
    told = call(llmasos_app, "describe", fake_context, table="city;cost\nBrava;€1,000\nOslo;€2,500\n")
    assert [(column["name"], column["mean"]) for column in told["columns"]] == [("cost", 1750.0)]


@pytest.mark.parametrize("kind", ["line", "bar", "scatter", "histogram"])
def test_a_picture_is_svg_without_scripts(llmasos_app, fake_context, kind):
    columns = ["units"] if kind == "histogram" else ["units", "price"]
    svg = call(llmasos_app, "plot", fake_context, table=TABLE, kind=kind, columns=columns)["svg"]
    assert ElementTree.fromstring(svg).tag.endswith("svg")
    assert "<script" not in svg


def test_the_model_words_figures_that_were_counted(llmasos_app, fake_context):
    fake_context.scripted.answers("Units rise.")
    assert call(llmasos_app, "explain", fake_context, table=TABLE) == "Units rise."
    assert "units: mean 120" in fake_context.scripted.requests[0]["messages"][-1]["content"]


def test_without_a_model_the_figures_are_the_explanation(llmasos_app):
    """11-36: its permission is optional."""
    answer = call(llmasos_app, "explain", FakeContext(declined=["model"]), table=TABLE)
    assert "units: mean 120" in answer


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("a", "header"),
        ("a,b\nx,y\n", "no column of numbers"),
        ("a,a\n1,2\n", "same name"),
        ("a\n" + "1\n" * 20_001, "20000 are the most"),
    ],
)
def test_a_table_that_cannot_be_described_says_why(llmasos_app, fake_context, table, message):
    with pytest.raises(Invalid, match=message):
        call(llmasos_app, "describe", fake_context, table=table)


def test_an_unknown_column_is_named(llmasos_app, fake_context):
    with pytest.raises(Invalid, match=r"'none'.*month, units, price"):
        call(llmasos_app, "plot", fake_context, table=TABLE, columns=["none"])
