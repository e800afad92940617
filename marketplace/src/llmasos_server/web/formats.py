"""Dates, numbers and amounts, as the reader's language writes them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from typing import Final

from babel import Locale
from babel.dates import format_date, format_time
from babel.numbers import format_compact_decimal, format_currency, format_decimal, format_percent

from llmasos_server.accounts.credentials import utc

_LOCALES: Final = {"zh": "zh_Hans_CN", "en": "en_US"}
# Sums of small calls: a cent would hide them.
_FINE: Final = "¤#,##0.0000"


@dataclass(frozen=True, slots=True)
class Formats:
    """Writes values in a language. Instants are stored in UTC, and shown in the server's time zone, as commands do."""

    locale: str

    @property
    def _known(self) -> Locale:
        return Locale.parse(_LOCALES.get(self.locale, self.locale))

    def at(self, instant: datetime) -> str:
        """An instant, to the minute."""
        local = utc(instant).astimezone()
        return f"{format_date(local, 'medium', self._known)} {format_time(local, 'short', locale=self._known)}"

    def day(self, day: date | datetime) -> str:
        """A day."""
        shown = utc(day).astimezone().date() if isinstance(day, datetime) else day
        return format_date(shown, "medium", locale=self._known)

    def short_day(self, day: date) -> str:
        """A day of this year, for the axis of a chart."""
        return format_date(day, "M月d日" if self.locale == "zh" else "MMM d", locale=self._known)

    def number(self, number: float) -> str:
        """A number, with the separators of thousands."""
        return format_decimal(number, locale=self._known)

    def compact(self, number: float) -> str:
        """A number of a few characters: 12K."""
        return format_compact_decimal(number, locale=self._known, fraction_digits=1)

    def percent(self, part: float) -> str:
        """A part of 1."""
        return format_percent(part, locale=self._known)

    def usd(self, micro_usd: int) -> str:
        """An amount of money, to the hundredth of a cent."""
        return format_currency(micro_usd / 1_000_000, "USD", _FINE, locale=self._known, currency_digits=False)
