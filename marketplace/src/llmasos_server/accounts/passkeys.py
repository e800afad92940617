"""Passkeys (WebAuthn): a key on a phone, a computer or a stick, which its owner unlocks there.

A passkey signs in alone: user verification is demanded, so it is something that one has and something that one knows
or is.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from urllib.parse import urlsplit

import webauthn
from sqlmodel import col, select
from webauthn.helpers import (
    base64url_to_bytes,
    bytes_to_base64url,
    options_to_json,
    parse_authentication_credential_json,
)
from webauthn.helpers.exceptions import WebAuthnException
from webauthn.helpers.structs import (
    AuthenticatorSelectionCriteria,
    PublicKeyCredentialDescriptor,
    ResidentKeyRequirement,
    UserVerificationRequirement,
)

from llmasos.database.engine import ReadSession, WriteSession
from llmasos.errors import Conflict, Invalid, NotFound, Unauthenticated
from llmasos.i18n import _
from llmasos_server.accounts import one_time, people
from llmasos_server.accounts.one_time import Purpose
from llmasos_server.accounts.tables import Passkey, User

MAX_PASSKEYS: Final = 20


@dataclass(frozen=True, slots=True)
class Ceremony:
    """What a browser is asked: options as WebAuthn's JSON, and the code that it sends back with the response."""

    options: str
    code: str


@dataclass(frozen=True, slots=True)
class Site:
    """Where the pages are, as the browser sees them: passkeys belong to its name.

    Attributes:
        origin: Scheme, name and port, such as `https://llmasos.example.com`.
    """

    origin: str

    @property
    def name(self) -> str:
        """The name without scheme and port."""
        return urlsplit(self.origin).hostname or ""


def begin_adding(session: WriteSession, user: User, site: Site) -> Ceremony:
    """Ask a browser to make a passkey.

    Raises:
        Invalid: The user has as many as there may be.
    """
    known = of_user(session, user.id)
    if len(known) >= MAX_PASSKEYS:
        raise Invalid(_("You have {most} passkeys: remove one first.", most=MAX_PASSKEYS))
    options = webauthn.generate_registration_options(
        rp_id=site.name,
        rp_name="LLMasOS",
        user_name=user.email or user.name,
        user_display_name=user.name,
        user_id=user.id.encode(),
        authenticator_selection=AuthenticatorSelectionCriteria(
            resident_key=ResidentKeyRequirement.REQUIRED, user_verification=UserVerificationRequirement.REQUIRED
        ),
        exclude_credentials=[PublicKeyCredentialDescriptor(id=base64url_to_bytes(each.id)) for each in known],
    )
    code = one_time.issue(session, Purpose.PASSKEY_ADDED, user.id, bytes_to_base64url(options.challenge))
    return Ceremony(options_to_json(options), code.text)


def add(session: WriteSession, user: User, site: Site, code: str, response: str, *, name: str) -> Passkey:
    """Keep the passkey that a browser made.

    Raises:
        Unauthenticated: The ceremony was begun by another user, or too long ago.
        Invalid: The response does not belong to it.
        Conflict: The passkey is known already.
    """
    begun = one_time.use(session, Purpose.PASSKEY_ADDED, code)
    if begun.user_id != user.id:
        raise Unauthenticated
    try:
        made = webauthn.verify_registration_response(
            credential=response,
            expected_challenge=base64url_to_bytes(begun.data),
            expected_rp_id=site.name,
            expected_origin=site.origin,
            require_user_verification=True,
        )
    except (WebAuthnException, ValueError, KeyError, TypeError) as error:
        raise Invalid(_("The browser's passkey could not be verified: try again.")) from error
    key_id = bytes_to_base64url(made.credential_id)
    if session.get(Passkey, key_id) is not None:
        raise Conflict(_("This passkey is known already."))
    passkey = Passkey(
        id=key_id,
        user_id=user.id,
        public_key=bytes_to_base64url(made.credential_public_key),
        sign_count=made.sign_count,
        name=people.normal_name(name),
        created_at=datetime.now(UTC),
    )
    session.add(passkey)
    session.flush()
    return passkey


def begin_sign_in(session: WriteSession, site: Site) -> Ceremony:
    """Ask a browser for a passkey of whoever sits there: no name is asked for, so none can be guessed."""
    options = webauthn.generate_authentication_options(
        rp_id=site.name, user_verification=UserVerificationRequirement.REQUIRED
    )
    code = one_time.issue(session, Purpose.PASSKEY_SIGN_IN, None, bytes_to_base64url(options.challenge))
    return Ceremony(options_to_json(options), code.text)


def user_of(session: WriteSession, site: Site, code: str, response: str) -> User:
    """The user whose passkey signed the challenge.

    Raises:
        Unauthenticated: The passkey is unknown, was removed or copied, or did not sign this challenge.
    """
    begun = one_time.use(session, Purpose.PASSKEY_SIGN_IN, code)
    try:
        credential = parse_authentication_credential_json(response)
        passkey = session.get(Passkey, bytes_to_base64url(credential.raw_id))
        user = None if passkey is None else people.user_named(session, passkey.user_id)
        if passkey is None or user is None:
            raise Unauthenticated(_NOT_KNOWN)
        signed = webauthn.verify_authentication_response(
            credential=credential,
            expected_challenge=base64url_to_bytes(begun.data),
            expected_rp_id=site.name,
            expected_origin=site.origin,
            credential_public_key=base64url_to_bytes(passkey.public_key),
            credential_current_sign_count=passkey.sign_count,
            require_user_verification=True,
        )
    except (WebAuthnException, ValueError, KeyError, TypeError) as error:
        raise Unauthenticated(_NOT_KNOWN) from error
    passkey.sign_count, passkey.last_used_at = signed.new_sign_count, datetime.now(UTC)
    return user


def of_user(session: ReadSession | WriteSession, user_id: str) -> list[Passkey]:
    """The passkeys of a user, the oldest first."""
    query = select(Passkey).where(Passkey.user_id == user_id)
    return list(session.exec(query.order_by(col(Passkey.created_at), col(Passkey.id))))


def remove(session: WriteSession, user_id: str, key_id: str) -> None:
    """Forget a passkey.

    Raises:
        NotFound: The user has no such passkey.
    """
    passkey = session.get(Passkey, key_id)
    if passkey is None or passkey.user_id != user_id:
        raise NotFound(_("You have no such passkey."))
    session.delete(passkey)


_NOT_KNOWN: Final = _("This passkey is not known here: sign in another way, then add it under Settings.")
