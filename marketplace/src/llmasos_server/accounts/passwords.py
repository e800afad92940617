"""Passwords, by argon2id with the parameters that argon2-cffi recommends."""

from __future__ import annotations

import secrets
import unicodedata
from functools import cache
from typing import Final

from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error, InvalidHashError

from llmasos.errors import Invalid
from llmasos.i18n import _

MIN_LENGTH: Final = 10
MAX_BYTES: Final = 1024

_hasher = PasswordHasher()


def hash_of(password: str, *about: str) -> str:
    """What is stored of a password.

    Args:
        password: As it was typed.
        about: What an attacker tries first, such as the user's name and address: it may not be one of them.

    Raises:
        Invalid: It is too short, too long, one character again and again, or one of `about`.
    """
    plain = _normal(password)
    if len(plain) < MIN_LENGTH or len(set(plain)) < 4:
        raise Invalid(
            _("A password has at least {least} characters, not all the same; a few words do well.", least=MIN_LENGTH)
        )
    if len(plain.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        raise Invalid(_("A password has at most {most} bytes.", most=MAX_BYTES))
    if plain.casefold() in {_normal(each).casefold() for each in about}:
        raise Invalid(_("A password is not your name or your address."))
    return _hasher.hash(_encoded(plain))


def verify(stored: str | None, password: str) -> bool:
    """Whether it is the password that was stored. Takes the same time if none was."""
    plain = _normal(password[:MAX_BYTES])
    try:
        return _hasher.verify(stored or _nobodys(), _encoded(plain)) and stored is not None
    except (Argon2Error, InvalidHashError):
        return False


def needs_new_hash(stored: str) -> bool:
    """Whether it was stored with weaker parameters than those of now."""
    return _hasher.check_needs_rehash(stored)


def _normal(password: str) -> str:
    # The same characters come composed from one keyboard and decomposed from another.
    return unicodedata.normalize("NFKC", password)


def _encoded(plain: str) -> bytes:
    return plain.encode("utf-8", "surrogatepass")


@cache
def _nobodys() -> str:
    """Verified if there is no such user, or the user has no password, so that it takes as long as a wrong password."""
    return _hasher.hash(secrets.token_bytes(32))
