import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import llmasos_sdk
from llmasos.bundles.hosts import HostPattern
from llmasos.bundles.manifest import Manifest, parse_manifest
from llmasos.bundles.parts import MAX_RESPONSE_BYTES, HttpPermission, LocalisedText
from llmasos.bundles.testing import MODEL_PERMISSION, manifest_text
from llmasos.errors import ManifestRejected
from llmasos_runner.protocol import MAX_PAYLOAD_BYTES

FULL = """
schema = 1
id = "acme/translator"
version = "1.2.0"
license = "Apache-2.0"
categories = ["productivity"]
icon = "icon.svg"
[name]
en = "Translator"
zh = "翻译"
[summary]
en = "Translates text between languages."
zh = "在语言之间翻译文本。"
[runtime]
kind = "wasm"
source = "app.py"
[compat]
llmasos = ">=0.1,<1"
[[permissions]]
capability = "model"
tiers = ["fast", "balanced"]
max_output_tokens = 1024
reason.en = "Translates the text you give it."
[[permissions]]
capability = "http"
hosts = ["https://api.example.com"]
methods = ["GET"]
optional = true
reason.en = "Looks up rare words."
[[permissions]]
capability = "secrets"
secrets = [{ name = "key", host = "https://api.example.com", header = "Authorization", prefix = "Bearer " }]
reason.en = "Signs in."
[[permissions]]
capability = "apps"
apps = ["acme/glossary"]
reason.en = "Knows your words."
[limits]
memory_mib = 64
cpu_seconds = 5
wall_seconds = 120
tokens_per_run = 4000
tokens_per_day = 50000
[config.formality]
type = "string"
enum = ["neutral", "formal"]
default = "neutral"
title.en = "Formality"
[config.labels]
type = "array"
default = ["a", "b"]
title.en = "Labels"
[dependencies]
"acme/glossary" = ">=1,<2"
"""


def faults(text: str) -> str:
    with pytest.raises(ManifestRejected) as caught:
        parse_manifest(text)
    return caught.value.message


def test_the_whole_manifest_of_the_design_parses() -> None:
    manifest = parse_manifest(FULL)
    assert manifest.capabilities == {"model", "http", "secrets", "apps"}
    assert manifest.limits.cpu_seconds == 5
    assert manifest.permissions[0].reason.in_locale("zh") == "Translates the text you give it."


def test_a_manifest_survives_json() -> None:
    manifest = parse_manifest(FULL)
    assert Manifest.model_validate(json.loads(json.dumps(manifest.model_dump(mode="json")))) == manifest


