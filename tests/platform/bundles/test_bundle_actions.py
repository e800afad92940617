"""Actions and locks in a bundle that the host refuses."""

import json

import pytest
from tests.platform.bundles.archives import rejected

from llmasos.bundles import layout
from llmasos.bundles.actions import parse_actions
from llmasos.bundles.reader import bundle_of
from llmasos.bundles.testing import action, bundle_files, manifest_text
from llmasos.bundles.writer import pack
from llmasos.errors import BundleRejected


def without(name: str) -> dict[str, bytes]:
    return {key: value for key, value in bundle_files().items() if key != name}


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (without(layout.MANIFEST), "no llmapp.toml"),
        (without(layout.ACTIONS), "no actions.json"),
        (without(layout.COMPONENT), "app.wasm"),
        (without(layout.README), "no README.md"),
        ({**bundle_files(), "x.py": b""}, "nothing reads"),
        ({**bundle_files(), layout.README: b"\xff"}, "not UTF-8"),
        ({**bundle_files(), layout.MANIFEST: b"\xff"}, "not UTF-8"),
        ({**bundle_files(), layout.LOCK: b""}, "no wheel"),
        (bundle_files(component=b"\0asm\x01\0\0\0"), "core module"),
        (bundle_files(component=b"MZ"), "not WebAssembly"),
        (bundle_files(component=b""), "not WebAssembly"),
        (bundle_files(manifest_text().replace("[name]", 'icon = "i.svg"\n[name]')), "icon"),
        (bundle_files(manifest_text().replace('"wasm"', '"python"')), "one wheel"),
    ],
)
def test_missing_and_superfluous_files_are_named(files: dict[str, bytes], said: str) -> None:
    assert said in rejected(pack(files))


PYTHON = manifest_text().replace('"wasm"', '"python"')
HASH = "--hash=sha256:" + "0" * 64


@pytest.mark.parametrize(
    ("lock", "said"),
    [
        (f"numpy==2.0 \\\n    {HASH}\nsix==1.0 {HASH} {HASH}\n# a comment\n", ""),
        ("", ""),
        ("numpy==2.0", "no sha256"),
        (f"numpy>=2.0 {HASH}", "not pinned"),
        (f"numpy==2.* {HASH}", "not pinned"),
        (f"numpy {HASH}", "not pinned"),
        (f"numpy @ https://evil.example/n.whl {HASH}", "address"),
        (f"https://evil.example/n.whl {HASH}", "not a requirement"),
        (f"./n.whl {HASH}", "not a requirement"),
        ("--index-url https://evil.example", "option"),
        ("-e .", "option"),
        (f"numpy==2.0 --hash=md5:{'0' * 32}", "no sha256"),
        (f"numpy==2.0 {HASH} --global-option=x", "no sha256"),
    ],
)
def test_a_lock_is_pinned_hashed_and_without_addresses(lock: str, said: str) -> None:
    files = without(layout.COMPONENT) | {
        layout.MANIFEST: PYTHON.encode(), "hello-1.0.0-py3-none-any.whl": b"PK", layout.LOCK: lock.encode(),
    }  # fmt: skip
    if said:
        assert said in rejected(pack(files))
        return
    bundle = bundle_of(pack(files))
    assert bundle.wheel == "hello-1.0.0-py3-none-any.whl"
    other = bundle_of(pack({**files, layout.LOCK: lock.encode() + b"# other\n"}))
    assert bundle.component_digest != other.component_digest


def schema_actions(schema: object) -> bytes:
    return json.dumps([{**action(), "output_schema": schema}]).encode()


DEEP: dict[str, object] = {}
for _ in range(40):
    DEEP = {"type": "array", "items": DEEP}
