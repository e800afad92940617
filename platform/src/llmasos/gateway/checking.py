"""Checks a model's entry when it is set: for what its types allow, but no provider can work with.

Entries that an earlier release stored are read without these checks, so that one of them never stops the others.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final
from urllib.parse import urlsplit

from llmasos.errors import Invalid
from llmasos.gateway.models import ModelEntry
from llmasos.i18n import Message, _, listing
from llmasos.printable import hidden_character, one_line

# No model reads or costs more. Larger numbers would overflow the ledger's columns.
MAX_WINDOW_TOKENS: Final = 100_000_000
MAX_PRICE: Final = 100_000_000_000

# Clients append these routes to the address themselves.
_ROUTE: Final = re.compile(r"/(chat/completions|completions|embeddings|responses|messages|models|api/(chat|generate))$")
_LANGUAGE: Final = re.compile(r"^[A-Za-z]{2,3}(-[A-Za-z0-9]{1,8})*$")


def check_entry(entry: ModelEntry, where: str | Message) -> ModelEntry:
    """Return the entry.

    Raises:
        Invalid: With every fault, each naming its field and the cure.
    """
    faults = [_("{field}: {what}", field=field, what=what) for field, what in _faults(entry)]
    if faults:
        raise Invalid(
            _(
                "The model {name} in {where} is not valid: {faults}",
                name=entry.name,
                where=where,
                faults=listing(faults, "; "),
            )
        )
    return entry


def _faults(entry: ModelEntry) -> Iterator[tuple[str, Message]]:
    if odd := _odd_character(entry.litellm):
        yield "litellm", _("it contains {odd}: paste it again", odd=odd)
    elif entry.litellm.endswith("/"):
        yield "litellm", _("{string!r} names no model: write {string}MODEL", string=entry.litellm)
    if entry.api_base is not None:
        yield from (("api_base", what) for what in _address_faults(entry.api_base))
    if entry.context_window > MAX_WINDOW_TOKENS:
        yield "context_window", _("must be at most {most:,} tokens", most=MAX_WINDOW_TOKENS)
    if entry.price is not None and max(entry.price.input, entry.price.output) > MAX_PRICE:
        yield "price", _("is over 100,000 USD for a million tokens; write micro-USD for a million tokens")
    for language in entry.languages:
        if not _LANGUAGE.match(language):
            yield "languages", _("{language!r} is no language code such as en or zh", language=one_line(language)[:35])
    if entry.name in entry.fallbacks:
        yield "fallbacks", _("a model cannot be its own fallback")


def _address_faults(address: str) -> Iterator[Message]:
    if odd := _odd_character(address):
        yield _("it contains {odd}: paste it again", odd=odd)
        return
    parts = urlsplit(address)
    if parts.port == 0:
        yield _("no server has the port 0")
    if parts.username or parts.password:
        yield _("it contains a password: set it as the model's key instead")
    if parts.query or parts.fragment:
        yield _("it ends at {end!r}: leave that away", end=address[min(map(address.find, _ENDS & set(address))) :][:40])
    elif route := _ROUTE.search(parts.path):
        yield _("write {address}, without {route}", address=address.removesuffix(route[0]), route=route[0])


_ENDS: Final = frozenset("?#")


def _odd_character(text: str) -> str | None:
    """The first character that no address and no model string contains, by its code; None if there is none."""
    if hidden := hidden_character(text):
        return hidden
    odd = next((letter for letter in text if letter.isspace() or not letter.isascii()), None)
    return None if odd is None else f"U+{ord(odd):04X}"
