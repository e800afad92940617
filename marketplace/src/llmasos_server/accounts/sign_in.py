"""Signing in: by a link, a password, a passkey; then, if there is one, by the second factor."""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from limits import RateLimitItem, RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from llmasos.database.engine import Database, WriteSession
from llmasos.errors import Denied, LlmasosError, QuotaExceeded, Unauthenticated
from llmasos.i18n import _
from llmasos.kernel import audit
from llmasos.kernel.audit import Line
from llmasos.kernel.invocation import Principal
from llmasos_server.accounts import one_time, passkeys, passwords, people, second_factor, sessions
from llmasos_server.accounts.credentials import Credential
from llmasos_server.accounts.one_time import Purpose
from llmasos_server.accounts.passkeys import Ceremony, Site
from llmasos_server.accounts.second_factor import SecondFactors
from llmasos_server.accounts.tables import User

# In 15 minutes. A success forgets what came before. Each host process counts for itself.
PER_ACCOUNT: Final = RateLimitItemPerMinute(10, 15)
PER_ADDRESS: Final = RateLimitItemPerMinute(50, 15)
OWNER: Final = Principal()


class TooManyAttempts(QuotaExceeded):
    """Too many attempts to sign in; wait, then try again."""

    code = "too-many-attempts"


@dataclass(frozen=True, slots=True)
class SecondFactorNeeded:
    """The first factor was right. `code` goes with the second."""

    code: str


@dataclass(frozen=True, slots=True)
class Browser:
    """Who signs in, as the transport knows it.

    Attributes:
        address: The other end of the connection.
        device: The browser's name for itself.
    """

    address: str
    device: str


