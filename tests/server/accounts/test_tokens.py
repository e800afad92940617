"""Tokens: shown once, stored as hashes, accepted only while valid."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from sqlmodel import col, select

from llmasos import tables  # noqa: F401
from llmasos.database.engine import Database
from llmasos.errors import Invalid, NotFound
from llmasos.kernel.invocation import Principal
from llmasos.kernel.tables import AuditEntry
from llmasos_server.accounts import people
from llmasos_server.accounts.people import Role
from llmasos_server.accounts.tables import ApiToken, Member, User
from llmasos_server.accounts.tokens import NewToken, TokenAuthenticator, create_token, revoke_token
from llmasos_server.rest.identity import TokenScope

ANN = Principal(workspace="default", user="ann")


def at_once(work: Callable[[], None]) -> None:
    work()


def make(database: Database, role: Role = Role.ADMIN, **options: object) -> NewToken:
    with database.write() as session:
        if session.get(User, ANN.user) is None:
            session.add(User(id=ANN.user, name="Ann", created_at=datetime.now(UTC)))
            session.flush()
        people.add_member(session, ANN.workspace, ANN.user, role)
        return create_token(session, ANN, **options)  # type: ignore[arg-type]


def row(database: Database, token: NewToken) -> ApiToken:
    with database.read() as session:
        found = session.get(ApiToken, token.id)
        assert found is not None
        return found


def test_a_token_stands_for_who_made_it(database: Database) -> None:
    token = make(database, scopes=[TokenScope.RUN])
    caller = TokenAuthenticator(database, at_once).authenticate(token.token)
    assert caller is not None
    assert caller.principal == ANN
    assert caller.may(TokenScope.RUN)
    assert not caller.may(TokenScope.READ)
    assert caller.reaches("acme/anything")


def test_only_the_hash_is_kept(database: Database) -> None:
    """SECURITY P5."""
    token = make(database)
    secret = token.token.rsplit("_", 1)[1] if token.token.count("_") == 2 else token.token[25:]
    assert secret not in str(row(database, token).model_dump())
    assert token.token.startswith("llmasos_")


def test_admin_allows_everything(database: Database) -> None:
    caller = TokenAuthenticator(database, at_once).authenticate(make(database, scopes=[TokenScope.ADMIN]).token)
    assert caller is not None
    assert all(caller.may(scope) for scope in TokenScope)


def test_a_bounded_token_reaches_its_apps_and_no_others(database: Database) -> None:
    caller = TokenAuthenticator(database, at_once).authenticate(make(database, apps=["acme/one"]).token)
    assert caller is not None
    assert caller.reaches("acme/one")
    assert not caller.reaches("acme/two")
    assert not caller.reaches(None)


@pytest.mark.parametrize(
    "forged",
    ["", "llmasos_", "x" * 5000, "llmasos_0123456789abcdef_" + "A" * 43, "llmasos_0123456789ABCDEF_" + "A" * 43, "ä"],
)
def test_what_is_no_token_stands_for_nobody(database: Database, forged: str) -> None:
    assert TokenAuthenticator(database, at_once).authenticate(forged) is None


def test_a_token_with_one_letter_changed_stands_for_nobody(database: Database) -> None:
    token = make(database).token
    changed = token[:-1] + ("A" if token[-1] != "A" else "B")
    assert TokenAuthenticator(database, at_once).authenticate(changed) is None


def test_an_expired_token_stands_for_nobody(database: Database) -> None:
    token = make(database, life=timedelta(days=1))
    with database.write() as session:
        found = session.get(ApiToken, token.id)
        assert found is not None
        found.expires_at = datetime.now(UTC) - timedelta(seconds=1)
    assert TokenAuthenticator(database, at_once).authenticate(token.token) is None


def test_a_revoked_token_stands_for_nobody(database: Database) -> None:
    """SECURITY P5."""
    token = make(database)
    with database.write() as session:
        revoke_token(session, ANN, token.id)
    assert TokenAuthenticator(database, at_once).authenticate(token.token) is None


def test_a_token_of_another_workspace_cannot_be_revoked(database: Database) -> None:
    token = make(database)
    with pytest.raises(NotFound), database.write() as session:
        revoke_token(session, Principal("other", "ann"), token.id)
    assert TokenAuthenticator(database, at_once).authenticate(token.token) is not None


def test_use_is_noted_at_most_once_a_minute(database: Database) -> None:
    notes: list[Callable[[], None]] = []
    token = make(database)
    authenticator = TokenAuthenticator(database, lambda work: (notes.append(work), work()))
    authenticator.authenticate(token.token)
    authenticator.authenticate(token.token)
    assert len(notes) == 1
    assert row(database, token).last_used_at is not None


@pytest.mark.parametrize(
    "options",
    [
        {"scopes": []},
        {"apps": ["not an app"]},
        {"scopes": [TokenScope.ADMIN], "apps": ["acme/one"]},
        {"life": timedelta(0)},
    ],
)
def test_a_token_that_makes_no_sense_is_refused(database: Database, options: dict[str, object]) -> None:
    with pytest.raises(Invalid):
        make(database, **options)


@pytest.mark.parametrize(
    ("role", "scopes"),
    [
        (Role.OWNER, set(TokenScope)),
        (Role.ADMIN, set(TokenScope)),
        (Role.MEMBER, {TokenScope.RUN, TokenScope.READ, TokenScope.INSTALL}),
        (Role.VIEWER, {TokenScope.READ}),
    ],
)
def test_a_token_allows_no_more_than_the_role_of_its_user(
    database: Database, role: Role, scopes: set[TokenScope]
) -> None:
    """12-2: also if the role was changed after the token was made."""
    token = make(database, scopes=[TokenScope.ADMIN])
    with database.write() as session:
        member = session.get(Member, (ANN.workspace, ANN.user))
        assert member is not None
        member.role = role
    caller = TokenAuthenticator(database, at_once).authenticate(token.token)
    assert caller is not None
    assert {scope for scope in TokenScope if caller.may(scope)} == scopes


def test_the_token_of_a_user_who_left_is_dead(database: Database) -> None:
    """12-2."""
    token, authenticator = make(database), TokenAuthenticator(database, at_once)
    with database.write() as session:
        people.remove_member(session, ANN, ANN.user)
    assert authenticator.authenticate(token.token) is None
    assert not authenticator.is_good(token.id)


def test_who_made_and_revoked_a_token_is_in_the_audit_log_once(database: Database) -> None:
    """12-2: on every way in, without the token."""
    token = make(database)
    with database.write() as session:
        revoke_token(session, ANN, token.id)
        revoke_token(session, ANN, token.id)
    with database.read() as session:
        lines = session.exec(select(AuditEntry).order_by(col(AuditEntry.seq))).all()
        assert [(line.event, line.user_id, line.detail["token"]) for line in lines] == [
            ("token.create", "ann", token.id),
            ("token.revoke", "ann", token.id),
        ]
        assert token.token not in str([line.model_dump() for line in lines])
