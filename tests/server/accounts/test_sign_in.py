"""Signing in: links, passwords, second factors, and what ends a session."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pyotp
import pytest
from sqlmodel import select

from llmasos.database.engine import Database
from llmasos.errors import Conflict, Denied, Invalid, NotFound, Unauthenticated
from llmasos.kernel.invocation import Principal
from llmasos.kernel.tables import AuditEntry
from llmasos.secrets.service import Secrets
from llmasos_server.accounts import one_time, passwords, people, second_factor, sessions, sign_in
from llmasos_server.accounts.people import Role
from llmasos_server.accounts.second_factor import SecondFactors
from llmasos_server.accounts.sessions import Sessions
from llmasos_server.accounts.sign_in import Browser, SecondFactorNeeded, SignIn, TooManyAttempts
from llmasos_server.accounts.tables import Authenticator, OneTimeCode, User, WebSession

FIREFOX = Browser("127.0.0.1", "Firefox")
PASSWORD = "correct horse battery"
Join = Callable[..., Principal]


@pytest.fixture
def factors(tmp_path: Path) -> SecondFactors:
    return SecondFactors(Secrets(tmp_path))


@pytest.fixture
def signs(database: Database, factors: SecondFactors) -> SignIn:
    return SignIn(database, factors)


def recognised(
    database: Database, cookie: str, clock: Callable[[], datetime] | None = None
) -> sessions.SignedIn | None:
    known = Sessions(database, lambda work: work(), *([clock] if clock else []))
    return known.recognise(cookie)


def password_in(signs: SignIn, email: str = "ann@example.com", password: str = PASSWORD) -> str:
    cookie = signs.by_password(email, password, FIREFOX)
    assert not isinstance(cookie, SecondFactorNeeded)
    return cookie.text


def link_of(database: Database) -> str:
    with database.write() as session:
        link = sign_in.first_link(session)
        assert link is not None
        return link.text


def test_the_first_link_signs_the_owner_in_once(database: Database, signs: SignIn) -> None:
    """12-2."""
    link = link_of(database)
    signed_in = recognised(database, signs.by_link(link, FIREFOX).text)
    assert signed_in is not None
    assert (signed_in.principal, signed_in.role) == (Principal(), Role.OWNER)
    with pytest.raises(Unauthenticated):
        signs.by_link(link, FIREFOX)


def test_a_link_expires(database: Database, signs: SignIn) -> None:
    link = link_of(database)
    with database.write() as session:
        row = session.get(OneTimeCode, link.partition("_")[0])
        assert row is not None
        row.expires_at = datetime.now(UTC)
    with pytest.raises(Unauthenticated):
        signs.by_link(link, FIREFOX)


def test_no_link_is_made_for_an_owner_with_a_password(database: Database) -> None:
    with database.write() as session:
        owner = session.get(User, "local")
        assert owner is not None
        owner.password_hash = passwords.hash_of(PASSWORD)
        assert sign_in.first_link(session) is None


def test_a_wrong_password_and_a_wrong_name_are_told_alike(database: Database, signs: SignIn, join: Join) -> None:
    """12-2: the same answer, and argon2 runs for both."""
    join("ann", password=PASSWORD)
    join("bob")
    answers = set()
    for email, password in (
        ("ann@example.com", "wrong"),
        ("nobody@example.com", PASSWORD),
        ("bob@example.com", ""),
        ("bob@example.com", PASSWORD),
        ("not an address", PASSWORD),
        ("ann@example.com", "x" * 100_000),
        ("ann@example.com", "\ud800"),
    ):
        with pytest.raises(Unauthenticated) as refused:
            signs.by_password(email, password, Browser(email + password[:5], ""))
        answers.add(str(refused.value))
    assert len(answers) == 1
    assert recognised(database, password_in(signs)) is not None


def test_attempts_are_bounded_for_an_account_and_for_an_address(signs: SignIn, join: Join) -> None:
    """12-2."""
    join("ann", password=PASSWORD)

    def attempt(email: str, address: str, times: int) -> None:
        for _number in range(times):
            with pytest.raises(Unauthenticated):
                signs.by_link("", Browser(address, ""))
            with pytest.raises(Unauthenticated):
                signs.by_second_factor("", email, Browser(address, ""))

    for number in range(sign_in.PER_ACCOUNT.amount):
        with pytest.raises(Unauthenticated):
            signs.by_password("ann@example.com", "wrong", Browser(f"192.0.2.{number}", ""))
    with pytest.raises(TooManyAttempts):
        signs.by_password("Ann@example.com ", PASSWORD, Browser("192.0.2.99", ""))
    attempt("x", "198.51.100.1", sign_in.PER_ADDRESS.amount)
    with pytest.raises(TooManyAttempts):
        signs.by_link("", Browser("198.51.100.1", ""))


def test_a_success_forgets_the_failures_before(signs: SignIn, join: Join) -> None:
    join("ann", password=PASSWORD)
    for _round in range(3):
        for _number in range(sign_in.PER_ACCOUNT.amount - 1):
            with pytest.raises(Unauthenticated):
                signs.by_password("ann@example.com", "wrong", FIREFOX)
        password_in(signs)


@pytest.mark.parametrize(
    "password", ["short", "aaaaaaaaaaaaaa", "x1" * 600, "Ann Example", "ANN@example.com", "ababababab"]
)
def test_a_poor_password_is_refused(password: str) -> None:
    with pytest.raises(Invalid):
        passwords.hash_of(password, "Ann Example", "ann@example.com")


def test_a_password_is_the_same_from_every_keyboard(database: Database, signs: SignIn, join: Join) -> None:
    join("ann", password="caf\u00e9 au lait")
    assert password_in(signs, password="cafe\u0301 au lait")


def on_phone(database: Database, factors: SecondFactors, user_id: str) -> tuple[pyotp.TOTP, list[str]]:
    with database.write() as session:
        user = people.user_named(session, user_id)
        assert user is not None
        address = urlsplit(factors.begin(session, user))
        totp = pyotp.TOTP(parse_qs(address.query)["secret"][0])
        with pytest.raises(Denied):
            factors.confirm(session, user_id, "000000" if totp.now() != "000000" else "000001")
        codes = factors.confirm(session, user_id, totp.at(datetime.now(UTC) - timedelta(seconds=30)))
        with pytest.raises(Conflict):
            factors.begin(session, user)
        return totp, codes


def test_a_second_factor_is_asked_for_and_each_code_is_good_once(
    database: Database, signs: SignIn, factors: SecondFactors, join: Join
) -> None:
    """12-2."""
    ann = join("ann", password=PASSWORD)
    totp, recovery = on_phone(database, factors, ann.user)
    waiting = signs.by_password("ann@example.com", PASSWORD, FIREFOX)
    assert isinstance(waiting, SecondFactorNeeded)
    assert recognised(database, waiting.code) is None
    code = totp.now()
    assert recognised(database, signs.by_second_factor(waiting.code, code, FIREFOX).text) is not None
    with pytest.raises(Unauthenticated):
        signs.by_second_factor(waiting.code, totp.now(), FIREFOX)
    again = signs.by_password("ann@example.com", PASSWORD, FIREFOX)
    assert isinstance(again, SecondFactorNeeded)
    for used in (code, "", "abcdef", "１２３４５６", recovery[0][:-1]):
        with pytest.raises(Unauthenticated):
            signs.by_second_factor(again.code, used, FIREFOX)
    signs.by_second_factor(again.code, recovery[0].upper(), FIREFOX)
    third = signs.by_password("ann@example.com", PASSWORD, FIREFOX)
    assert isinstance(third, SecondFactorNeeded)
    with pytest.raises(Unauthenticated):
        signs.by_second_factor(third.code, recovery[0], FIREFOX)
    with database.read() as session:
        assert second_factor.recovery_codes_left(session, ann.user) == len(recovery) - 1
        row = session.get(Authenticator, ann.user)
        assert row is not None
        assert totp.secret not in row.ciphertext


def test_a_waiting_second_factor_is_no_link_and_no_session(database: Database, signs: SignIn, join: Join) -> None:
    """12-2: each code is good for its purpose alone."""
    join("ann", password=PASSWORD)
    with database.write() as session:
        waiting = one_time.issue(session, one_time.Purpose.SECOND_FACTOR, "local").text
    with pytest.raises(Unauthenticated):
        signs.by_link(waiting, FIREFOX)
    assert recognised(database, waiting) is None


def test_a_session_ends_with_sign_out_membership_age_and_idleness(
    database: Database, signs: SignIn, join: Join
) -> None:
    """12-2."""
    ann = join("ann", password=PASSWORD)
    out, removed, stays = (password_in(signs) for _number in range(3))
    with database.write() as session:
        sessions.end(session, ann, out.partition("_")[0])
        sessions.end(session, ann, out.partition("_")[0])
    assert recognised(database, out) is None
    assert recognised(database, stays) is not None
    assert recognised(database, removed, lambda: datetime.now(UTC) + sessions.IDLE) is None
    with database.write() as session:
        row = session.get(WebSession, stays.partition("_")[0])
        assert row is not None
        row.seen_at = datetime.now(UTC) + sessions.LIFE
    assert recognised(database, stays, lambda: datetime.now(UTC) + sessions.LIFE) is None
    with database.write() as session:
        people.remove_member(session, Principal(), ann.user)
    assert recognised(database, removed) is None


def test_a_change_of_role_is_in_force_at_the_next_request(database: Database, signs: SignIn, join: Join) -> None:
    """12-2."""
    ann = join("ann", Role.ADMIN, password=PASSWORD)
    cookie = password_in(signs)
    with database.write() as session:
        people.set_role(session, Principal(), ann.user, Role.VIEWER)
    signed_in = recognised(database, cookie)
    assert signed_in is not None
    assert signed_in.role is Role.VIEWER


def test_a_changed_password_ends_the_other_sessions(database: Database, signs: SignIn, join: Join) -> None:
    ann = join("ann", password=PASSWORD)
    here, there = password_in(signs), password_in(signs)
    with database.write() as session:
        sessions.end_others(session, ann.user, here.partition("_")[0])
    assert recognised(database, there) is None
    assert recognised(database, here) is not None


def test_a_session_of_another_is_not_there(database: Database, signs: SignIn, join: Join) -> None:
    join("ann", password=PASSWORD)
    cookie = password_in(signs)
    with database.write() as session, pytest.raises(NotFound):
        sessions.end(session, Principal(), cookie.partition("_")[0])


def test_a_session_acts_in_the_workspaces_of_its_user_alone(database: Database, signs: SignIn, join: Join) -> None:
    join("ann", password=PASSWORD)
    join("bob", workspace="third")
    cookie = password_in(signs)
    signed_in = recognised(database, cookie)
    assert signed_in is not None
    with database.write() as session, pytest.raises(NotFound):
        sessions.change_workspace(session, signed_in, "third")
    with database.write() as session:
        people.add_member(session, "second", signed_in.user.id, Role.OWNER)
        sessions.change_workspace(session, signed_in, "second")
    moved = recognised(database, cookie)
    assert moved is not None
    assert (moved.principal.workspace, moved.role) == ("second", Role.OWNER)


def test_every_sign_in_is_a_new_session_and_no_secret_is_stored(database: Database, signs: SignIn, join: Join) -> None:
    """12-2: session fixation."""
    join("ann", password=PASSWORD)
    cookies = {password_in(signs) for _number in range(3)}
    assert len(cookies) == 3
    with database.read() as session:
        stored = str([row.model_dump() for row in session.exec(select(WebSession))])
        audited = str([row.model_dump() for row in session.exec(select(AuditEntry))])
    for cookie in cookies:
        assert cookie.partition("_")[2] not in stored + audited


@pytest.mark.parametrize("cookie", ["", "x", f"{'0' * 16}_{'A' * 43}", "\x00", "é" * 60])
def test_a_made_up_cookie_is_nobody(database: Database, cookie: str) -> None:
    assert recognised(database, cookie) is None
