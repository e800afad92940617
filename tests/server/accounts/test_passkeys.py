"""Passkeys, with a real key in software."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from soft_passkey import PRESENT, SoftPasskey

from llmasos.database.engine import Database
from llmasos.errors import Conflict, Invalid, LlmasosError, NotFound, Unauthenticated
from llmasos.kernel.invocation import Principal
from llmasos.secrets.service import Secrets
from llmasos_server.accounts import passkeys, people, sign_in
from llmasos_server.accounts.passkeys import Site
from llmasos_server.accounts.second_factor import SecondFactors
from llmasos_server.accounts.sessions import Sessions
from llmasos_server.accounts.sign_in import Browser, SignIn
from llmasos_server.accounts.tables import User

HOME = Site("http://localhost:8765")
FIREFOX = Browser("127.0.0.1", "Firefox")
Join = Callable[..., Principal]


@pytest.fixture
def signs(database: Database, tmp_path: Path) -> SignIn:
    return SignIn(database, SecondFactors(Secrets(tmp_path)))


def owner(database: Database) -> User:
    with database.read() as session:
        user = people.user_named(session, "local")
        assert user is not None
        session.expunge(user)
        return user


def add(database: Database, key: SoftPasskey, user: User | None = None) -> str:
    whose = user or owner(database)
    with database.write() as session:
        asked = passkeys.begin_adding(session, whose, HOME)
    with database.write() as session:
        return passkeys.add(session, whose, HOME, asked.code, key.register(asked.options), name="Phone").id


def enter(database: Database, signs: SignIn, key: SoftPasskey, name: str | None = None) -> str:
    with database.write() as session:
        asked = passkeys.begin_sign_in(session, HOME)
    return signs.by_passkey(HOME, asked.code, key.sign(asked.options, name), FIREFOX).text


def test_a_passkey_signs_in_again_and_again(database: Database, signs: SignIn) -> None:
    """12-2."""
    key = SoftPasskey(HOME.origin)
    add(database, key)
    for _number in range(2):
        signed_in = Sessions(database, lambda work: work()).recognise(enter(database, signs, key))
        assert signed_in is not None
        assert signed_in.principal == Principal()
    with database.write() as session:
        assert sign_in.first_link(session) is None


def test_a_response_is_good_once(database: Database, signs: SignIn) -> None:
    key = SoftPasskey(HOME.origin)
    add(database, key)
    with database.write() as session:
        asked = passkeys.begin_sign_in(session, HOME)
    response = key.sign(asked.options)
    signs.by_passkey(HOME, asked.code, response, FIREFOX)
    with pytest.raises(Unauthenticated):
        signs.by_passkey(HOME, asked.code, response, FIREFOX)


def test_what_is_wrong_with_a_passkey_is_told_alike(database: Database, signs: SignIn) -> None:
    """12-2: a stranger's key, another site, a stale counter, an owner who did not unlock it, a removed one, rubbish."""
    key = SoftPasskey(HOME.origin)
    key_id = add(database, key)
    enter(database, signs, key)
    answers = set()

    def refused(attempt: Callable[[], object]) -> None:
        with pytest.raises(Unauthenticated) as error:
            attempt()
        answers.add(str(error.value))

    refused(lambda: enter(database, signs, SoftPasskey(HOME.origin)))
    refused(lambda: enter(database, signs, SoftPasskey(HOME.origin, id=key.id)))
    refused(lambda: enter(database, signs, replace(key, origin="https://evil.example")))
    refused(lambda: enter(database, signs, key, "evil.example"))
    refused(lambda: enter(database, signs, replace(key, flags=PRESENT, count=50)))
    refused(lambda: enter(database, signs, replace(key, count=-1)))
    for rubbish in ("", "{}", "[]", "null", "{" * 5000, json.dumps({"id": "x", "rawId": "x", "response": {}})):
        with database.write() as session:
            asked = passkeys.begin_sign_in(session, HOME)
        refused(lambda code=asked.code, text=rubbish: signs.by_passkey(HOME, code, text, FIREFOX))
    with database.write() as session:
        passkeys.remove(session, "local", key_id)
    refused(lambda: enter(database, signs, key))
    assert len(answers) == 1


@pytest.mark.parametrize(
    "key",
    [SoftPasskey("https://evil.example"), SoftPasskey(HOME.origin, flags=PRESENT), SoftPasskey("http://localhost")],
    ids=["other site", "not unlocked", "other port"],
)
def test_a_passkey_of_elsewhere_is_not_added(database: Database, key: SoftPasskey) -> None:
    with pytest.raises(Invalid):
        add(database, key)


def test_a_passkey_is_added_once_and_by_who_began(database: Database, join: Join) -> None:
    key = SoftPasskey(HOME.origin)
    add(database, key)
    with pytest.raises(Conflict):
        add(database, key)
    with database.write() as session:
        asked = passkeys.begin_adding(session, owner(database), HOME)
    ann = join("ann")
    with database.write() as session, pytest.raises(LlmasosError):
        user = people.user_named(session, ann.user)
        assert user is not None
        passkeys.add(session, user, HOME, asked.code, SoftPasskey(HOME.origin).register(asked.options), name="Mine")


def test_a_passkey_of_another_is_not_there(database: Database, join: Join) -> None:
    key_id, ann = add(database, SoftPasskey(HOME.origin)), join("ann")
    with database.write() as session, pytest.raises(NotFound):
        passkeys.remove(session, ann.user, key_id)
