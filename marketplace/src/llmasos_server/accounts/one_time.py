"""Codes that are good once and for minutes: sign-in links, challenges, the wait for a second factor."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final

from sqlmodel import col, delete

from llmasos.database.engine import ReadSession, WriteSession
from llmasos.errors import Unauthenticated
from llmasos.i18n import _
from llmasos_server.accounts.credentials import Credential, new_credential, parse, row_of, utc
from llmasos_server.accounts.tables import OneTimeCode


class Purpose(StrEnum):
    """What a code is good for, and for nothing else."""

    SIGN_IN_LINK = "sign-in-link"
    SECOND_FACTOR = "second-factor"
    """The password was right; the second factor is still to come."""
    PASSKEY_ADDED = "passkey-added"
    PASSKEY_SIGN_IN = "passkey-sign-in"
    OIDC = "oidc"
    """A sign-in that began here, and goes on at a company's provider of identities."""


LIFE: Final = {
    Purpose.SIGN_IN_LINK: timedelta(minutes=15),
    Purpose.SECOND_FACTOR: timedelta(minutes=5),
    Purpose.PASSKEY_ADDED: timedelta(minutes=5),
    Purpose.PASSKEY_SIGN_IN: timedelta(minutes=5),
    Purpose.OIDC: timedelta(minutes=10),
}
# A used code is kept this long, so that the log distinguishes its second use from an invented code.
_KEPT: Final = timedelta(days=1)


def issue(session: WriteSession, purpose: Purpose, user_id: str | None = None, data: str = "") -> Credential:
    """Make a code. Expired ones are removed at the same time."""
    now = datetime.now(UTC)
    session.exec(delete(OneTimeCode).where(col(OneTimeCode.expires_at) < now - _KEPT))
    code = new_credential()
    session.add(
        OneTimeCode(
            id=code.id,
            hash=code.hash,
            purpose=purpose,
            user_id=user_id,
            data=data,
            expires_at=now + LIFE[purpose],
        )
    )
    session.flush()
    return code


def peek(session: ReadSession | WriteSession, purpose: Purpose, text: str) -> OneTimeCode:
    """A code that is good now; it stays good.

    Raises:
        Unauthenticated: It is unknown, was used, or has expired: which of these is not said.
    """
    row = row_of(session, OneTimeCode, parse(text))
    good = (
        row is not None and row.purpose == purpose and row.used_at is None and utc(row.expires_at) > datetime.now(UTC)
    )
    if row is None or not good:
        raise Unauthenticated(_("This link or code was used already, or has expired: begin again."))
    return row


def use(session: WriteSession, purpose: Purpose, text: str) -> OneTimeCode:
    """Use a code up. If two callers use it at once, the database's write lock makes one of them fail.

    Raises:
        Unauthenticated: As `peek`.
    """
    row = peek(session, purpose, text)
    row.used_at = datetime.now(UTC)
    session.add(row)
    session.flush()
    return row
