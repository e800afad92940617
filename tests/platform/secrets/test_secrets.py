"""Secrets: set, listed, used by the host, and never stored in plain text."""

import pytest
from capability_calls import answered

from llmasos.bundles.manifest import LocalisedText, SecretPlace, SecretsPermission
from llmasos.capabilities.secrets import SecretsCapability, UserSecrets
from llmasos.errors import Invalid, NotFound, Unavailable
from llmasos.kernel.invocation import InstalledApp, Invocation, Principal
from llmasos.secrets import SecretOwner, Secrets

OWNER = SecretOwner("default", "local")


def test_a_secret_is_encrypted_at_rest_and_comes_back_to_the_host(database, tmp_path):
    """SECURITY S1."""
    secrets = Secrets(tmp_path)
    with database.write() as session:
        secrets.set(session, OWNER, "token", "v3ry-s3cret")
    with database.read() as session:
        assert Secrets(tmp_path).value(session, OWNER, "token") == "v3ry-s3cret"
        assert secrets.value(session, SecretOwner("default", "somebody"), "token") is None
        assert secrets.names(session, OWNER) == ["token"]
    assert all(b"v3ry-s3cret" not in path.read_bytes() for path in tmp_path.iterdir())
    assert (tmp_path / "secret.key").stat().st_mode & 0o077 == 0


def test_removing_a_secret_forgets_it_and_an_unknown_one_is_named(database, tmp_path):
    secrets = Secrets(tmp_path)
    with database.write() as session:
        secrets.set(session, OWNER, "token", "value")
        secrets.remove(session, OWNER, "token")
        with pytest.raises(NotFound, match="llmasos secrets list"):
            secrets.remove(session, OWNER, "token")


@pytest.mark.parametrize(
    ("name", "value"), [("Token", "x"), ("", "x"), ("a b", "x"), ("a", ""), ("a", "x\ny"), ("a", "x" * 9000)]
)
def test_a_name_or_value_that_cannot_be_is_refused(database, tmp_path, name, value):
    with database.write() as session, pytest.raises(Invalid):
        Secrets(tmp_path).set(session, OWNER, name, value)


@pytest.mark.parametrize("value", ['"sk-1"', "“sk-1”", "‘sk-1’", "'sk-1'", "„sk-1“"])
def test_a_secret_that_was_pasted_in_quotes_is_refused(database, tmp_path, value):
    """11-12: the quotes went into the header: "'ascii' codec can't encode…"."""
    with database.write() as session, pytest.raises(Invalid, match="paste it without"):
        Secrets(tmp_path).set(session, OWNER, "openai", value)


@pytest.mark.parametrize("value", ["sk-1\u200b", "\ufeffsk-1", "sk\u00ad-1", "sk-\u202e1"])
def test_a_secret_with_characters_that_cannot_be_seen_is_refused(database, tmp_path, value):
    """11-12, its kind: "a secret is one line" was no help."""
    with database.write() as session, pytest.raises(Invalid, match=r"contains U\+.*paste it again"):
        Secrets(tmp_path).set(session, OWNER, "openai", value)


def test_blanks_around_a_secret_are_left_away(database, tmp_path):
    """11-12, its kind: they went into the header."""
    secrets = Secrets(tmp_path)
    with database.write() as session:
        secrets.set(session, OWNER, "openai", "  sk-1 ")
        assert secrets.value(session, OWNER, "openai") == "sk-1"


def test_the_error_of_a_lost_key_says_to_set_the_secret_again(database, tmp_path):
    with database.write() as session:
        Secrets(tmp_path).set(session, OWNER, "token", "value")
    (tmp_path / "secret.key").unlink()
    with database.read() as session, pytest.raises(Unavailable, match="set it again"):
        Secrets(tmp_path).value(session, OWNER, "token")


def caller(app_id="acme/app"):
    place = SecretPlace(name="token", host="https://api.example.com", header="authorization")
    grant = SecretsPermission(capability="secrets", secrets=(place,), reason=LocalisedText(en="To test."))
    app = InstalledApp(app_id, "1.0", "i", {"secrets": grant}, frozenset({"secrets"}))
    return Invocation(Principal(), app, "act")


async def test_an_app_sees_the_names_of_the_secrets_it_was_granted_alone(database, tmp_path):
    secrets = Secrets(tmp_path)
    with database.write() as session:
        for name in ("token", "other"):
            secrets.set(session, SecretOwner("default", "local", "acme/app"), name, "value")
    capability = SecretsCapability(UserSecrets(database, secrets))
    assert await answered(capability, caller(), "names", []) == ["token"]


def test_no_app_can_name_a_key_of_the_operator_or_a_secret_of_another_app(database, tmp_path):
    """11-S7: an app named the operator's model key as its own secret and had it sent to its author's server.
    SECURITY S2."""
    secrets = Secrets(tmp_path)
    with database.write() as session:
        secrets.set(session, OWNER, "token", "the operator's")
        secrets.set(session, SecretOwner("default", "local", "acme/other"), "token", "another app's")
    source = UserSecrets(database, secrets)
    assert source.value(caller(), "token") is None
    assert source.names(caller()) == []
    assert source.value(caller("acme/other"), "token") == "another app's"


def test_a_user_shares_a_secret_by_naming_both_apps(database, tmp_path):
    secrets = Secrets(tmp_path)
    with database.write() as session:
        for app in ("acme/app", "acme/other"):
            secrets.set(session, SecretOwner("default", "local", app), "token", "shared")
    source = UserSecrets(database, secrets)
    assert {source.value(caller(app), "token") for app in ("acme/app", "acme/other")} == {"shared"}
    with database.read() as session:
        assert secrets.listed(session, "default", "local") == [("acme/app", "token"), ("acme/other", "token")]
