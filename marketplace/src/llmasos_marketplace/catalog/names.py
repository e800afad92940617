"""Pure rules for names, so that nobody installs a wrong app by misreading or mistyping its name.

An id is `publisher/name`, both lower-case ASCII words joined by hyphens (the manifest's rule). What can
still be confused are letters that look alike, moved hyphens, and names one typing slip away from a known one.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from typing import Final

from llmasos.errors import Conflict, Denied
from llmasos.i18n import _

FIRST_PARTY: Final = "llmasos"
"""The namespace of the apps that come with LLMasOS; only the seeding of the embedded catalog publishes there."""

# Longest first: "rn" before "n".
_LOOK_ALIKE: Final = (("rn", "m"), ("vv", "w"), ("cl", "d"), ("0", "o"), ("1", "l"), ("i", "l"), ("5", "s"), ("2", "z"))
# Short words are often one letter apart: cat, car, bat.
_TYPO_LENGTH: Final = 5


class NameTaken(Conflict):
    """The name is too similar to one that is taken: choose another."""

    code = "name-taken"


class NamespaceReserved(Denied):
    """This publisher's name is reserved for the apps that come with LLMasOS: choose another."""

    code = "namespace-reserved"


def normalise(name: str) -> str:
    """Convert a typed name to the form of an id: lower case, with hyphens for spaces, dots and underscores."""
    text = unicodedata.normalize("NFKC", name).strip().casefold()
    return "".join("-" if letter in " ._" else letter for letter in text)


def skeleton(name: str) -> str:
    """The name with look-alike letters unified: names with the same skeleton are confusable."""
    text = normalise(name).replace("-", "").replace("/", "")
    for like, letter in _LOOK_ALIKE:
        text = text.replace(like, letter)
    return text


def is_slip(one: str, other: str) -> bool:
    """Whether one typing slip turns one name into the other: a letter added, missing, changed, or two swapped."""
    if one == other or min(len(one), len(other)) < _TYPO_LENGTH or abs(len(one) - len(other)) > 1:
        return False
    start = 0
    while start < min(len(one), len(other)) and one[start] == other[start]:
        start += 1
    a, b = one[start:], other[start:]
    if len(a) == len(b):
        swapped = len(a) > 1 and a[0] == b[1] and a[1] == b[0] and a[2:] == b[2:]
        return swapped or a[1:] == b[1:]
    return a[1:] == b or a == b[1:]


def check_name(app_id: str, known: Iterable[str], *, first_party: bool = False) -> None:
    """Check a new app's id against the known ones.

    Args:
        app_id: The id in the manifest.
        known: The ids in the catalog. A known id passes.
        first_party: Whether the embedded catalog is being seeded.

    Raises:
        NamespaceReserved: The publisher's name is LLMasOS's, or begins with it.
        NameTaken: The publisher or the app is confusable with a known one, or a likely typo of it.
    """
    publisher, __, name = app_id.partition("/")
    reserved = publisher == FIRST_PARTY or publisher.startswith(f"{FIRST_PARTY}-")
    if reserved and not first_party:
        raise NamespaceReserved(
            _(
                "The publisher {publisher!r} is reserved for the apps that come with "
                "LLMasOS: change `id` in llmapp.toml.",
                publisher=publisher,
            ),
        )
    taken = set(known)
    if app_id in taken:
        return
    publishers = {other.partition("/")[0] for other in taken} | {FIRST_PARTY}
    if publisher not in publishers:
        for other in sorted(publishers):
            if skeleton(publisher) == skeleton(other) or is_slip(publisher, other):
                raise _too_near(publisher, other)
    for other in sorted(taken):
        same_publisher = other.partition("/")[0] == publisher
        # Tool names join publisher and name, so moving a hyphen across the slash also confuses.
        if skeleton(app_id) == skeleton(other) or (same_publisher and is_slip(name, other.partition("/")[2])):
            raise _too_near(app_id, other)


def _too_near(name: str, other: str) -> NameTaken:
    return NameTaken(
        _(
            "The name {name!r} is too easily confused with {other!r}, which exists already: choose another.",
            name=name,
            other=other,
        ),
    )
