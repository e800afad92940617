"""Messages in the reader's language. README.md beside this file says how to write one.

A message is written once, in English, where it is raised: `_("There is no app {app}.", app=app)`. It travels as its id
and parameters, and `render` shows it in a language by that language's catalog, `locales/LANGUAGE/LC_MESSAGES`.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

from llmasos.i18n.catalogs import environment_locale, languages, locale_of, negotiate, render
from llmasos_sdk.messages import Listing, Message, Texts, listing, verbatim
from llmasos_sdk.messages import counted as ngettext
from llmasos_sdk.messages import message as _

__all__ = [
    "Listing",
    "Message",
    "Texts",
    "_",
    "any_of",
    "environment_locale",
    "languages",
    "listing",
    "locale_of",
    "negotiate",
    "ngettext",
    "render",
    "verbatim",
]


def any_of(items: list[str] | tuple[str, ...]) -> Message:
    """The items as a sentence lists alternatives: "a, b or c"."""
    if len(items) < 2:
        return verbatim("".join(items))
    return _("{most} or {last}", most=items[:-1], last=items[-1])


Locale: TypeAlias = Literal["en", "zh"]
Words: TypeAlias = tuple[str, str]
"""The same in English and Chinese."""


def t(locale: str, en: str, zh: str) -> str:
    """The text in `locale`."""
    return zh if locale_of(locale) == "zh" else en
