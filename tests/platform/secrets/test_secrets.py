"""Secrets: set, listed, used by the host, and never stored in clear."""

import pytest
from capability_calls import answered
from sqlmodel import SQLModel

import llmasos.tables  # noqa: F401
from llmasos.bundles.manifest import SecretPlace, SecretsPermission, Text
from llmasos.capabilities.secrets import SecretsCapability, UserSecrets
from llmasos.database.engine import Database
from llmasos.errors import Invalid, NotFound, Unavailable
from llmasos.kernel.invocation import InstalledApp, Invocation, Principal
from llmasos.secrets import Secrets


@pytest.fixture
def database(tmp_path):
    database = Database(f"sqlite:///{tmp_path / 'secrets.db'}")
    SQLModel.metadata.create_all(database.engine)
    yield database
    database.close()


def test_a_secret_is_encrypted_at_rest_and_comes_back_to_the_host(database, tmp_path):
    secrets = Secrets(tmp_path)
    with database.write() as session:
        secrets.set(session, "default", "local", "token", "v3ry-s3cret")
    with database.read() as session:
        assert Secrets(tmp_path).value(session, "default", "local", "token") == "v3ry-s3cret"
        assert secrets.value(session, "default", "somebody", "token") is None
        assert secrets.names(session, "default", "local") == ["token"]
    assert all(b"v3ry-s3cret" not in path.read_bytes() for path in tmp_path.iterdir())
    assert (tmp_path / "secret.key").stat().st_mode & 0o077 == 0


def test_removing_a_secret_forgets_it_and_an_unknown_one_is_named(database, tmp_path):
    secrets = Secrets(tmp_path)
    with database.write() as session:
        secrets.set(session, "default", "local", "token", "value")
        secrets.remove(session, "default", "local", "token")
        with pytest.raises(NotFound, match="llmasos secrets list"):
            secrets.remove(session, "default", "local", "token")


@pytest.mark.parametrize(
    ("name", "value"), [("Token", "x"), ("", "x"), ("a b", "x"), ("a", ""), ("a", "x\ny"), ("a", "x" * 9000)]
)
def test_a_name_or_value_that_cannot_be_is_refused(database, tmp_path, name, value):
    with database.write() as session, pytest.raises(Invalid):
        Secrets(tmp_path).set(session, "default", "local", name, value)


def test_a_lost_key_says_to_set_the_secret_again(database, tmp_path):
    with database.write() as session:
        Secrets(tmp_path).set(session, "default", "local", "token", "value")
    (tmp_path / "secret.key").unlink()
    with database.read() as session, pytest.raises(Unavailable, match="set it again"):
        Secrets(tmp_path).value(session, "default", "local", "token")


async def test_an_app_sees_the_names_of_the_secrets_it_was_granted_alone(database, tmp_path):
    secrets = Secrets(tmp_path)
    with database.write() as session:
        secrets.set(session, "default", "local", "token", "value")
        secrets.set(session, "default", "local", "other", "value")
    place = SecretPlace(name="token", host="https://api.example.com", header="authorization")
    grant = SecretsPermission(capability="secrets", secrets=(place,), reason=Text(en="To test."))
    app = InstalledApp("acme/app", "1.0", "i", {"secrets": grant}, frozenset({"secrets"}))
    capability = SecretsCapability(UserSecrets(database, secrets))
    assert await answered(capability, Invocation(Principal(), app, "act"), "names", []) == ["token"]
