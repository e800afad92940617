"""Gettext's compiled catalogs, and the choice between languages."""

from __future__ import annotations

import os
from functools import cache
from gettext import NullTranslations
from pathlib import Path
from typing import Final

from llmasos_sdk.messages import Message

DOMAIN: Final = "llmasos"
SOURCE: Final = "en"
"""The language that messages are written in; it needs no catalog."""
FOLDER: Final = Path(__file__).parent / "locales"


@cache
def languages(folder: Path = FOLDER) -> tuple[str, ...]:
    """The languages there are: English, and each that has a catalog."""
    found = sorted(file.parent.parent.name for file in folder.glob(f"*/LC_MESSAGES/{DOMAIN}.mo"))
    return (SOURCE, *found)


@cache
def _catalog(language: str, folder: Path) -> NullTranslations:
    import gettext  # noqa: PLC0415 -- a command in English needs none of it

    return gettext.translation(DOMAIN, folder, [language], fallback=True)


def render(text: str, locale: str, folder: Path = FOLDER) -> str:
    """A message in the reader's language; words that are no message are returned as they are.

    Args:
        text: The message, or foreign words.
        locale: A language tag or a POSIX locale name.
        folder: Where the catalogs are.
    """
    if not isinstance(text, Message):
        return text
    language = locale_of(locale, folder)
    if language == SOURCE:
        return str(text)
    catalog = _catalog(language, folder)

    def translate(id_: str, plural: str, count: int) -> str:
        return catalog.ngettext(id_, plural, count) if plural else catalog.gettext(id_)

    return text.text(translate, language)


def locale_of(name: str, folder: Path = FOLDER) -> str:
    """The language for a language tag or a POSIX locale name; English if there is no catalog for it."""
    language = name.replace("_", "-").partition("-")[0].partition(".")[0].lower()
    return language if language in languages(folder) else SOURCE


def negotiate(accept_language: str, folder: Path = FOLDER) -> str:
    """The language that an `Accept-Language` header prefers (RFC 9110, section 12.5.4)."""
    asked: list[tuple[float, str]] = []
    for part in accept_language.split(",")[:20]:
        tag, _, parameter = part.strip().partition(";")
        try:
            asked.append((float(parameter.strip().removeprefix("q=") or "1"), tag.strip()))
        except ValueError:
            continue
    for weight, tag in sorted(asked, key=lambda each: -each[0]):
        language = locale_of(tag, folder)
        if weight > 0 and (language != SOURCE or tag.lower().startswith(SOURCE)):
            return language
    return SOURCE


def environment_locale() -> str:
    """The user's language: `LLMASOS_LOCALE`, then as POSIX orders it, `LC_ALL`, `LC_MESSAGES`, `LANG`."""
    for variable in ("LLMASOS_LOCALE", "LC_ALL", "LC_MESSAGES", "LANG"):
        if value := os.environ.get(variable):
            return locale_of(value)
    return SOURCE
