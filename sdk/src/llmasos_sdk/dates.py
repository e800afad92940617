"""Dates and times as text, as RFC 3339 and JSON Schema's formats `date` and `date-time` write them.

Python's own `fromisoformat` also reads week dates, times without a zone, and nanoseconds, which it cuts.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime
from typing import Final

from llmasos_sdk.errors import SchemaMismatch
from llmasos_sdk.messages import Message
from llmasos_sdk.messages import message as _

_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_TIME: Final = re.compile(
    r"(?P<date>[0-9]{4}-[0-9]{2}-[0-9]{2})[Tt](?P<time>[0-9]{2}:[0-9]{2}:(?P<second>[0-9]{2}))"
    r"(?:\.(?P<fraction>[0-9]+))?(?P<zone>[Zz]|[+-][0-9]{2}:[0-9]{2})"
)


class NotADate(ValueError):
    """A text is no date or time; `expected` says what would be."""

    def __init__(self, expected: Message) -> None:
        super().__init__(expected)
        self.expected = expected


def read_date(text: str) -> date:
    """The day that a text such as `2026-11-28` names.

    Raises:
        NotADate: It is written otherwise, or there is no such day.
    """
    if not _DATE.fullmatch(text):
        raise NotADate(_("a date such as 2026-11-28"))
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise NotADate(_("a day that exists, from 0001-01-01 to 9999-12-31")) from None


def read_time(text: str) -> datetime:
    """The time that a text such as `2026-11-28T09:30:00Z` names, with its zone.

    Raises:
        NotADate: It is written otherwise, has no zone, names no time, or is finer than a microsecond.
    """
    written = _TIME.fullmatch(text)
    if written is None:
        raise NotADate(_("a time with its zone, such as 2026-11-28T09:30:00Z or 2026-11-28T09:30:00+08:00"))
    read_date(written["date"])
    fraction = (written["fraction"] or "").rstrip("0")
    if len(fraction) > 6:
        raise NotADate(_("a time to the microsecond: at most 6 digits after the second"))
    if written["second"] == "60":
        raise NotADate(_("a second from 00 to 59: leap seconds are not supported"))
    zone = "+00:00" if written["zone"] in "Zz" else written["zone"]
    try:
        return datetime.fromisoformat(f"{written['date']}T{written['time']}.{fraction:0<6}{zone}")
    except ValueError:
        raise NotADate(_("an hour from 00 to 23, minutes and seconds to 59, and a zone under 24 hours")) from None


def write_time(time: datetime) -> str:
    """A time as text, with its zone.

    Raises:
        SchemaMismatch: It has no zone.
    """
    offset = time.utcoffset()
    if offset is None:
        raise SchemaMismatch(
            _("the time {time} has no zone; write datetime.now(UTC), or give it a tzinfo", time=time.isoformat())
        )
    if offset.total_seconds() % 60:  # local mean time, such as that of Paris before 1911; the format has no seconds
        try:
            time = time.astimezone(UTC)
        except OverflowError:
            raise SchemaMismatch(_("the time {time} is out of range in UTC", time=time.isoformat())) from None
    text = time.isoformat()
    return f"{text.removesuffix('+00:00')}Z" if text.endswith("+00:00") else text
