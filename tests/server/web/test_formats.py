"""Dates, numbers and amounts in both languages."""

from datetime import UTC, date, datetime

import pytest

from llmasos_server.web.formats import Formats


@pytest.mark.parametrize(
    ("locale", "day", "short", "compact", "money"),
    [
        ("en", "Nov 28, 2026", "Nov 28", "12.3K", "$0.0012"),
        ("zh", "2026年11月28日", "11月28日", "1.2万", "US$0.0012"),
    ],
)
def test_values_are_written_as_the_language_does(locale: str, day: str, short: str, compact: str, money: str) -> None:
    """12-6."""
    formats = Formats(locale)
    assert formats.day(date(2026, 11, 28)) == day
    assert formats.short_day(date(2026, 11, 28)) == short
    assert formats.compact(12_345) == compact
    assert formats.usd(1_234) == money
    assert formats.number(1_234_567) == "1,234,567"


def test_an_instant_without_a_zone_is_of_utc() -> None:
    """12-6: SQLite keeps no zone."""
    assert Formats("en").at(datetime(2026, 11, 28, 9)) == Formats("en").at(datetime(2026, 11, 28, 9, tzinfo=UTC))
