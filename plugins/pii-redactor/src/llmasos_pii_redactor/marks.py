"""What counts as personal data, and the marks that stand for it."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field

_PATTERNS = (
    ("EMAIL", re.compile(r"[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63})+")),
    ("IBAN", re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b")),
    ("CARD", re.compile(r"(?<![\w.])\d(?:[ -]?\d){12,18}(?![\w.]\d)")),
    ("ID", re.compile(r"(?<!\d)\d{17}[\dXx](?!\w)")),
    ("ADDRESS", re.compile(r"(?<![\d.])(?:\d{1,3}\.){3}\d{1,3}(?![\d.])")),
    (
        "PHONE",
        re.compile(r"(?<![\w.])(?:\+\d{1,3}[ .-]?)?(?:\(\d{1,4}\)[ .-]?)?\d{2,4}(?:[ .-]?\d{2,4}){2,4}(?![\w.]\d)"),
    ),
)
_MARK = re.compile(r"\[(?:EMAIL|IBAN|CARD|ID|ADDRESS|PHONE)_\d+\]")
# The longest mark with a five-digit number: a stream holds back no more than this.
_LONGEST = len("[ADDRESS_99999]")


def luhn(digits: str) -> bool:
    """Whether the check digit of a card number holds (ISO/IEC 7812-1, annex B)."""
    total = 0
    for position, digit in enumerate(reversed([int(character) for character in digits])):
        doubled = digit * 2 if position % 2 else digit
        total += doubled - 9 if doubled > 9 else doubled
    return total % 10 == 0


def iban_holds(text: str) -> bool:
    """Whether the check digits of an IBAN hold (ISO 13616: the number modulo 97 is one)."""
    compact = text.replace(" ", "")
    moved = compact[4:] + compact[:4]
    return int("".join(str(int(character, 36)) for character in moved)) % 97 == 1


def identity_holds(text: str) -> bool:
    """Whether the check digit of a Chinese resident identity number holds (GB 11643-1999)."""
    weights = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
    return "10X98765432"[sum(int(d) * w for d, w in zip(text[:17], weights, strict=True)) % 11] == text[17].upper()


def _holds(kind: str, text: str) -> bool:
    match kind:
        case "CARD":
            return luhn(re.sub(r"\D", "", text))
        case "IBAN":
            return iban_holds(text)
        case "ID":
            return identity_holds(text)
        case "ADDRESS":
            return all(int(part) < 256 for part in text.split("."))
        case "PHONE":
            # Seven digits are the shortest subscriber number; fifteen the longest number there is (ITU-T E.164).
            return 7 <= len(re.sub(r"\D", "", text)) <= 15
        case _:
            return True


@dataclass(slots=True)
class Marks:
    """The marks of one call. False while there is none."""

    by_value: dict[tuple[str, str], str] = field(default_factory=dict)
    by_mark: dict[str, str] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)

    def __bool__(self) -> bool:
        return bool(self.by_mark)

    def put(self, text: str) -> str:
        """The text with marks in it."""
        # A mark that the user wrote must not turn into somebody's value in the answer.
        for written in _MARK.findall(text):
            self.by_mark.setdefault(written, written)
        for kind, pattern in _PATTERNS:
            text = pattern.sub(lambda match, kind=kind: self._mark(kind, match[0]), text)
        return text

    def _mark(self, kind: str, value: str) -> str:
        if not _holds(kind, value):
            return value
        known = self.by_value.get((kind, value))
        if known is not None:
            return known
        while True:
            self.counts[kind] += 1
            mark = f"[{kind}_{self.counts[kind]}]"
            if mark not in self.by_mark:
                break
        self.by_value[kind, value] = mark
        self.by_mark[mark] = value
        return mark

    def restorer(self) -> Restorer:
        """A filter that puts the values back."""
        return Restorer(self.by_mark)


@dataclass(slots=True)
class Restorer:
    """Puts values back in place of marks, also where a mark is cut between two parts of a stream."""

    by_mark: dict[str, str]
    held: str = ""

    def feed(self, text: str) -> str:
        """What can be shown by now: all but a tail that may be the start of a mark."""
        text = self.held + text
        start = text.rfind("[", max(0, len(text) - _LONGEST))
        cut = start if start >= 0 and "]" not in text[start:] else len(text)
        self.held = text[cut:]
        return self._restored(text[:cut])

    def finish(self) -> str:
        """What was held back."""
        rest, self.held = self.held, ""
        return self._restored(rest)

    def _restored(self, text: str) -> str:
        return _MARK.sub(lambda match: self.by_mark.get(match[0], match[0]), text)
