"""Messages in the reader's language. README.md beside this file says how to write one.

A message is written once, in English, where it is raised: `_("There is no app {app}.", app=app)`. It travels as its id
and parameters, and `render` shows it in a language by that language's catalog, `locales/LANGUAGE/LC_MESSAGES`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from llmasos.i18n.catalogs import environment_locale, languages, locale_of, negotiate, render
from llmasos_sdk.messages import Listing, Message, Texts, from_text, listing, template, to_text, verbatim
from llmasos_sdk.messages import counted as ngettext
from llmasos_sdk.messages import message as _

# The separators of listings, which are translated like any message.
SEPARATORS = tuple(map(template, (_(", "), _("; "), _(" or "), _(" and "), _("\n  "))))

__all__ = [
    "Listing",
    "Message",
    "Texts",
    "_",
    "any_of",
    "environment_locale",
    "from_text",
    "languages",
    "listing",
    "locale_of",
    "negotiate",
    "ngettext",
    "recognise",
    "render",
    "template",
    "to_text",
    "verbatim",
]


def any_of(items: Iterable[str]) -> Message:
    """The items as a sentence lists alternatives: "a, b or c"."""
    *most, last = items
    return _("{most} or {last}", most=most, last=last) if most else verbatim(last)


def recognise(message: Message, known: Mapping[str, Message]) -> Message:
    """The message with each known message in it that was passed on as plain English, such as by an app.

    Args:
        message: Its parameters may contain English sentences.
        known: Messages by their English.
    """
    parameters = {
        name: _recognised(value, known) if isinstance(value, str) else value
        for name, value in message.parameters.items()
    }
    return Message(message.id, parameters, message.plural)


def _recognised(text: str, known: Mapping[str, Message]) -> str:
    if isinstance(text, Message):
        return recognise(text, known)
    for english, said in known.items():
        before, found, after = text.partition(english)
        if found:
            return Message("{before}{said}{after}", {"before": before, "said": said, "after": after})
    return text