DOUBLING = {f"d{i}": {"allOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 2} for i in range(13)} | {"d13": {}}


@pytest.mark.parametrize(
    ("actions", "said"),
    [
        (b"{}", "not a list"),
        (b"[]", "at least one"),
        (b"[1]", "not an action"),
        (b"nonsense", "not valid JSON"),
        (b"[" * 100_000, "deeply"),
        (b'[{"name": NaN}]', "NaN"),
        (b'[{"name": "a", "name": "b"}]', "same key twice"),
        (json.dumps([action(), action()]).encode(), "twice"),
        (json.dumps([action(f"a{i}") for i in range(65)]).encode(), "limit is 64"),
        (json.dumps([action("Bad Name")]).encode(), "not a name"),
        (json.dumps([action("../x")]).encode(), "not a name"),
        (json.dumps([{**action(), "exec": 1}]).encode(), "unknown key"),
        (json.dumps([{**action(), "title": {"fr": "x"}}]).encode(), "title"),
        (json.dumps([{**action(), "title": {"en": 3}}]).encode(), "title"),
        (json.dumps([{**action(), "streaming": "yes"}]).encode(), "streaming"),
        (json.dumps([{**action(), "input_schema": {"type": "string"}}]).encode(), "inputs are named"),
        (json.dumps([{**action(), "input_schema": None}]).encode(), "not a JSON Schema"),
        (json.dumps([{"name": "@install"}]).encode(), "at least one"),
        (json.dumps([action(), {"name": "@instal"}]).encode(), "'@instal' is not a lifecycle event"),
        (json.dumps([action(), action("@install")]).encode(), "'@install' is not a lifecycle event"),
        (json.dumps([action(), {"name": "@install"}, {"name": "@install"}]).encode(), "names '@install' twice"),
        (schema_actions({"type": "strin"}), "not valid JSON Schema"),
        (schema_actions({"minimum": "1"}), "not valid JSON Schema"),
        (schema_actions({"$ref": "https://evil.example/schema.json"}), "only #/$defs/"),
        (schema_actions({"$ref": "#"}), "only #/$defs/"),
        (schema_actions({"$ref": "file:///etc/passwd"}), "only #/$defs/"),
        (schema_actions({"$ref": "#/$defs/x"}), "not there"),
        (schema_actions({"$ref": "#/$defs/x", "$defs": {"x": {"$ref": "#/$defs/x"}}}), "refers to itself"),
        (schema_actions({"$ref": "#/$defs/x", "$defs": {"x": {"items": {"$ref": "#/$defs/x"}}}}), "refers to itself"),
        (schema_actions({"$ref": "#/$defs/d0", "$defs": DOUBLING}), "over 20000 parts"),
        (schema_actions(DEEP), "deep"),
        (schema_actions({"type": "string", "pattern": "(a+)+$"}), "'pattern'"),
        (schema_actions({"patternProperties": {"(a+)+$": {}}}), "'patternProperties'"),
        (schema_actions({"uniqueItems": True}), "'uniqueItems'"),
        (schema_actions({"$dynamicRef": "#x"}), "'$dynamicRef'"),
        (schema_actions({"$id": "https://evil.example"}), "'$id'"),
        (schema_actions({"$schema": "http://json-schema.org/draft-07/schema#"}), "dialect"),
        (schema_actions({"enum": [[[]] * 100] * 300}), "over 20000"),
        (b'["' + b"x" * (600 << 10) + b'"]', "512 KiB"),
    ],
)  # fmt: skip
@pytest.mark.timeout(10)
def test_actions_that_the_host_would_not_run_are_refused(actions: bytes, said: str) -> None:
    assert said in rejected(pack({**bundle_files(), layout.ACTIONS: actions}))


@pytest.mark.parametrize(
    "schema",
    [
        {}, {"type": "object", "additionalProperties": {"type": "number", "minimum": 0}},
        {"anyOf": [{"type": "string"}, {"type": "null"}], "x-ui": "textarea", "x-title": {"en": "a", "zh": "b"}},
        {"$ref": "#/$defs/a", "$defs": {"a": {"enum": [1, "b"]}}, "title": "A"},
        {"type": "array", "items": {"type": "object", "properties": {"pattern": {"type": "string"}}}, "maxItems": 3},
    ],
)  # fmt: skip
def test_ordinary_schemas_pass(schema: dict[str, object]) -> None:
    assert (
        bundle_of(pack({**bundle_files(), layout.ACTIONS: schema_actions(schema)})).actions[0].output_schema == schema
    )


@pytest.mark.parametrize(
    "change",
    [
        {"title": "\x1b[2KGreet"},
        {"title": {"en": "Greet\nIt may: nothing"}},
        {"description": "\u202eGreet"},
        {"input_schema": {"type": "object", "properties": {"na\x1bme": {"type": "string"}}}},
        {"input_schema": {"type": "object", "properties": {"name": {"title": "\x9b2K"}}}},
        {"input_schema": {"type": "object", "properties": {"name": {"enum": ["\x07"]}}}},
        {"x-note": ["\x00"]},
    ],
)
def test_characters_that_readers_cannot_see_are_refused_in_actions(change: dict[str, object]) -> None:
    """11-S1: titles, descriptions and choices of actions are shown by commands and pages."""
    with pytest.raises(BundleRejected, match="which readers cannot see"):
        parse_actions(json.dumps([action() | change]))


def test_a_description_of_an_action_may_have_lines() -> None:
    parse_actions(json.dumps([action() | {"description": "Greet somebody.\n\n\tPolitely."}]))


@pytest.mark.parametrize(
    "field",
    [
        {"type": "string", "default": None},
        {"enum": ["kind", "curt"], "default": "rude"},
        {"type": "object", "properties": {"count": {"type": "integer", "default": "three"}}},
        {"anyOf": [{"type": "integer", "default": "x"}, {"type": "null"}]},
        {"type": "string", "format": "date", "default": "2026-02-30"},
        {"type": "string", "format": "date-time", "default": "2026-11-28T09:30:00"},
        {"$ref": "#/$defs/size", "default": "large"},
        {"type": "array", "items": {"type": "integer", "maximum": 3, "default": 4}},
    ],
)
def test_a_default_that_its_own_schema_refuses_is_refused(field: dict[str, object]) -> None:
    """11-17: such an action was published, and each call without the input failed."""
    schema = {"type": "object", "properties": {"field": field}, "$defs": {"size": {"type": "integer"}}}
    with pytest.raises(BundleRejected, match="default that its own schema refuses"):
        parse_actions(json.dumps([action() | {"input_schema": schema}]))


@pytest.mark.timeout(10)
def test_a_default_that_takes_long_to_check_is_refused_at_once() -> None:
    items = {"anyOf": [{"type": "object", "required": [str(number)]} for number in range(3000)]}
    schema = {"type": "object", "properties": {"field": {"type": "array", "items": items, "default": [{}] * 3000}}}
    with pytest.raises(BundleRejected, match="takes too long to check"):
        parse_actions(json.dumps([action() | {"input_schema": schema}]))