# What is replaced in the full manifest, by what, and what the one line must say: the key, the fault, the cure.
SPOILT = [
    ('license = "Apache-2.0"', 'licence = "Apache-2.0"', ["licence: unknown key", "did you mean 'license'?"]),
    ("memory_mib = 64", "memori_mib = 64", ["limits.memori_mib", "did you mean 'memory_mib'?"]),
    ("title.en", "tilte.en", ["config.formality.tilte", "did you mean 'title'?"]),
    ("methods =", "metods =", ["permissions[1].metods", "did you mean 'methods'?"]),
    ("reason.en = \"Signs", "reason.fr = \"Signs", ["permissions[2].reason.fr: unknown key", 'reason.en = "…"']),
    ('id = "acme/translator"', 'id = "Acme/Translator"', ["id: 'Acme/Translator'", "publisher/name"]),
    ('id = "acme/translator"', 'id = "acme"', ["id: 'acme'", "publisher/name"]),
    ('id = "acme/translator"', 'id = "acme/../x"', ["id:", "publisher/name"]),
    ('"1.2.0"', '"01.0"', ["version: write '1.0' instead of '01.0'"]),
    ('"1.2.0"', '"v1"', ["version: write '1' instead of 'v1'"]),
    ('"1.2.0"', '"1.0.0 "', ["version: write '1.0.0' instead of '1.0.0 '"]),
    ('"1.2.0"', '"one"', ["version: 'one' is not a version"]),
    ('"1.2.0"', "1.2", ["version: it is 1.2", "a string in quotes"]),
    ("cpu_seconds = 5", 'cpu_seconds = "5"', ["limits.cpu_seconds: it is '5'", "write a number"]),
    ("memory_mib = 64", "memory_mib = 64.0", ["limits.memory_mib", "whole number"]),
    ("memory_mib = 64", "memory_mib = true", ["limits.memory_mib: it is true"]),
    ("memory_mib = 64", "memory_mib = 1", ["limits.memory_mib", "32"]),
    ("wall_seconds = 120", "wall_seconds = nan", ["limits.wall_seconds"]),
    ("optional = true", 'optional = "yes"', ["permissions[1].optional", "true or false"]),
    ('hosts = ["https://api.example.com"]', 'hosts = "https://a.b"', ["permissions[1].hosts", "an array"]),
    ('hosts = ["https://api.example.com"]\nm', "hosts = []\nm", ["permissions[1].hosts"]),
    ('methods = ["GET"]', 'methods = ["GET"]\nmax_response_bytes = 1048577', ["max_response_bytes", "1048576"]),
    ('hosts = ["https', 'hosts = ["ftp', ["permissions[1].hosts", "ftp://"]),
    ('capability = "http"', 'capability = "htp"', ["unknown capability 'htp'", "'http'", "model, secrets, storage"]),
    ('capability = "http"\n', "", ["permissions[1].capability", "missing"]),
    (
        "[limits]",
        '[[permissions]]\ncapability = "model"\nembeddings = true\nreason.en = "x"\n[limits]',
        ["'model' is asked for 2 times", "merge"],
    ),
    ('reason.en = "Looks up rare words."\n', "", ["permissions[1].reason: it is missing", 'reason.en = "…"']),
    ('tiers = ["fast", "balanced"]', 'tiers = ["fats"]', ["permissions[0].tiers[0]", "'fast', 'balanced' or 'best'"]),
    ('tiers = ["fast", "balanced"]\n', "", ["permissions[0]", "embeddings = true"]),
    ('source = "app.py"', "", ["runtime: it does not say", "source and component"]),
    ('source = "app.py"', 'source = "a.py"\ncomponent = "a.wasm"', ["runtime: it names both"]),
    ('source = "app.py"', 'wheel = "a.whl"', ["runtime.wheel", "source or component"]),
    ('source = "app.py"', 'component = "a.txt"', ["runtime.component", ".wasm"]),
    ('source = "app.py"', 'source = "../app.py"', ["runtime.source", "plain path"]),
    ('kind = "wasm"', 'kind = "docker"', ["runtime.kind: 'docker'", "'wasm' or 'python'", "begins with x-"]),
    ('kind = "wasm"', 'kind = "x-gpu"', ["kind = \"x-gpu\" is not made from a source", "component or wheel"]),
    ('icon = "icon.svg"', 'icon = "/etc/passwd"', ["icon", "plain path"]),
    ('icon = "icon.svg"', r'icon = "a\\b.svg"', ["icon", "plain path"]),
    ('"acme/glossary" = ">=1,<2"', "", ["acme/glossary is not a dependency", "[dependencies]"]),
    ('"acme/glossary" = ">=1,<2"', '"acme/glossary" = "one"', ['dependencies."acme/glossary"', "specifier"]),
    ('"acme/glossary" = ">=1,<2"', '"acme/translator" = ">=1"\n"acme/glossary" = ">=1"', ["depend on itself"]),
    ('host = "https://api.example.com"', 'host = "https://evil.example"', ["https://evil.example", "hosts ="]),
    ('host = "https://api.example.com"', 'host = "https://*.example.com"', ["one server"]),
    ('header = "Authorization"', 'header = "Host"', ["transport"]),
    ('header = "Authorization"', 'header = "A:b"', ["permissions[2].secrets[0].header"]),
    ('header = "Authorization"', 'header = "A", query = "b"', ["one place"]),
    ('default = "neutral"', 'default = "rude"', ["config.formality.default", "'neutral', 'formal'"]),
    ('default = "neutral"', "default = 3", ["config.formality.default", "a string"]),
    ('enum = ["neutral", "formal"]', 'enum = ["neutral", 3]', ["config.formality.enum"]),
    ('default = ["a", "b"]', 'default = "a"', ["config.labels.default", "array"]),
    ('type = "array"', 'type = "boolean"\nui = "textarea"', ["config.labels.ui"]),
    ("[config.labels]", "[config.Labels]", ["config.Labels", "lower-case"]),
    ("schema = 1", "schema = 2", ["schema: 2 is not allowed; use 1"]),
    ("schema = 1", "", ["schema: it is missing", "schema = 1"]),
    ('[name]\nen = "Translator"', "[name]", ["name.en: it is missing", "English"]),
    ('[name]\nen = "Translator"', '[name]\nen = ""', ["name.en"]),
    ('llmasos = ">=0.1,<1"', 'llmasos = "any"', ["compat.llmasos", "specifier"]),
    ("tokens_per_day = 50000", "tokens_per_day = 0", ["limits.tokens_per_day"]),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "said"), SPOILT)
