"""Random credentials that are shown once and stored as hashes: tokens, cookies, links.

A credential is `<prefix><id>_<secret>`: the id finds its row, and of the secret, 256 random bits, only a SHA-256 hash
is kept. A slow hash would protect a guessable secret; nobody guesses this one, and it is checked at every request.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol, TypeVar

from sqlmodel import Session

_SHAPE = re.compile(r"([0-9a-f]{16})_([A-Za-z0-9_-]{43})")
# What an unknown id is compared with, so that it costs the same.
_NO_HASH = "0" * 64


@dataclass(frozen=True, slots=True)
class Credential:
    """An id and its secret. `text` is what its holder keeps."""

    id: str
    secret: str
    prefix: str = ""

    @property
    def text(self) -> str:
        """What is shown, once."""
        return f"{self.prefix}{self.id}_{self.secret}"

    @property
    def hash(self) -> str:
        """What is stored."""
        return digest(self.secret)


def new_credential(prefix: str = "") -> Credential:
    """A credential that nobody has yet."""
    return Credential(secrets.token_hex(8), secrets.token_urlsafe(32), prefix)


def parse(text: str, prefix: str = "") -> Credential | None:
    """The credential that a text is, or None if it has not the shape of one."""
    if not text.startswith(prefix):
        return None
    shape = _SHAPE.fullmatch(text, len(prefix))
    return None if shape is None else Credential(shape[1], shape[2], prefix)


def _matches(stored_hash: str | None, credential: Credential) -> bool:
    """Whether a credential is the one whose hash is stored. Takes the same time whatever differs, or is missing."""
    return hmac.compare_digest(stored_hash or _NO_HASH, credential.hash) and stored_hash is not None


class Hashed(Protocol):
    """A row that stores the hash of a credential, under its id."""

    hash: str


RowT = TypeVar("RowT", bound=Hashed)


def row_of(session: Session, kind: type[RowT], credential: Credential | None) -> RowT | None:
    """The row of a credential; None if there is no such row, or its secret is another."""
    if credential is None:
        return None
    row = session.get(kind, credential.id)
    return row if _matches(row.hash if row else None, credential) else None


def digest(secret: str) -> str:
    """SHA-256 of a secret that is too long to guess."""
    return hashlib.sha256(secret.encode()).hexdigest()


def utc(value: datetime) -> datetime:
    """A time as it was written: SQLite keeps no zone, and everything is written in UTC."""
    return value if value.tzinfo else value.replace(tzinfo=UTC)
