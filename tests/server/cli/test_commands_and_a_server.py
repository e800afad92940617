"""11-39: with LLMASOS_URL set, every command talks to that server, is refused, or says that it works here."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llmasos.bundles.reader import read_bundle
from llmasos.bundles.testing import make_bundle, manifest_text
from llmasos.database.engine import Database, utc_now
from llmasos.installs import repository
from llmasos.installs.tables import Installation
from llmasos.invocations.tables import InvocationRow
from llmasos.kernel.audit import Line, record
from llmasos.kernel.invocation import Principal
from llmasos.quotas import service
from llmasos.quotas.meters import Meter, Scope, Window
from llmasos.quotas.service import QuotaName
from llmasos.quotas.tables import UsageDay
from llmasos.secrets import SecretOwner, Secrets
from llmasos.settings import Settings
from llmasos_marketplace.catalog.testing import add_bundle, open_catalog
from llmasos_server.accounts import people
from llmasos_server.accounts.people import Role
from llmasos_server.accounts.tokens import create_token
from llmasos_server.cli import registry
from llmasos_server.cli.shell import check_place, load
from llmasos_server.rest.identity import TokenScope
from llmasos_server.server import Server, create_app, listen

NOBODY = "http://127.0.0.1:9"


def commands() -> dict[str, Any]:
    """Every command that can be called, by its words."""
    found: dict[str, Any] = {}

    def walk(words: str, command: Any) -> None:
        parts = getattr(command, "commands", {})
        for name, part in parts.items():
            walk(f"{words} {name}", part)
        if not parts or command.invoke_without_command:
            found[words] = command

    for entry in registry.ENTRIES:
        walk(entry.name, load(entry))
    return found


COMMANDS = commands()


def words_of(name: str, command: Any) -> list[str]:
    """The command with what it requires."""
    values = {"limit": "1", "capability": "http", "url": "http://127.0.0.1:9", "role": "viewer"}
    words = name.split()
    for parameter in command.params:
        if parameter.required:
            flag = [parameter.opts[0]] if parameter.opts[0].startswith("-") else []
            words += [*flag, values.get(parameter.name, "acme/tool")]
    return words


def test_every_command_has_a_place() -> None:
    assert set(registry.PLACES) == set(COMMANDS)


@pytest.mark.parametrize("name", [name for name, place in registry.PLACES.items() if place == "home"])
def test_a_command_that_would_change_this_home_instead_is_refused(name: str, llmasos, home: Path) -> None:
    """11-39: `quota set` and `install` changed the home of this machine without a word."""
    done = llmasos(*words_of(name, COMMANDS[name]), LLMASOS_URL=NOBODY)
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith(f"Error: `llmasos {name}` works on the home of this machine")
    assert done.stderr.count("\n") == 1
    assert not home.exists()


@pytest.mark.parametrize("name", [name for name, place in registry.PLACES.items() if place == "server"])
def test_a_command_for_a_server_reaches_for_it_and_not_for_the_home(name: str, llmasos, home: Path) -> None:
    done = llmasos(*words_of(name, COMMANDS[name]), stdin="value\n", LLMASOS_URL=NOBODY)
    assert done.exit_code == 1, done.output
    assert f"The server {NOBODY} does not respond" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not home.exists()


@pytest.mark.parametrize("name", [name for name, place in registry.PLACES.items() if place == "machine"])
def test_a_command_of_this_machine_says_so(name: str, monkeypatch: pytest.MonkeyPatch, home: Path, capsys) -> None:
    monkeypatch.setenv("LLMASOS_URL", NOBODY)
    worked: list[str] = []
    command = SimpleNamespace(callback=lambda: worked.append(name))
    check_place(command, name)
    command.callback()
    assert worked == [name]
    said = capsys.readouterr()
    assert said.err == f"`llmasos {name}` works on this machine, not on the server {NOBODY}.\n"


def test_what_belongs_to_this_machine_is_done(llmasos) -> None:
    done = llmasos("completion", "bash", LLMASOS_URL=NOBODY)
    assert done.exit_code == 0
    assert "_LLMASOS_COMPLETE" in done.stdout
    assert done.stderr.startswith("`llmasos completion` works on this machine")
    assert llmasos("completion", "bash", "--json", LLMASOS_URL=NOBODY).stderr == ""


def test_config_toml_names_the_server_too(llmasos, home: Path) -> None:
    home.mkdir()
    (home / "config.toml").write_text(f'url = "{NOBODY}/"\n')
    assert f"The server {NOBODY} does not respond" in llmasos("list").stderr
    assert llmasos("list", LLMASOS_URL="").exit_code == 0


@pytest.mark.parametrize("url", ["nowhere", "http://127.0.0.1:port", "ftp://127.0.0.1"])
@pytest.mark.parametrize("words", [["list"], ["run", "acme/tool", "say"]])
def test_an_address_that_is_none_is_told_in_one_line(url: str, words: list[str], llmasos) -> None:
    done = llmasos(*words, LLMASOS_URL=url)
    assert done.exit_code == 1
    assert done.stderr.startswith(f"Error: The server {url} does not respond")
    assert done.stderr.count("\n") == 1


def test_a_token_with_quotes_of_a_word_processor_is_told(llmasos) -> None:
    for command in (["list"], ["run", "acme/tool", "say"]):
        done = llmasos(*command, LLMASOS_URL=NOBODY, LLMASOS_TOKEN="“llmasos_1”")
        assert "LLMASOS_TOKEN has characters that no token has" in done.stderr


def fill(home: Path) -> dict[str, str]:
    """Something to read for each command; returns a token of an administrator and of a reader bound to another app."""
    catalog = open_catalog(home)
    bundle = make_bundle(home / "made", manifest_text())
    for version in ("1.0.0", "1.1.0"):
        add_bundle(catalog, make_bundle(home / "made", manifest_text(version=version)))
    now = utc_now()
    with catalog.database.write() as session:
        repository.ensure_workspace(session, "default")
        read = read_bundle(bundle)
        found = Installation(
            id="i", workspace_id="default", app_id="acme/hello", installed_by="local", installed_at=now
        )
        session.add(found)
        session.flush()
        granted = {each.capability: each for each in read.manifest.permissions}
        add = partial(repository.add_release, session, "i", read, config={}, lock={})
        found.current_id = add(granted=granted, state="current").id
        add(granted={}, state="pending")
        name = QuotaName("default", Scope.APP, "acme/hello", Meter.TOKENS, Window.DAY)
        service.set_quota(session, lambda _event, _detail: None, name, 100)
        names = {"workspace_id": "default", "user_id": "local", "app_id": "acme/hello", "model": "m"}
        session.add(UsageDay(day=now.date(), calls=1, prompt_tokens=5, **names))
        for number in range(3):
            record(session, Line("default", "local", f"event.{number}", detail={"n": number}))
        Secrets(home).set(session, SecretOwner("default", "local", "acme/hello"), "api_key", "s3cret")
        session.add(
            InvocationRow(
                id="a" * 32, workspace_id="default", user_id="local", app_id="acme/hello", version="1.0.0",
                action="greet", status="succeeded", started_at=now, ended_at=now, lease_id="l", log="said",
            )
        )  # fmt: skip
        admin = create_token(session, Principal(), scopes=[TokenScope.ADMIN]).token
        bound = create_token(session, Principal(), scopes=[TokenScope.READ], apps=["acme/other"]).token
    catalog.database.close()
    return {"admin": admin, "bound": bound}


READING = {
    "search": ["search"],
    "show": ["show", "acme/hello@1.0.0"],
    "list": ["list"],
    "grants show": ["grants", "show", "acme/hello"],
    "invocations": ["invocations", "acme/hello"],
    "logs": ["logs", "aaaa"],
    "quota list": ["quota", "list"],
    "usage": ["usage", "--app", "acme/hello"],
    "audit": ["audit", "--limit", "2"],
    "audit verify": ["audit", "verify"],
    "secrets list": ["secrets", "list"],
    "tokens list": ["tokens", "list"],
    "models list": ["models", "list"],
}
# What a server keeps to itself, or adds.
ONLY_ONE_SAYS = {
    "show": {"published_by", "size_bytes", "published_at", "app", "bundle"},
    "models list": {"litellm", "api_base", "key"},
}


# In an order in which each finds what those before it made.
CHANGING = {
    "quota set": ["quota", "set", "--app", "acme/hello", "--window", "month", "--limit", "7"],
    "quota remove": ["quota", "remove", "--app", "acme/hello", "--window", "month"],
    "secrets set": ["secrets", "set", "other_key", "--app", "acme/hello"],
    "secrets remove": ["secrets", "remove", "other_key", "--app", "acme/hello"],
    "tokens create": ["tokens", "create", "--name", "ci", "--scope", "read"],
    "tokens revoke": ["tokens", "revoke", "{tokens create}"],
    "users invite": ["users", "invite", "ann@example.com", "--role", "viewer"],
    "users list": ["users", "list"],
    "users uninvite": ["users", "uninvite", "{users invite}"],
    "users role": ["users", "role", "bob@example.com", "viewer"],
    "users remove": ["users", "remove", "bob@example.com"],
    "policy set": ["policy", "set", "--approve-capability", "secrets", "--upgrades", "patches"],
    "policy show": ["policy", "show"],
    "policy requests": ["policy", "requests"],
    "invocations keep": ["invocations", "keep", "5"],
}
# Tested where their answers are: over HTTP, and with the content of invocations.
ELSEWHERE = {"run", "policy approve", "policy refuse", "models remove", "models test"}


def test_every_command_for_a_server_is_tried_on_one() -> None:
    others = {"invocations list", "invocations show", "invocations delete"}
    tried = set(READING) | set(CHANGING) | ELSEWHERE | others
    assert tried - {"invocations"} == {name for name, place in registry.PLACES.items() if place == "server"}


async def test_a_changing_command_changes_a_server(served: dict[str, str], answer: Callable[..., Any]) -> None:
    """12-4: what commands change at home, they change on the server that LLMASOS_URL names."""
    there = {"LLMASOS_URL": served["url"], "LLMASOS_TOKEN": served["admin"]}
    with Database(Settings().resolved_database_url) as database, database.write() as session:
        bob = people.add_user(session, "Bob", "bob@example.com").id
        people.add_member(session, "default", bob, Role.MEMBER)
    done: dict[str, Any] = {}
    for name, words in CHANGING.items():
        filled = [done[word.strip("{}")]["id"] if word.startswith("{") else word for word in words]
        stdin = "s3cret\n" if name == "secrets set" else None
        done[name] = await asyncio.to_thread(lambda filled=filled, stdin=stdin: answer(*filled, stdin=stdin, **there))
    assert done["quota set"]["limit"] == 7
    assert done["users invite"]["url"].startswith(f"{served['url']}/invitations/")
    assert [each["email"] for each in done["users list"]["invitations"]] == ["ann@example.com"]
    assert done["users role"] == done["users remove"] == {"id": bob}
    assert done["policy set"] == done["policy show"]
    assert (done["policy show"]["approve_capabilities"], done["invocations keep"]) == (["secrets"], {"days": 5})
    # At home it is the same database, which has all of it.
    here = await asyncio.to_thread(lambda: answer("policy", "show"))
    assert here == done["policy show"]
    tokens = await asyncio.to_thread(lambda: answer("tokens", "list"))
    assert {each["id"]: each["state"] for each in tokens}[done["tokens create"]["id"]] == "revoked"


def in_utc(value: Any, key: str = "") -> Any:
    """The value, with its times as times: SQLite keeps them without a zone."""
    if isinstance(value, dict):
        return {name: in_utc(each, name) for name, each in value.items()}
    if isinstance(value, list):
        return sorted((in_utc(each) for each in value), key=lambda each: json.dumps(each, sort_keys=True, default=str))
    if value and (key == "at" or key.endswith("_at")):
        at = datetime.fromisoformat(value)
        return at if at.tzinfo else at.replace(tzinfo=UTC)
    return value


def without(value: Any, names: set[str]) -> Any:
    if isinstance(value, dict):
        return {name: without(each, names) for name, each in value.items() if name not in names}
    return [without(each, names) for each in value] if isinstance(value, list) else value


@pytest.fixture
async def served(home: Path) -> AsyncIterator[dict[str, str]]:
    """A server on the home; yields its URL and tokens."""
    tokens = fill(home)
    with listen("127.0.0.1", 0) as listener:
        ready = asyncio.Event()
        server = Server(create_app(Settings()), ready.set)
        serving = asyncio.create_task(server._serve([listener]))
        await ready.wait()
        yield {"url": f"http://127.0.0.1:{listener.getsockname()[1]}", **tokens}
        server.should_exit = True
        await serving


async def test_a_reading_command_shows_of_a_server_what_it_shows_at_home(
    served: dict[str, str], llmasos, answer: Callable[..., Any]
) -> None:
    """11-39: `list`, `search`, `usage`, `quota`, `models`, `audit` and others read the home and said nothing."""
    there = {"LLMASOS_URL": served["url"], "LLMASOS_TOKEN": served["admin"]}
    for name, words in READING.items():
        here = in_utc(await asyncio.to_thread(lambda words=words: answer(*words)))
        found = in_utc(await asyncio.to_thread(lambda words=words: answer(*words, **there)))
        if name == "models list":  # a server says less of a model
            fields = set(found["models"][0])
            here = {"models": [{field: each[field] for field in fields} for each in here["models"]]}
        if name == "tokens list":  # the request itself used one
            found, here = without(found, {"last_used_at"}), without(here, {"last_used_at"})
        only = ONLY_ONE_SAYS.get(name, set())
        assert without(found, only) == without(here, only), name
        for locale in ("en", "zh"):
            shown = await asyncio.to_thread(
                lambda words=words, locale=locale: llmasos(*words, LLMASOS_LOCALE=locale, **there)
            )
            assert (shown.exit_code, shown.stderr) == (0, ""), name
            assert shown.stdout, name


async def test_what_a_token_may_not_see_is_refused_or_left_out(
    served: dict[str, str], llmasos, answer: Callable[..., Any]
) -> None:
    bound = {"LLMASOS_URL": served["url"], "LLMASOS_TOKEN": served["bound"]}
    for words in (["audit"], ["audit", "verify"], ["tokens", "list"]):
        done = await asyncio.to_thread(lambda words=words: llmasos(*words, **bound))
        assert (done.exit_code, done.stdout) == (3, ""), words
        assert "--scope admin" in done.stderr
    for words in (["list"], ["secrets", "list"], ["quota", "list"], ["usage"], ["invocations"]):
        found = await asyncio.to_thread(lambda words=words: answer(*words, **bound))
        assert "acme/hello" not in json.dumps(found), words
    nobody = {"LLMASOS_URL": served["url"], "LLMASOS_TOKEN": ""}
    for name, words in READING.items():
        done = await asyncio.to_thread(lambda words=words: llmasos(*words, **nobody))
        assert done.exit_code == (0 if name in ("search", "show") else 3), name


async def test_an_apps_actions_are_those_of_the_server(served: dict[str, str], llmasos, home: Path, tmp_path) -> None:
    """11-29: `run APP --help` showed the home's."""
    there = {"LLMASOS_URL": served["url"], "LLMASOS_TOKEN": served["admin"], "LLMASOS_HOME": str(tmp_path / "other")}
    for words in (["run", "acme/hello", "--help"], ["run", "acme/hello", "greet", "--help"]):
        done = await asyncio.to_thread(lambda words=words: llmasos(*words, **there))
        assert (done.exit_code, done.stderr) == (0, "")
        assert "llmasos run acme/hello greet -p" in done.stdout
    missing = await asyncio.to_thread(lambda: llmasos("run", "acme/hello", "no", "--help", **there))
    assert missing.exit_code == 5
    assert not (tmp_path / "other").exists()