def test_each_fault_is_reported_with_its_key_and_cure(old: str, new: str, said: list[str]) -> None:
    assert old in FULL
    message = faults(FULL.replace(old, new, 1))
    for part in said:
        assert part in message


def test_every_fault_is_reported_at_once_even_those_between_parts() -> None:
    message = faults(
        FULL.replace("memory_mib", "memori_mib")
        .replace('"1.2.0"', '"v1"')
        .replace('"acme/glossary" = ">=1,<2"', "")
        .replace('default = "neutral"', "default = 3")
        .replace('source = "app.py"', "")
    )
    lines = message.splitlines()
    assert lines[0] == "llmapp.toml has 5 faults:"
    assert [line.split(":")[0].strip() for line in lines[1:]] == [
        "version", "limits.memori_mib", "runtime", "permissions[3].apps", "config.formality.default",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        "", "x", "a = ", "a = " + "[" * 9000, "a = " + "9" * 5000, ".".join("a" * 9000) + " = 1", "a = 1\n" * 30_000,
        "permissions = 3", "permissions = [3]", "config = 3", "config.a = 3", "dependencies = []", "name = 3",
        "permissions = [[1]]", "[[permissions]]\ncapability = []", "[[permissions]]\ncapability = {a = 1}",
        "[[permissions]]\ncapability = 1979-05-27", '"\\u0000" = 1', '"a\\nb" = 1', "id = 1979-05-27T07:32:00Z",
        "runtime = []", "[runtime]\nkind = []",
    ],
)  # fmt: skip
@pytest.mark.timeout(5)
def test_nonsense_is_refused_and_nothing_else(text: str) -> None:
    message = faults(text)
    assert message.startswith("llmapp.toml")
    assert all(line.strip() for line in message.splitlines())


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_mutated_manifest_parses_or_is_rejected(data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(FULL)))
    length = data.draw(st.integers(0, 12))
    text = FULL[:at] + data.draw(st.text(max_size=8)) + FULL[at + length :]
    try:
        parse_manifest(text)
    except ManifestRejected as error:
        assert error.message


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=200))
def test_random_text_is_rejected(text: str) -> None:
    with pytest.raises(ManifestRejected):
        parse_manifest(text)


def test_every_limit_that_a_manifest_may_name_can_be_reached() -> None:
    """10-21: `max_response_bytes` could be 16 MiB, of which an app received 1 MiB."""
    assert MAX_RESPONSE_BYTES == MAX_PAYLOAD_BYTES
    whole = FULL.replace('methods = ["GET"]', f'methods = ["GET"]\nmax_response_bytes = {MAX_RESPONSE_BYTES}')
    assert parse_manifest(whole).permissions[1].max_response_bytes == MAX_RESPONSE_BYTES
    # An installation from before holds more; it is still read.
    assert HttpPermission(
        capability="http", hosts=("https://a.example",), reason=LocalisedText(en="r"), max_response_bytes=16 << 20
    )
    schema = json.loads((Path(llmasos_sdk.__file__).parent / "llmapp.schema.json").read_text())
    assert schema["$defs"]["HttpPermission"]["properties"]["max_response_bytes"]["maximum"] == MAX_RESPONSE_BYTES


