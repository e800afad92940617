"""The formats that the host holds texts to: `date` and `date-time`, in any language's app as in the SDK's Python."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from jsonschema import FormatChecker

from llmasos_sdk.dates import NotADate, read_date, read_time

_READERS: Final[Mapping[str, Callable[[str], object]]] = {"date": read_date, "date-time": read_time}


def _reads(read: Callable[[str], object]) -> Callable[[object], bool]:
    def check(value: object) -> bool:
        if isinstance(value, str):  # of another type a format says nothing
            read(value)
        return True

    return check


# Other formats are notes for readers, as JSON Schema has them.
FORMATS: Final = FormatChecker(formats=())
for _name, _read in _READERS.items():
    _checks: Any = FORMATS.checks(_name, raises=NotADate)
    _checks(_reads(_read))
