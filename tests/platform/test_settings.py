"""The location of the home, and the settings in `config.toml` and the environment."""

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmasos.errors import Invalid, LlmasosError
from llmasos.gateway.registry import ModelRegistry
from llmasos.home import KEYS, configured, default_home, plugins_are_on, state_home_and_database_url
from llmasos.i18n import render
from llmasos.settings import Settings


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"LLMASOS_{name.upper()}", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("LLMASOS_HOME", str(tmp_path / "x"))
    (tmp_path / "x").mkdir()
    return tmp_path / "x"


def write(home: Path, text: str) -> None:
    (home / "config.toml").write_text(text, encoding="utf-8")


def test_the_keys_known_without_pydantic_are_the_settings_and_the_models() -> None:
    assert set(KEYS) == {*Settings.model_fields, "models"}


def test_a_tilde_in_the_home_is_the_users_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """11-25: `LLMASOS_HOME='~/x'` made a folder `~` where the command ran."""
    monkeypatch.setenv("LLMASOS_HOME", "~/x")
    monkeypatch.chdir(home)
    assert default_home() == Settings().home == home
    assert state_home_and_database_url() == (home, f"sqlite:///{home / 'llmasos.db'}")
    assert list(home.iterdir()) == []


def test_a_tilde_in_the_configured_home_and_database_is_expanded(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """11-25: the same in `config.toml`, and in the path of a database."""
    monkeypatch.delenv("LLMASOS_HOME")
    monkeypatch.setenv("XDG_DATA_HOME", str(home))
    (home / "llmasos").mkdir()
    write(home / "llmasos", 'home = "~/y"\ndatabase_url = "sqlite:///~/z/a.db"\n')
    there = (home.parent / "y", f"sqlite:///{home.parent / 'z' / 'a.db'}")
    assert state_home_and_database_url() == there
    assert (Settings().home, Settings().resolved_database_url) == there


def test_a_tilde_of_an_unknown_user_is_refused_with_the_cure(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMASOS_HOME", "~nobody-at-all/x")
    with pytest.raises(Invalid, match="~nobody-at-all stands for is not known; write it out"):
        default_home()


READERS = [Settings, state_home_and_database_url, plugins_are_on]


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("runers = 3", "there is no setting 'runers'; did you mean 'runners'?"),
        ("Runners = 3", "there is no setting 'Runners'; did you mean 'runners'?"),
        ("[model]\nname = 'x'", "there is no setting 'model'; did you mean 'models'?"),
        ("zzz = 1", "there is no setting 'zzz'; there are bubblewrap, call_depth, "),
        ("runners = ", "is not valid TOML: "),
        ("runners = 1\nrunners = 2", "is not valid TOML: "),
    ],
)
def test_a_setting_that_does_not_exist_is_refused_by_every_reader(home: Path, read, text: str, said: str) -> None:
    """11-26: `config.toml` with an unknown key was ignored silently."""
    write(home, text)
    with pytest.raises(Invalid) as caught:
        read()
    assert f"{home / 'config.toml'}" in caught.value.message
    assert said in caught.value.message


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('runners = "many"', "runners: must be a whole number, not 'many'"),
        ("runners = 0", "runners: must be at least 1, not 0"),
        ("runners = 1.5", "runners: must be a whole number, not 1.5"),
        ("runners = [1]", "runners: must be a whole number, not [1]"),
        ("url = 3", "url: must be a string, not 3"),
        ("native_idle_seconds = nan", "native_idle_seconds: must be a finite number, not nan"),
        ("native_idle_seconds = -1", "native_idle_seconds: must be at least 0, not -1"),
        ("plugins = true", "plugins: must be one of 'on' or 'off', not True"),
        ('bubblewrap = "yes"', "bubblewrap: must be one of 'off' or 'on', not 'yes'"),
        ('trusted_apps = "acme/x"', "trusted_apps: must be an array, not 'acme/x'"),
        ('http_networks = ["10.1.0.0/99"]', "http_networks.0"),
        (
            "http_networks = [false]",
            'http_networks: must be an array of networks, such as ["10.1.0.0/16"], not [False]',
        ),
        ("token = 12345", "token: must be a string"),
    ],
)
def test_a_value_of_the_wrong_type_is_one_line_with_the_place_and_what_is_wanted(
    home: Path, text: str, said: str
) -> None:
    """11-26: a wrong type printed a raw library dump."""
    write(home, text)
    with pytest.raises(Invalid) as caught:
        Settings()
    assert caught.value.message.startswith(f"{home / 'config.toml'}, {said}")
    assert "\n" not in caught.value.message
    assert "pydantic" not in caught.value.message
    assert "12345" not in caught.value.message


def test_several_wrong_values_are_told_at_once_and_in_chinese(home: Path) -> None:
    write(home, "runners = 0\ncall_depth = 'x'\n")
    with pytest.raises(Invalid) as caught:
        Settings()
    place = home / "config.toml"
    assert render(caught.value.message, "zh") == (
        f"{place}, runners：不得小于 1，而不是 0；{place}, call_depth：须为整数，而不是 'x'"
    )


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("RUNNERS", "x", "LLMASOS_RUNNERS: must be a whole number, not 'x'"),
        ("PLUGINS", "maybe", "LLMASOS_PLUGINS: must be one of 'on' or 'off', not 'maybe'"),
        ("TRUSTED_APPS", "acme/probe", 'LLMASOS_TRUSTED_APPS: write a list as JSON, such as ["acme/probe"]'),
        ("HTTP_NETWORKS", "[1", 'LLMASOS_HTTP_NETWORKS: write a list as JSON, such as ["acme/probe"]'),
    ],
)
def test_a_variable_with_a_wrong_value_is_named(
    home: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str
) -> None:
    monkeypatch.setenv(f"LLMASOS_{name}", value)
    with pytest.raises(Invalid) as caught:
        Settings()
    assert caught.value.message == said


def test_what_is_valid_is_read_with_a_byte_order_mark_too(home: Path) -> None:
    write(home, "\ufeffrunners = 3\ntrusted_apps = ['a/b']\n[[models]]\nname = 'm'\nlitellm = 'openai/x'\n")
    assert (Settings().runners, Settings().trusted_apps) == (3, ("a/b",))
    assert ModelRegistry(home).get("m").litellm == "openai/x"


toml_values = st.one_of(
    st.booleans(), st.integers(-(2**40), 2**40), st.floats(), st.text(st.characters(codec="utf-8"), max_size=9)
)


@given(st.dictionaries(st.sampled_from(KEYS), toml_values | st.lists(toml_values, max_size=2), max_size=4))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
def test_any_configuration_is_taken_or_refused_in_words(home: Path, values: dict[str, object]) -> None:
    """11-26: whatever stands there, no library speaks to the operator."""
    lines = [f"{name} = {json.dumps(value)}" for name, value in values.items()]
    write(home, "\n".join(lines).replace("NaN", "nan").replace("Infinity", "inf").replace("\x7f", ""))
    for read in (Settings, state_home_and_database_url, lambda: configured(home), lambda: ModelRegistry(home).models):
        try:
            read()
        except LlmasosError as error:
            assert "pydantic" not in error.message
