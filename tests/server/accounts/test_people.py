"""Users, roles, invitations."""

from collections.abc import Callable

import pytest

from llmasos.database.engine import Database
from llmasos.errors import Conflict, Denied, Invalid, LlmasosError, NotFound, Unauthenticated
from llmasos.kernel.invocation import Principal
from llmasos_server.accounts import invitations, people
from llmasos_server.accounts.people import Role
from llmasos_server.accounts.tables import Invitation, User

LOCAL = Principal()
PASSWORD = "correct horse battery"
Join = Callable[..., Principal]


def invite(database: Database, by: Principal, role: Role = Role.MEMBER, email: str = "eve@example.com") -> str:
    with database.write() as session:
        return invitations.invite(session, by, email, role).text


def accept(database: Database, link: str, name: str = "Eve") -> User:
    with database.write() as session:
        user = invitations.accept(session, link, name, PASSWORD)
        session.expunge(user)
        return user


def test_the_user_of_the_machine_owns_the_default_workspace(database: Database) -> None:
    """12-2."""
    with database.read() as session:
        assert people.role_of(session, LOCAL.workspace, LOCAL.user) is Role.OWNER


def test_an_invitation_makes_a_member_once(database: Database) -> None:
    """12-2."""
    link = invite(database, LOCAL, Role.VIEWER)
    user = accept(database, link)
    with database.read() as session:
        assert people.role_of(session, "default", user.id) is Role.VIEWER
        assert [view.email for view in people.members(session, "default")] == ["eve@example.com", None]
        assert invitations.open_invitations(session, "default") == []
    with pytest.raises(Unauthenticated):
        accept(database, link)


def test_an_invitation_is_not_stored_in_clear(database: Database) -> None:
    link = invite(database, LOCAL)
    with database.read() as session:
        row = session.get(Invitation, link.partition("_")[0])
        assert row is not None
        assert link.partition("_")[2] not in str(row.model_dump())


def test_an_invitation_that_was_revoked_expired_or_made_up_is_refused_alike(database: Database, join: Join) -> None:
    """12-2: the same answer for each."""
    revoked, expired, of_the_deposed = invite(database, LOCAL), invite(database, LOCAL), ""
    admin = join("ann", Role.ADMIN)
    of_the_deposed = invite(database, admin)
    with database.write() as session:
        invitations.revoke(session, LOCAL, revoked.partition("_")[0])
        row = session.get(Invitation, expired.partition("_")[0])
        assert row is not None
        row.expires_at = row.created_at
        people.set_role(session, LOCAL, admin.user, Role.MEMBER)
    answers = set()
    for link in (revoked, expired, of_the_deposed, "", "x", f"{'0' * 16}_{'A' * 43}", revoked[:-1], f"{revoked}\n"):
        with pytest.raises(Unauthenticated) as refused:
            accept(database, link)
        answers.add(str(refused.value))
    assert len(answers) == 1


def test_somebody_with_an_account_joins_with_it(database: Database, join: Join) -> None:
    join("eve", workspace="other")
    link = invite(database, LOCAL)
    with pytest.raises(Conflict):
        accept(database, link)
    with database.write() as session:
        user = people.by_email(session, "eve@example.com")
        assert user is not None
        invitations.join(session, link, user)
        assert people.workspaces_of(session, user.id) == ["other", "default"]


def test_an_invitation_is_for_one_address(database: Database, join: Join) -> None:
    """12-2."""
    link = invite(database, LOCAL)
    mallory = join("mallory", workspace="other")
    with database.write() as session:
        user = people.user_named(session, mallory.user)
        assert user is not None
        with pytest.raises(Invalid):
            invitations.join(session, link, user)


@pytest.mark.parametrize("role", [Role.MEMBER, Role.VIEWER])
def test_only_administrators_invite(database: Database, join: Join, role: Role) -> None:
    by = join("ann", role)
    for wanted in Role:
        with pytest.raises(Denied):
            invite(database, by, wanted)


def test_an_administrator_appoints_no_owner_and_deposes_none(database: Database, join: Join) -> None:
    """12-2."""
    ann, bob = join("ann", Role.ADMIN), join("bob")
    with database.write() as session:
        people.set_role(session, ann, bob.user, Role.ADMIN)
        with pytest.raises(Denied):
            invitations.invite(session, ann, "eve@example.com", Role.OWNER)
        for user, role in ((bob.user, Role.OWNER), (LOCAL.user, Role.MEMBER), (ann.user, Role.OWNER)):
            with pytest.raises(Invalid):
                people.set_role(session, ann, user, role)
        with pytest.raises(Invalid):
            people.remove_member(session, ann, LOCAL.user)


def test_a_workspace_keeps_an_owner(database: Database, join: Join) -> None:
    ann = join("ann", Role.OWNER)
    with database.write() as session:
        people.remove_member(session, ann, LOCAL.user)
        for change in (
            lambda: people.set_role(session, ann, ann.user, Role.ADMIN),
            lambda: people.remove_member(session, ann, ann.user),
        ):
            with pytest.raises(Invalid):
                change()


def test_what_is_not_of_the_workspace_is_not_there(database: Database, join: Join) -> None:
    """12-2: "not yours" is told as "not there"."""
    other = join("eve", Role.OWNER, workspace="other")
    link = invite(database, other, email="zoe@example.com")
    with database.write() as session:
        with pytest.raises(NotFound):
            people.set_role(session, LOCAL, other.user, Role.VIEWER)
        with pytest.raises(NotFound):
            people.remove_member(session, LOCAL, other.user)
        with pytest.raises(NotFound):
            invitations.revoke(session, LOCAL, link.partition("_")[0])


@pytest.mark.parametrize(
    "email",
    [
        "",
        "ann",
        "@",
        "ann@",
        "a@b@c",
        "ann @example.com",
        "ann@exa\u202emple.com",
        "ann@example.com\n.x",
        f"{'a' * 300}@b.c",
        "Ann <ann@example.com>",
        "ann@example.com\x00",
        "a,b@example.com",
    ],
)
def test_what_is_no_address_is_refused(database: Database, email: str) -> None:
    with pytest.raises(Invalid):
        invite(database, LOCAL, email=email)


@pytest.mark.parametrize("same", ["Eve@Example.com", " eve@example.com ", "ｅｖｅ@example.com"])
def test_an_address_written_otherwise_is_the_same(database: Database, same: str) -> None:
    accept(database, invite(database, LOCAL))
    with pytest.raises(Conflict):
        invite(database, LOCAL, email=same)


@pytest.mark.parametrize("name", ["", "  ", "x" * 81, "a\u202eb", "a\x1b[2Jb", "a\u200bb"])
def test_a_name_that_could_deceive_is_refused_and_the_link_stays_good(database: Database, name: str) -> None:
    link = invite(database, LOCAL)
    with pytest.raises(LlmasosError):
        accept(database, link, name)
    assert accept(database, link).name == "Eve"
