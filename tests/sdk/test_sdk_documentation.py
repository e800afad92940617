"""What authors read: the manifest's schema for editors, and the pages beside it."""

import json
import re
import sys
import tomllib
from datetime import date
from pathlib import Path
from types import ModuleType
from typing import Any

import jsonschema
import pytest

import llmasos_sdk
from llmasos.authoring.scaffold import new
from llmasos.bundles.manifest_schema import manifest_schema
from llmasos_sdk import errors, testing

SDK = Path(__file__).parents[2] / "sdk"
SCHEMA = SDK / "src/llmasos_sdk/llmapp.schema.json"


def keys_of(schema: dict[str, Any]) -> set[str]:
    """Every key that a manifest may hold, in any table."""
    return {key for part in (schema, *schema["$defs"].values()) for key in part.get("properties", {})}


def test_the_schema_for_editors_is_that_of_the_reader() -> None:
    """11-34: if it differs, write it again: python -m llmasos.bundles.manifest_schema > …"""
    assert SCHEMA.read_text(encoding="utf-8") == manifest_schema()


@pytest.mark.parametrize("app", sorted(path.parent.name for path in SDK.parent.glob("plugins/*/llmapp.toml")))
def test_every_first_party_manifest_fits_the_schema(app: str) -> None:
    manifest = tomllib.loads((SDK.parent / "plugins" / app / "llmapp.toml").read_text(encoding="utf-8"))
    jsonschema.validate(manifest, json.loads(SCHEMA.read_text(encoding="utf-8")))


def test_the_schema_refuses_an_unknown_key() -> None:
    manifest = tomllib.loads((SDK.parent / "plugins/triage/llmapp.toml").read_text(encoding="utf-8"))
    with pytest.raises(jsonschema.ValidationError, match="versoin"):
        jsonschema.validate({**manifest, "versoin": "1"}, json.loads(SCHEMA.read_text(encoding="utf-8")))


def test_a_new_project_points_editors_to_its_schema(tmp_path: Path) -> None:
    """11-34."""
    project = new("me/hello", tmp_path)
    named = re.match(r"#:schema (\S+)\n", (project / "llmapp.toml").read_text(encoding="utf-8"))
    assert named is not None
    assert (project / named[1]).read_bytes() == SCHEMA.read_bytes()


def test_the_page_of_the_manifest_names_every_key() -> None:
    """11-34."""
    page = (SDK / "docs/manifest.md").read_text(encoding="utf-8")
    named = set(re.findall(r"[`.\[]([a-z_]+)[`.\]]", page))
    assert keys_of(json.loads(SCHEMA.read_text(encoding="utf-8"))) - named == {"en", "zh"} - named


def test_the_example_of_the_page_of_types_is_an_app() -> None:
    """11-34, DESIGN 4: what the page says of tags and dates is so."""
    page = (SDK / "docs/types.md").read_text(encoding="utf-8")
    sys.modules["types_page"] = ModuleType("types_page")
    try:
        exec(page.partition("```python\n")[2].partition("```")[0], vars(sys.modules["types_page"]))
        app = vars(sys.modules["types_page"])["app"]
        inputs = {"guests": [{"name": "Ada"}], "day": date(2026, 11, 28), "way": {"by": "train", "seat": 3}}
        assert testing.call(app, "invite", testing.FakeContext(), **inputs) == "Ada: 28.11.2026, train"
        with pytest.raises(llmasos_sdk.SchemaMismatch, match=r"way\.by: this input is needed"):
            testing.call(app, "invite", testing.FakeContext(), **{**inputs, "way": {"seat": 3}})
    finally:
        del sys.modules["types_page"]


def test_the_pages_name_everything_that_the_sdk_exports() -> None:
    """11-34."""
    pages = "".join(path.read_text(encoding="utf-8") for path in (SDK / "docs").glob("*.md"))
    described = {name for name in dir(errors) if isinstance(getattr(errors, name), type)}
    described |= {"Completion", "Embeddings", "Entry", "Response", "ToolCall", "Usage"}  # by ::: llmasos_sdk.results
    assert "::: llmasos_sdk.errors" in pages
    assert "::: llmasos_sdk.results" in pages
    exported = {*llmasos_sdk.__all__, "FakeContext", "ScriptedModel", "MemoryStorage"} - described
    exported -= {"Action", "find_app"}  # the host's, to find what an author wrote
    assert {name for name in exported if not re.search(rf"\b{name}\b", pages)} == set()
    assert {"FakeContext", "ScriptedModel", "MemoryStorage"} <= set(testing.__all__)