def test_the_manifest_for_tests_is_valid() -> None:
    assert parse_manifest(manifest_text()).id == "acme/hello"


@pytest.mark.parametrize(
    "text",
    [
        "", "**", "example.com", "https://", "https://*", "https://*.com", "https://a/b", "https://a?b", "https://u@a",
        "HTTPS://a.com", "https://A.com", "https://a.com:0", "https://a.com:70000", "https://a.com:", "https://.a.com",
        "https://a..com", "https://-a.com", "https://a.com.", "https://0x7f.0.0.1", "https://127.1", "https://2130706433",
        "https://0177.0.0.1", "https://[::ffff:1.2.3.4", "https://[0:0:0:0:0:0:0:1]", "https://*.1.2.3.4",
        "https://a.*.com", "https://*a.com", "https://中.com", "ws://a.com", "https://a.com\n", "file:///etc",
    ],
)  # fmt: skip
def test_an_invalid_host_pattern_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        HostPattern.parse(text)


@pytest.mark.parametrize(
    ("wide", "narrow", "covered"),
    [
        ("*", "https://a.com", True),
        ("*", "*", True),
        ("https://a.com", "*", False),
        ("https://a.com", "https://a.com:443", True),
        ("https://a.com", "https://a.com:8443", False),
        ("https://a.com", "http://a.com", False),
        ("https://*.a.com", "https://b.a.com", True),
        ("https://*.a.com", "https://c.b.a.com", True),
        ("https://*.a.com", "https://a.com", False),
        ("https://*.a.com", "https://ba.com", False),
        ("https://*.a.com", "https://*.a.com", True),
        ("https://*.a.com", "https://*.b.a.com", True),
        ("https://*.b.a.com", "https://*.a.com", False),
        ("https://b.a.com", "https://*.a.com", False),
        ("https://[2001:db8::1]:9", "https://[2001:db8::1]:9", True),
    ],
)
def test_a_host_pattern_covers_what_it_reaches(wide: str, narrow: str, covered: bool) -> None:
    assert HostPattern.parse(wide).covers(HostPattern.parse(narrow)) is covered


SPOOFS = [
    "\\u001b[1A\\u001b[2K",
    "It is local.\\nWithin: nothing",
    "\\u202egnp",
    "\\u009b2K",
    "a\\u200bb",
    "\\u0085",
    "\\u3164",
    "a\\U000E0041",
]


@pytest.mark.parametrize("spoof", SPOOFS)
@pytest.mark.parametrize(
    "place",
    ['[summary]\nen = "{}"', '[name]\nen = "Hello"\nzh = "{}"', 'license = "{}"', '"{}" = 1'],
)
def test_characters_that_readers_cannot_see_are_refused_anywhere(spoof: str, place: str) -> None:
    """11-S1: an app repainted its own consent screen from its summary or a reason."""
    text = manifest_text(extra="")
    old = {"[summary]": '[summary]\nen = "Says hello."', "[name]": '[name]\nen = "Hello"\nzh = "你好"'}
    old_text = old.get(place.split("\n", maxsplit=1)[0], 'license = "Apache-2.0"')
    with pytest.raises(ManifestRejected, match="which readers cannot see"):
        parse_manifest(text.replace(old_text, place.format(spoof)))


@pytest.mark.parametrize("spoof", SPOOFS)
def test_a_reason_has_no_characters_that_readers_cannot_see(spoof: str) -> None:
    """11-S1."""
    with pytest.raises(ManifestRejected, match=r"permissions\[0\]\.reason\.en: it contains U\+"):
        parse_manifest(manifest_text(extra=MODEL_PERMISSION.replace("Answers you.", spoof)))


def test_a_default_of_a_textarea_may_have_lines() -> None:
    extra = '[config.note]\ntype = "string"\nui = "textarea"\ntitle.en = "Note"\ndefault = "one\\ntwo"'
    assert parse_manifest(manifest_text(extra=extra)).config["note"].default == "one\ntwo"