class SignIn:
    """Signs browsers in. Every wrong answer is the same, takes the same time, and is counted."""

    def __init__(self, database: Database, factors: SecondFactors) -> None:
        self._database = database
        self._factors = factors
        self._attempts = MovingWindowRateLimiter(MemoryStorage())

    def by_password(self, email: str, password: str, browser: Browser) -> Credential | SecondFactorNeeded:
        """Sign in by address and password. Takes about 50 ms of a core: call it in a thread.

        Returns:
            The session's cookie, or that a second factor is needed.

        Raises:
            Unauthenticated: The address or the password is wrong: which is not said.
            TooManyAttempts: Of this account, or from this address.
        """
        account = email.strip().casefold()[:254]
        with self._counted(browser, account):
            try:
                address = people.normal_email(email)
            except LlmasosError:
                address = ""
            with self._database.read() as session:
                found = people.by_email(session, address)
                user_id, stored = (found.id, found.password_hash) if found else ("", None)
            if not passwords.verify(stored, password):
                self._audit_failure(user_id)
                raise Unauthenticated(_WRONG)
            with self._database.write() as session:
                user = people.user_named(session, user_id)
                # It may have been changed, or the user disabled, while it was verified.
                if user is None or user.password_hash != stored or stored is None:
                    raise Unauthenticated(_WRONG)
                if passwords.needs_new_hash(stored):
                    user.password_hash = passwords.hash_of(password)
                return self._after_first_factor(session, user, browser)

    def by_second_factor(self, waiting: str, code: str, browser: Browser) -> Credential:
        """Go on after `SecondFactorNeeded`, by a code of the phone or for recovery.

        Raises:
            Unauthenticated: The code is wrong, or the password was typed too long ago.
            TooManyAttempts: Of this account, or from this address.
        """
        with self._database.read() as session:
            user_id = one_time.peek(session, Purpose.SECOND_FACTOR, waiting).user_id or ""
        with self._counted(browser, f"second-factor {user_id}"), self._database.write() as session:
            user = people.user_named(session, user_id)
            if user is None or not self._factors.check(session, user_id, code):
                raise Unauthenticated(_("That is not a code that is good now: type the newest one."))
            one_time.use(session, Purpose.SECOND_FACTOR, waiting)
            return self._begin(session, user, browser)

    def by_link(self, link: str, browser: Browser) -> Credential:
        """Sign in by a one-time link.

        Raises:
            Unauthenticated: It was used, or has expired.
            TooManyAttempts: From this address.
        """
        with self._counted(browser), self._database.write() as session:
            used = one_time.use(session, Purpose.SIGN_IN_LINK, link)
            user = people.user_named(session, used.user_id or "")
            if user is None:
                raise Unauthenticated(_WRONG)
            return self._begin(session, user, browser)

    def confirm(self, user_id: str, password: str, browser: Browser) -> None:
        """Have a user who is signed in prove it again, before something to sign in with is changed.

        One who has no password is not asked.

        Raises:
            Denied: The password is wrong.
            TooManyAttempts: Of this account, or from this address.
        """
        with self._database.read() as session:
            user = people.user_named(session, user_id)
            stored = user.password_hash if user else None
        if stored is None:
            return
        with self._counted(browser, f"confirm {user_id}"):
            if not passwords.verify(stored, password):
                self._audit_failure(user_id)
                raise Denied(_("That is not your password: type the one that you sign in with."))

    def begin_passkey(self, site: Site, browser: Browser) -> Ceremony:
        """Ask a browser for a passkey; see `by_passkey`.

        Raises:
            TooManyAttempts: From this address.
        """
        # A success of the ceremony forgets it; one that is never finished counts as an attempt.
        self._hit(PER_ADDRESS, browser.address)
        with self._database.write() as session:
            return passkeys.begin_sign_in(session, site)

    def by_passkey(self, site: Site, code: str, response: str, browser: Browser) -> Credential:
        """Sign in by a passkey, which is both factors.

        Raises:
            Unauthenticated: It is not known, or did not sign the challenge.
            TooManyAttempts: From this address.
        """
        with self._counted(browser), self._database.write() as session:
            user = passkeys.user_of(session, site, code, response)
            return self._begin(session, user, browser)

    def _after_first_factor(
        self, session: WriteSession, user: User, browser: Browser
    ) -> Credential | SecondFactorNeeded:
        if second_factor.is_on(session, user.id):
            return SecondFactorNeeded(one_time.issue(session, Purpose.SECOND_FACTOR, user.id).text)
        return self._begin(session, user, browser)

    def _begin(self, session: WriteSession, user: User, browser: Browser) -> Credential:
        workspaces = people.workspaces_of(session, user.id)
        if not workspaces:
            raise Unauthenticated(_("You are a member of no workspace: ask for an invitation."))
        return sessions.begin(session, user, workspaces[0], browser.device)

    def _audit_failure(self, user_id: str) -> None:
        """One line in each workspace of the user; of nobody, none: names of strangers would fill the log."""
        with self._database.write() as session:
            for workspace in people.workspaces_of(session, user_id):
                audit.record(session, Line(workspace, user_id, "session.begin", "unauthenticated"))

    @contextmanager
    def _counted(self, browser: Browser, account: str = "") -> Generator[None]:
        """Count an attempt before it is made, so that many at once are no way around; forget it if it succeeds."""
        limits = [(PER_ADDRESS, browser.address), *([(PER_ACCOUNT, account)] if account else [])]
        for limit, name in limits:
            self._hit(limit, name)
        yield
        for limit, name in limits:
            self._attempts.clear(limit, name)

    def _hit(self, limit: RateLimitItem, name: str) -> None:
        if not self._attempts.hit(limit, name):
            seconds = self._attempts.get_window_stats(limit, name).reset_time - time.time()
            minutes = int(seconds / 60) + 1
            raise TooManyAttempts(_("Too many attempts to sign in: try again in {minutes} min.", minutes=minutes))


def first_link(session: WriteSession) -> Credential | None:
    """A sign-in link for the machine's own user; None if that user has another way to sign in."""
    user = session.get(User, OWNER.user)
    if user is None or user.password_hash is not None or passkeys.of_user(session, user.id):
        return None
    return new_link(session, OWNER.user)


def new_link(session: WriteSession, user_id: str) -> Credential:
    """A sign-in link for a user, for whoever rules the machine to hand over."""
    return one_time.issue(session, Purpose.SIGN_IN_LINK, user_id)


_WRONG: Final = _("The address or the password is wrong.")
