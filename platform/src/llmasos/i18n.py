"""Texts that people see, in English and Chinese.

A text stands beside the code that shows it, as `t(locale, "English", "中文")`: both languages are read, reviewed and
changed together, and neither can be missing.
"""

from __future__ import annotations

import os
from typing import Literal, TypeAlias

Locale: TypeAlias = Literal["en", "zh"]
Words: TypeAlias = tuple[str, str]
"""The same in English and Chinese."""


def locale_of(name: str) -> Locale:
    """The locale of a language tag or a POSIX locale name; English where it is neither."""
    return "zh" if name.lower().startswith("zh") else "en"


def environment_locale() -> Locale:
    """The user's locale: `LLMASOS_LOCALE`, then as POSIX orders it, `LC_ALL`, `LC_MESSAGES`, `LANG`."""
    for variable in ("LLMASOS_LOCALE", "LC_ALL", "LC_MESSAGES", "LANG"):
        if value := os.environ.get(variable):
            return locale_of(value)
    return "en"


def t(locale: str, en: str, zh: str) -> str:
    """The text in `locale`."""
    return zh if locale_of(locale) == "zh" else en
