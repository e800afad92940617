"""The second factor: six digits from an app on a phone (TOTP, RFC 6238), and codes for the day the phone is lost."""

from __future__ import annotations

import hmac
import secrets
from datetime import UTC, datetime
from typing import Final

from pyotp import random_base32
from pyotp.totp import TOTP
from sqlmodel import col, delete, select

from llmasos.database.engine import ReadSession, WriteSession
from llmasos.errors import Conflict, Denied
from llmasos.i18n import _
from llmasos.secrets.service import Secrets
from llmasos_server.accounts.credentials import digest
from llmasos_server.accounts.tables import Authenticator, RecoveryCode, User

ISSUER: Final = "LLMasOS"
STEP_SECONDS: Final = 30
RECOVERY_CODES: Final = 10
# A phone's clock may be wrong by so many steps either way.
TOLERANCE: Final = 1


class SecondFactors:
    """The second factors of a home's users.

    Args:
        secrets: Encrypts what the codes are made from.
    """

    def __init__(self, secrets: Secrets) -> None:
        self._secrets = secrets

    def begin(self, session: WriteSession, user: User) -> str:
        """Make a secret for a user's phone; it is in force once `confirm` was called.

        Returns:
            The address that a phone reads as a picture: `otpauth://totp/…`.

        Raises:
            Conflict: The user has a second factor.
        """
        row = session.get(Authenticator, user.id)
        if row is not None and row.confirmed_at is not None:
            raise Conflict(_("You have a second factor already: remove it first."))
        secret = random_base32()
        row = row or Authenticator(user_id=user.id, ciphertext="")
        row.ciphertext = self._secrets.encrypt(secret)
        session.add(row)
        return TOTP(secret).provisioning_uri(name=user.email or user.name, issuer_name=ISSUER)

    def begun(self, session: ReadSession, user: User) -> str | None:
        """The address that `begin` returned, as long as it is not confirmed."""
        row = session.get(Authenticator, user.id)
        if row is None or row.confirmed_at is not None:
            return None
        secret = self._secrets.decrypt(row.ciphertext)
        return TOTP(secret).provisioning_uri(name=user.email or user.name, issuer_name=ISSUER)

    def confirm(self, session: WriteSession, user_id: str, code: str) -> list[str]:
        """Put a second factor in force, by a code of it.

        Returns:
            The recovery codes, which are shown once.

        Raises:
            Denied: The code is not of it.
        """
        row = session.get(Authenticator, user_id)
        if row is None or row.confirmed_at is not None or not self._take(session, row, code):
            raise Denied(_("That is not the code that the app shows now: type the newest one."))
        row.confirmed_at = datetime.now(UTC)
        return new_recovery_codes(session, user_id)

    def check(self, session: WriteSession, user_id: str, code: str) -> bool:
        """Whether a code is good, of the phone or for recovery. It is good once."""
        row = session.get(Authenticator, user_id)
        if row is None or row.confirmed_at is None:
            return False
        return self._take(session, row, code) or _take_recovery_code(session, user_id, code)

    def _take(self, session: WriteSession, row: Authenticator, code: str) -> bool:
        digits = "".join(code.split())
        if not (digits.isascii() and digits.isdecimal()):
            return False
        totp = TOTP(self._secrets.decrypt(row.ciphertext))
        now = int(datetime.now(UTC).timestamp()) // STEP_SECONDS
        for step in range(now - TOLERANCE, now + TOLERANCE + 1):
            if step > row.last_step and hmac.compare_digest(totp.generate_otp(step), digits):
                row.last_step = step
                session.add(row)
                return True
        return False


def is_on(session: ReadSession | WriteSession, user_id: str) -> bool:
    """Whether a user has a second factor in force."""
    row = session.get(Authenticator, user_id)
    return row is not None and row.confirmed_at is not None


def remove(session: WriteSession, user_id: str) -> None:
    """Forget a user's second factor and recovery codes."""
    session.exec(delete(RecoveryCode).where(col(RecoveryCode.user_id) == user_id))
    session.exec(delete(Authenticator).where(col(Authenticator.user_id) == user_id))


def new_recovery_codes(session: WriteSession, user_id: str) -> list[str]:
    """Make recovery codes in place of those of before; returns them, to be shown once."""
    session.exec(delete(RecoveryCode).where(col(RecoveryCode.user_id) == user_id))
    codes = [secrets.token_hex(10) for _number in range(RECOVERY_CODES)]
    session.add_all(RecoveryCode(user_id=user_id, hash=digest(code)) for code in codes)
    return ["-".join(code[at : at + 5] for at in range(0, 20, 5)) for code in codes]


def recovery_codes_left(session: ReadSession | WriteSession, user_id: str) -> int:
    """How many recovery codes of a user were not used."""
    unused = select(RecoveryCode).where(RecoveryCode.user_id == user_id, col(RecoveryCode.used_at).is_(None))
    return len(session.exec(unused).all())


def _take_recovery_code(session: WriteSession, user_id: str, code: str) -> bool:
    plain = "".join(each for each in code.casefold() if each.isalnum())
    row = session.exec(
        select(RecoveryCode).where(
            RecoveryCode.user_id == user_id, RecoveryCode.hash == digest(plain), col(RecoveryCode.used_at).is_(None)
        )
    ).first()
    if row is None:
        return False
    row.used_at = datetime.now(UTC)
    return True
